"""The hint controller and its estimators, usable without torch."""
