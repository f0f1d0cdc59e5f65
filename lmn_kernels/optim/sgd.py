"""Gradient descent with momentum for touched rows."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..backend import on_backend
from .reference import sgd_reference
from .rounding import Rounding
from .row_optimizer import Params, RowOptimizer
from .touched_rows import TouchedRows


class RowSGD(RowOptimizer):
    """Gradient descent whose momentum moves a row in the steps that touch it, and in no others.

    For a row that every step touches it is ``torch.optim.SGD``, but for the decay. The state is a row for each row, and
    nothing without momentum.

    Args:
        params: tables ``[M, D]`` or parameter groups of them; each takes a gradient of sparse rows.
        lr: learning rate, a number or a scalar tensor.
        momentum: in [0, 1).
        nesterov: look ahead along the momentum; needs one.
        weight_decay: decoupled: a touched row is multiplied by ``1 - lr * weight_decay`` first; no other row is.
        stochastic_rounding: round tables in bfloat16 and float16 stochastically.
        seed: of the rounding, 0 to 2**63 - 1; the tables of one optimiser draw different bits.
        backend: ``"auto"``, ``"triton"`` or ``"torch"``.

    Raises:
        TypeError, ValueError: see :class:`RowOptimizer`.

    Example:
        >>> import torch
        >>> table = torch.nn.Embedding(4, 2, sparse=True, _weight=torch.zeros(4, 2))
        >>> optimizer = RowSGD(table.parameters(), lr=0.5, momentum=0.9)
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
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        stochastic_rounding: bool = True,
        seed: int = 0,
        backend: str = "auto",
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "nesterov": nesterov,
            "weight_decay": weight_decay,
            "stochastic_rounding": stochastic_rounding,
            "seed": seed,
        }
        super().__init__(params, defaults, backend)

    def _check_group(self, group: dict[str, Any]) -> None:
        super()._check_group(group)
        self._numbers_at_least_0(group, "momentum")
        self._check("momentum", group["momentum"], group["momentum"] < 1, "below 1")
        self._flags(group, "nesterov")
        self._check("nesterov", group["nesterov"], group["momentum"] or not group["nesterov"], "False without momentum")

    def _state_shapes(self, table: Tensor, group: dict[str, Any]) -> dict[str, tuple[int, ...]]:
        held = "velocity" in self.state.get(table, ())  # momentum that a schedule has turned off for a while
        return self._optional_shapes(table) if group["momentum"] or held else {}

    def _optional_shapes(self, table: Tensor) -> dict[str, tuple[int, ...]]:
        return {"velocity": tuple(table.shape)}  # a schedule of momentum passes through 0

    def _update(
        self,
        table: Tensor,
        touched: TouchedRows,
        state: dict[str, Tensor],
        group: dict[str, Any],
        rounding: Rounding | None,
    ) -> None:
        velocity, step, lr = state.get("velocity"), state["step"], group["lr"]
        momentum, nesterov, weight_decay = float(group["momentum"]), group["nesterov"], float(group["weight_decay"])
        update = on_backend(self._name, self.backend, table.device, sgd_reference, "launch_sgd")
        update(table, *touched, velocity, step, lr, momentum, nesterov, weight_decay, rounding)
