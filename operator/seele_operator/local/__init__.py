"""Carrying out a run's plan on this machine, each pod as a group of processes, without a cluster."""
