"""What the memory of a run stores, against the true events: ``python -m benchmarks.study contents``."""
