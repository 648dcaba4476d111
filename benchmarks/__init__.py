"""Benchmarks: what pepcore costs, beside the bare floor, in one run. See `README.md`, run `pepcore bench`."""
