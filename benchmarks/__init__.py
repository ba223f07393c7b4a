"""Scripts that measure and print a table, each run as `python -m benchmarks.<name>`."""
