"""Benchmarks: what pepcore costs, beside the bare floor, in one run. `README.md` tells how; `pepcore bench` runs them."""
