"""Benchmarks: each module measures one thing, prints a table, and writes it with its circumstances under `results/`."""

BENCHMARKS = {
    "recurrences": "recurrences",
    "launch-time": "launch_time",
    "source-time": "source_time",
    "compile-time": "compile_time",
    "forest": "forest",
}
"""What `foldfuse bench` calls them, and their modules. Each has a `main` that takes the rest of the command line and
gives the exit status, None where it is 0; the first line of its docstring says what it measures."""
