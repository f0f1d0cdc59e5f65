"""Adam for touched rows."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..backend import on_backend
from .hyperparameters import as_numbers
from .reference import adam_reference
from .rounding import Rounding
from .row_optimizer import Params, RowOptimizer
from .touched_rows import TouchedRows


class RowAdam(RowOptimizer):
    """Adam whose moments move in the steps that touch their row, and in no others ("lazy").

    For a row that every step touches it is ``torch.optim.AdamW``. The bias correction counts the steps of the table.
    The state is two rows for each row, or a row and a float with ``row_wise=True``, where the second moment is that of
    the mean square of the row's gradient.

    Args:
        params: tables ``[M, D]`` or parameter groups of them; each takes a gradient of sparse rows.
        lr: learning rate, a number or a scalar tensor.
        betas: decay of the first and of the second moment, each in [0, 1).
        eps: added to the square root.
        weight_decay: decoupled: a touched row is multiplied by ``1 - lr * weight_decay`` first; no other row is.
        row_wise: keep one second moment for a row.
        stochastic_rounding: round tables in bfloat16 and float16 stochastically.
        seed: of the rounding, 0 to 2**63 - 1; the tables of one optimiser draw different bits.
        backend: ``"auto"``, ``"triton"`` or ``"torch"``.

    Raises:
        TypeError, ValueError: see :class:`RowOptimizer`.

    Source: Kingma and Ba 2015 (Adam), Loshchilov and Hutter 2019 (decoupled decay).

    Example:
        >>> import torch
        >>> table = torch.nn.Embedding(4, 2, sparse=True, _weight=torch.zeros(4, 2))
        >>> optimizer = RowAdam(table.parameters(), lr=0.5)
        >>> table(torch.tensor([1])).sum().backward()
        >>> optimizer.step()
        >>> [round(number, 3) for number in table.weight.flatten().tolist()[:4]]
        [0.0, 0.0, -0.5, -0.5]
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        row_wise: bool = False,
        stochastic_rounding: bool = True,
        seed: int = 0,
        backend: str = "auto",
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "row_wise": row_wise,
            "stochastic_rounding": stochastic_rounding,
            "seed": seed,
        }
        super().__init__(params, defaults, backend)

    def _check_group(self, group: dict[str, Any]) -> None:
        super()._check_group(group)
        betas = as_numbers(group["betas"])
        valid = len(betas) == 2 and all(beta is not None and 0 <= beta < 1 for beta in betas)
        self._check("betas", group["betas"], valid, "two values in [0, 1)")
        group["betas"] = betas
        self._numbers_at_least_0(group, "eps")
        self._flags(group, "row_wise")

    def _state_shapes(self, table: Tensor, group: dict[str, Any]) -> dict[str, tuple[int, ...]]:
        shape = tuple(table.shape)
        return {"mean": shape, "square": shape[:1] if group["row_wise"] else shape}

    def _update(
        self,
        table: Tensor,
        touched: TouchedRows,
        state: dict[str, Tensor],
        group: dict[str, Any],
        rounding: Rounding | None,
    ) -> None:
        mean, square, step, lr = state["mean"], state["square"], state["step"], group["lr"]
        betas = float(group["betas"][0]), float(group["betas"][1])
        eps, weight_decay = float(group["eps"]), float(group["weight_decay"])
        update = on_backend(self._name, self.backend, table.device, adam_reference, "launch_adam")
        update(table, *touched, mean, square, step, lr, betas, eps, weight_decay, rounding)
