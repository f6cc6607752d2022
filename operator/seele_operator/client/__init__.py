"""The `seele` commands that speak to a cluster, as its user: submit, status, logs, suspend, resume, delete."""
