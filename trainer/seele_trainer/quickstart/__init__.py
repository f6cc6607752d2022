"""The problems and the base model of `make quickstart`: a small model that knows a rule and has a bad habit."""
