"""Triton kernels of the weighted bag: forward, gradient of the weights, gradient of the values, and both in one.

- ``forward.py`` takes the bags in their own order: the forward pass, and the gradient of the weights alone.
- ``sort.py`` brings the entries of a slot together.
- ``sorted_backward.py`` sums each slot's entries: the dense gradient of the values, and that of the weights with it.
- ``sparse_grad.py`` has those sums written to one row for each touched slot.
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
