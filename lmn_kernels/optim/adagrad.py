"""Row-wise Adagrad."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..backend import on_backend
from .reference import adagrad_reference
from .rounding import Rounding
from .row_optimizer import Params, RowOptimizer
from .touched_rows import TouchedRows


class RowAdagrad(RowOptimizer):
    """Adagrad with one accumulator a row: the sum of the mean square of the row's gradients.

    A touched row moves by ``-lr * g / (sqrt(total) + eps)``. The state is a float for each row, 1 / D of the table;
    with D = 1 it is Adagrad itself.

    Args:
        params: tables ``[M, D]`` or parameter groups of them; each takes a gradient of sparse rows.
        lr: learning rate, a number or a scalar tensor.
        initial_accumulator_value: what the accumulators begin with.
        eps: added to the square root.
        weight_decay: decoupled: a touched row is multiplied by ``1 - lr * weight_decay`` first; no other row is.
        stochastic_rounding: round tables in bfloat16 and float16 stochastically.
        seed: of the rounding, 0 to 2**63 - 1; the tables of one optimiser draw different bits.
        backend: ``"auto"``, ``"triton"`` or ``"torch"``.

    Raises:
        TypeError, ValueError: see :class:`RowOptimizer`.

    Source: Duchi et al. 2011 (Adagrad); one accumulator a row as in the embedding tables of DLRM.

    Example:
        >>> import torch
        >>> table = torch.nn.Embedding(4, 2, sparse=True, _weight=torch.zeros(4, 2))
        >>> optimizer = RowAdagrad(table.parameters(), lr=0.5)
        >>> table(torch.tensor([1])).sum().backward()
        >>> optimizer.step()
        >>> table.weight[:2].tolist()
        [[0.0, 0.0], [-0.5, -0.5]]
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-2,
        *,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
        weight_decay: float = 0.0,
        stochastic_rounding: bool = True,
        seed: int = 0,
        backend: str = "auto",
    ) -> None:
        defaults = {
            "lr": lr,
            "initial_accumulator_value": initial_accumulator_value,
            "eps": eps,
            "weight_decay": weight_decay,
            "stochastic_rounding": stochastic_rounding,
            "seed": seed,
        }
        super().__init__(params, defaults, backend)

    def _check_group(self, group: dict[str, Any]) -> None:
        super()._check_group(group)
        self._numbers_at_least_0(group, "initial_accumulator_value", "eps")

    def _state_shapes(self, table: Tensor, group: dict[str, Any]) -> dict[str, tuple[int, ...]]:
        return {"total": (table.shape[0],)}

    def _initial_value(self, name: str, group: dict[str, Any]) -> float:
        value: float = group["initial_accumulator_value"]
        return value

    def _update(
        self,
        table: Tensor,
        touched: TouchedRows,
        state: dict[str, Tensor],
        group: dict[str, Any],
        rounding: Rounding | None,
    ) -> None:
        total, step, lr = state["total"], state["step"], group["lr"]
        eps, weight_decay = float(group["eps"]), float(group["weight_decay"])
        update = on_backend(self._name, self.backend, table.device, adagrad_reference, "launch_adagrad")
        update(table, *touched, total, step, lr, eps, weight_decay, rounding)
