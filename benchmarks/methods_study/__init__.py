"""The study behind `benchmarks/methods.py`: what is trained, how it is measured, and the page that shows it."""
