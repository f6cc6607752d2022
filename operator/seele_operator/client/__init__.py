"""The `seele` commands that work on a cluster as its user: submit, status, logs, suspend, resume, delete."""
