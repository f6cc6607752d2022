"""The data plane of Seele: the SEELE trainer."""
