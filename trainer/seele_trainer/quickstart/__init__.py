"""The small problem set and base model of `make quickstart`: a model that knows a rule and has a bad habit."""
