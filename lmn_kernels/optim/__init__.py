"""Optimisers whose step costs the rows that a batch touched, and not the table: for the sparse rows of a memory.

:class:`RowAdagrad` keeps one number a row, :class:`RowAdam` two rows or a row and a number, :class:`RowSGD` one row or
nothing. Each is a ``torch.optim.Optimizer``; :func:`clip_grad_norm_` clips their gradients together with dense ones.
"""

from .adagrad import RowAdagrad
from .adam import RowAdam
from .clipping import clip_grad_norm_
from .row_optimizer import RowOptimizer
from .sgd import RowSGD

__all__ = ["RowAdagrad", "RowAdam", "RowOptimizer", "RowSGD", "clip_grad_norm_"]
