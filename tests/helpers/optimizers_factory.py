"""The row optimisers under test, a table's size, and gradients of its rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lmn_kernels.optim import RowAdagrad, RowAdam, RowOptimizer, RowSGD

M, D = 23, 5
Make = Callable[..., RowOptimizer]
OPTIMIZERS: dict[str, tuple[Make, dict[str, Any]]] = {
    "adagrad": (RowAdagrad, {"lr": 0.3, "eps": 1e-8, "initial_accumulator_value": 0.1}),
    "adam": (RowAdam, {"lr": 0.05, "betas": (0.8, 0.95)}),
    "adam_row_wise": (RowAdam, {"lr": 0.05, "betas": (0.8, 0.95), "row_wise": True}),
    "sgd": (RowSGD, {"lr": 0.1}),
    "momentum": (RowSGD, {"lr": 0.1, "momentum": 0.7}),
    "nesterov": (RowSGD, {"lr": 0.1, "momentum": 0.7, "nesterov": True}),
}


def make(kind: str, tables: list[Tensor], backend: str = "torch", **more: Any) -> RowOptimizer:
    optimizer, settings = OPTIMIZERS[kind]
    return optimizer(tables, **{**settings, **more}, backend=backend)


def rows_of(slots: Tensor, rows: Tensor, size: int = M) -> Tensor:
    """An uncoalesced gradient; slots may repeat."""
    return torch.sparse_coo_tensor(slots[None], rows, (size, rows.shape[1]), check_invariants=True)
