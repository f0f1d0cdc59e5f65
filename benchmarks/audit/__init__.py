"""Audit of the kernels' machine code for four GPUs: registers, spills, occupancy and instructions, against budgets.

``python -m benchmarks.audit`` compiles offline, so it needs no GPU.
"""
