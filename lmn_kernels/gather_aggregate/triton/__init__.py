"""Triton kernels of the weighted bag: forward, gradient of the weights, gradient of the values with or without it.

``bags.py`` goes through the bags in their own order; ``sort.py`` brings equal slots together; ``sums.py`` sums their
runs; ``rows.py`` makes a sparse gradient of them.
"""

from .forward import launch_gather_aggregate, launch_weights_backward
from .sorted_backward import launch_scatter_rows, launch_values_backward
from .sparse_grad import launch_touched_rows

__all__ = [
    "launch_gather_aggregate",
    "launch_scatter_rows",
    "launch_touched_rows",
    "launch_values_backward",
    "launch_weights_backward",
]
