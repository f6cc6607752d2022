"""The study behind `benchmarks/methods.py`: what is trained, how it is measured, and its tables and plots."""
