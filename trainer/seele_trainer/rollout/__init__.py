"""Engines that sample completions, and how they get the current weights."""
