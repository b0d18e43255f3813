"""A household's week, compressed: see `python -m benchmarks.week --help`."""
