"""Getting trained weights to rollout engines, and proving it."""
