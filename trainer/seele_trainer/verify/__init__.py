"""Checking completions against answers."""
