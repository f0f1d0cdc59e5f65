"""Latency of scoring with the CTR model, with and without a memory: ``python -m benchmarks.serving``."""
