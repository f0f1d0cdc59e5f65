"""What the memory of a run has kept, against the truth: ``python -m benchmarks.study contents``."""
