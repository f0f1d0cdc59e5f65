"""What the row optimisers share: which rows a step touches, state, hyperparameters, backends.

A parameter is a table ``[M, D]`` whose gradient is sparse rows, as ``sparse_grad=True`` of the ops gives them. A step
reads and writes the rows in that gradient and nothing else: neither decay nor momentum moves a row without a gradient.
Rows that occur several times in a gradient (accumulation, two losses) are added up first: the sum makes one update.

Tables in bfloat16 and float16 are updated in float32 and rounded stochastically (``rounding.py``); state is float32,
float64 for a float64 table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from ..backend import check_backend
from ..checks import check_flag
from ..dtypes import FLOATS, accumulator, describe, names
from ..huge_pages import huge_zeros
from ..library import opaque
from .hyperparameters import as_integer, as_number
from .rounding import Rounding
from .touched_rows import TouchedRows, touched_rows, touches_rows

Params = Iterable[Tensor] | Iterable[dict[str, Any]]


class RowOptimizer(torch.optim.Optimizer):
    """Base of the row optimisers; see the head of this module.

    Args:
        params: tables ``[M, D]`` or parameter groups of them.
        defaults: hyperparameters; every group also has ``lr``, ``weight_decay``, ``stochastic_rounding`` and ``seed``.
            A number may be one of Python or of NumPy or a tensor of one element. ``lr`` stays a tensor if it is one;
            other numbers are held as floats.
        backend: ``"auto"``, ``"triton"`` or ``"torch"``.

    Raises:
        TypeError: a parameter is no floating-point tensor, or a flag is no bool.
        ValueError: a parameter is no table, or a hyperparameter is out of range.
    """

    def __init__(self, params: Params, defaults: dict[str, Any], backend: str) -> None:
        self.backend = backend
        check_backend(self._name, backend)
        super().__init__(params, defaults)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "backend": self.backend}

    @property
    def _name(self) -> str:
        return type(self).__name__

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, as in ``torch.optim``, once its tables and hyperparameters have been checked."""
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        try:
            self._check_group(group)
        except (TypeError, ValueError):
            self.param_groups.pop()
            raise

    def _check_group(self, group: dict[str, Any]) -> None:
        for table in group["params"]:
            if table.dtype not in FLOATS:
                raise TypeError(f"{self._name}: params must be {names(FLOATS)}, got {describe(table)}")
            if table.dim() != 2 or table.layout != torch.strided or not table.is_contiguous():
                raise ValueError(f"{self._name}: params must be dense, contiguous tables [M, D], got {describe(table)}")
        lr, seed = group["lr"], as_integer(group["seed"])
        rate = as_number(lr)
        self._check("lr", lr, rate is not None, "a number")
        self._check("lr", lr, rate is not None and rate >= 0, "at least 0")
        group["lr"] = lr if isinstance(lr, Tensor) else rate
        self._numbers_at_least_0(group, "weight_decay")
        self._check("seed", group["seed"], seed is not None and 0 <= seed < 2**63, "an int in [0, 2**63)")
        group["seed"] = seed
        self._flags(group, "stochastic_rounding")

    def _numbers_at_least_0(self, group: dict[str, Any], *hyperparameters: str) -> None:
        """Check hyperparameters and hold them as floats, which every ``torch.load`` can read again."""
        for name in hyperparameters:
            number = as_number(group[name])
            self._check(name, group[name], number is not None and number >= 0, "a number of at least 0")
            group[name] = number

    def _flags(self, group: dict[str, Any], *hyperparameters: str) -> None:
        for name in hyperparameters:
            group[name] = check_flag(self._name, name, group[name])

    def _check(self, name: str, value: object, holds: object, wanted: str) -> None:
        """Raise ``ValueError`` unless ``holds`` is true."""
        if not holds:
            raise ValueError(f"{self._name}: {name} must be {wanted}, got {value!r}")

    @opaque
    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update the touched rows of every table that has a gradient.

        ``torch.compile`` breaks the graph here and runs the step eagerly, as that of ``torch.optim.SparseAdam``: it
        does not trace sparse gradients.

        A dense gradient of zeros touches no row: the step makes the table's state, if there is none, and that is all.
        ``torch.distributed.checkpoint`` makes states this way before it loads them.

        Args:
            closure: evaluates the model again and returns the loss, as in ``torch.optim``.

        Raises:
            TypeError: a gradient is dense and not zero; nothing has been updated then.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        work = [(table, group) for group in self.param_groups for table in group["params"] if table.grad is not None]
        for table, _ in work:
            if not touches_rows(table.grad):
                raise TypeError(
                    f"{self._name}: gradients must be sparse rows (sparse_grad=True of the ops, sparse=True of "
                    f"torch.nn.Embedding), got layout {table.grad.layout} for a table {describe(table)}; give "
                    "parameters with dense gradients to an optimiser of torch.optim"
                )
        table_numbers = {table: number for number, table in enumerate(self._tables())}
        for table, group in work:
            state = self._state_of(table, group)
            touched = touched_rows(table.grad)
            if touched.slots.numel() == 0 or table.shape[1] == 0:
                continue
            state["step"] += 1
            self._update(table, touched, state, group, Rounding.of(group, table.dtype, table_numbers[table]))
        return loss

    def _update(
        self,
        table: Tensor,
        touched: TouchedRows,
        state: dict[str, Tensor],
        group: dict[str, Any],
        rounding: Rounding | None,
    ) -> None:
        """Update the touched rows of one table and their state; ``state["step"]`` counts this step already."""
        raise NotImplementedError

    def _state_shapes(self, table: Tensor, group: dict[str, Any]) -> dict[str, tuple[int, ...]]:
        """Shape of each state tensor but the step."""
        raise NotImplementedError

    def _optional_shapes(self, table: Tensor) -> dict[str, tuple[int, ...]]:
        """Shape of each state tensor that a saved state may have or lack, whatever the settings say now."""
        return {}

    def _initial_value(self, name: str, group: dict[str, Any]) -> float:
        return 0.0

    def _tables(self) -> list[Tensor]:
        return list(chain.from_iterable(group["params"] for group in self.param_groups))

    def _state_of(self, table: Tensor, group: dict[str, Any]) -> dict[str, Tensor]:
        """The table's state; what is missing of it is made."""
        state: dict[str, Tensor] = self.state[table]
        if "step" not in state:
            state["step"] = torch.zeros((), dtype=torch.int64, device=table.device)
        dtype = accumulator(table.dtype)
        for name, shape in self._state_shapes(table, group).items():
            if name not in state:
                value = self._initial_value(name, group)
                state[name] = huge_zeros(*shape, dtype=dtype, device=table.device)
                if value:
                    state[name].fill_(value)
        return state

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` gave; state keeps its own type, whatever the table's, and is not copied.

        Hooks run as in ``torch.optim``: pre-hooks see the whole state and may give another, which is then checked.

        Raises:
            ValueError: the groups differ, or the state is that of another kind of optimiser or of another table;
                nothing has been loaded then.
        """
        # torch's loader casts state to the type of its table. _keep_types wraps each tensor, which then passes
        # unchanged; __setstate__, which the loader calls last, unwraps it.
        handle = self.register_load_state_dict_pre_hook(_keep_types)  # the last: it sees what other hooks gave
        try:
            super().load_state_dict(dict(state_dict))
        finally:
            handle.remove()

    def __setstate__(self, state: dict[str, Any]) -> None:
        for of_table in state["state"].values():
            for name, value in of_table.items() if isinstance(of_table, dict) else ():
                if isinstance(value, _Kept):
                    of_table[name] = value.tensor
        super().__setstate__(state)

    def _kept_state(self, state_dict: dict[str, Any]) -> dict[Any, Any]:
        """The state to load, checked, on its table's device and out of reach of torch's change of types."""
        kept = dict(state_dict["state"])
        pairs = zip(self.param_groups, state_dict["param_groups"], strict=False)  # torch compares their sizes
        tables = {
            number: (table, saved)
            for group, saved in pairs
            for table, number in zip(group["params"], saved["params"], strict=False)
        }
        for number in kept.keys() & tables.keys():
            table, saved = tables[number]
            state = kept[number]
            wanted = {"step": (), **self._state_shapes(table, {**self.defaults, **saved})}
            got = {name: tuple(value.shape) if isinstance(value, Tensor) else value for name, value in state.items()}
            optional = self._optional_shapes(table)
            if {**optional, **got} != {**optional, **wanted}:
                raise ValueError(f"{self._name}: the state of a table {describe(table)} must be {wanted}, got {got}")
            kept[number] = {name: _Kept(value.to(table.device).contiguous()) for name, value in state.items()}
        return kept


class _Kept:
    """A state tensor on its way through torch's loader, which would give it the type of the table."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


def _keep_types(optimizer: torch.optim.Optimizer, state_dict: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(optimizer, RowOptimizer):
        return state_dict
    return {**state_dict, "state": optimizer._kept_state(state_dict)}
