"""Model folders: what rollout servers start from, what the learner exports, and the versions on the shared volume."""
