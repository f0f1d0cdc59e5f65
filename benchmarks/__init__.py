"""Benchmarks of the ops, of training and of serving; the audit of machine code; the study of models.

Each command writes a result file (:mod:`benchmarks.result_files`); ``python -m benchmarks.report`` makes the tables of
docs/performance.md of those that are committed in ``benchmarks/results``.
"""
