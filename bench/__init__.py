"""Benchmarks: each module measures one thing, prints a table, and writes it with its circumstances under `results/`."""
