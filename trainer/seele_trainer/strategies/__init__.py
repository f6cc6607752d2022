"""Training methods, one short file each."""
