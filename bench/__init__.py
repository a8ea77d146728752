"""Benchmarks: one script a question. Run from the checkout, for example `python -m bench.compare`."""
