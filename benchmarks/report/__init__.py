"""Generate the sections of docs/performance.md from the committed result files: ``python -m benchmarks.report``."""
