"""`seele run`: a run's plan on this machine without a cluster, each pod as a group of processes."""
