"""The two optimisers of a model and their state: AdamW for dense parameters, a row optimiser for the memory's values.

A memory of a million slots is touched in a few thousand rows a step. Its gradient is sparse, and its optimiser reads
and writes the touched rows only, so that a step costs what it touches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lmn_kernels.optim import RowAdagrad, RowAdam, clip_grad_norm_
from lmn_model.ctr import CTRModel
from lmn_model.training.settings import TrainingSettings

ROW_OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "row_adagrad": RowAdagrad,
    "row_adam": RowAdam,
    "adagrad": torch.optim.Adagrad,
    "sparse_adam": torch.optim.SparseAdam,
}
"""By the setting ``memory_optimizer``; the last two are torch's. State of a row: a float, two rows, a row, two rows."""


class Optimizers:
    """AdamW for the dense parameters and, if the model has a memory, a sparse optimiser for its value rows.

    Weight decay touches matrices of linear layers alone: decaying an embedding would shrink the rows of rare ids, which
    see no gradient to hold against it.

    Args:
        model: on its final device.
        settings: learning rates, decay, clipping and the choice of the sparse optimiser.
    """

    def __init__(self, model: CTRModel, settings: TrainingSettings) -> None:
        self._names = {parameter: name for name, parameter in model.named_parameters()}
        self._clip_norm = settings.clip_norm
        sparse = self._sparse = list(model.sparse_parameters())
        rows = {id(parameter) for parameter in sparse}
        matrices = {id(module.weight) for module in model.modules() if isinstance(module, nn.Linear)}
        dense = [parameter for parameter in self._names if id(parameter) not in rows and parameter.requires_grad]
        groups = [
            {
                "params": [parameter for parameter in dense if id(parameter) in matrices],
                "weight_decay": settings.weight_decay,
            },
            {"params": [parameter for parameter in dense if id(parameter) not in matrices], "weight_decay": 0.0},
        ]
        groups = [group for group in groups if group["params"]]
        self._optimizers: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(groups, lr=settings.learning_rate, weight_decay=0.0, fused=True)
        ]
        if sparse:
            make = ROW_OPTIMIZERS[settings.memory_optimizer]
            own: dict[str, Any] = {}
            if settings.memory_optimizer.startswith("row_"):
                own = {"seed": settings.seed, "stochastic_rounding": settings.stochastic_rounding}
            self._optimizers.append(make(_sparse_groups(model, settings), lr=settings.memory_learning_rate, **own))

    def step(self) -> None:
        """Clip the gradients if a norm is set, update all parameters and clear the gradients."""
        if self._clip_norm is not None:
            clip_grad_norm_(self._names, self._clip_norm)
        # Adagrad builds a sparse tensor, and torch warns where the choice was not made explicitly.
        with torch.sparse.check_sparse_tensor_invariants(enable=False):
            for optimizer in self._optimizers:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)

    def __iter__(self) -> Iterator[torch.optim.Optimizer]:
        return iter(self._optimizers)

    def reset(self, parameters: Iterable[nn.Parameter]) -> None:
        """Zero the state of parameters that were initialised anew: all zeros are a fresh start for each optimizer."""
        for parameter in parameters:
            for optimizer in self._optimizers:
                for key, value in optimizer.state.get(parameter, {}).items():
                    if isinstance(value, Tensor):
                        value.zero_()
                    else:
                        optimizer.state[parameter][key] = 0

    def state(self) -> tuple[dict[str, Tensor], dict[str, float]]:
        """State tensors and Python scalars, both keyed by ``"<parameter name>/<state key>"``."""
        tensors: dict[str, Tensor] = {}
        scalars: dict[str, float] = {}
        for optimizer in self._optimizers:
            for parameter, state in optimizer.state.items():
                for key, value in state.items():
                    name = f"{self._names[parameter]}/{key}"
                    if isinstance(value, Tensor):
                        tensors[name] = value
                    else:
                        scalars[name] = value
        return tensors, scalars

    def rows_state(self) -> tuple[dict[str, Tensor], dict[str, float]]:
        """As :meth:`state`, of the memory's value rows alone."""
        prefixes = tuple(f"{self._names[parameter]}/" for parameter in self._sparse)
        tensors, scalars = self.state()
        return (
            {name: value for name, value in tensors.items() if name.startswith(prefixes)},
            {name: value for name, value in scalars.items() if name.startswith(prefixes)},
        )

    def load_state(self, tensors: Mapping[str, Tensor], scalars: Mapping[str, float]) -> None:
        """Restore what :meth:`state` returned, for a model with the same parameters."""
        found: dict[str, dict[str, Any]] = {}
        for name, value in {**tensors, **scalars}.items():
            parameter, key = name.rsplit("/", 1)
            found.setdefault(parameter, {})[key] = value
        for optimizer in self._optimizers:
            packed = optimizer.state_dict()
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            packed["state"] = {
                index: found[self._names[parameter]]
                for index, parameter in enumerate(parameters)
                if self._names[parameter] in found
            }
            optimizer.load_state_dict(packed)


def _sparse_groups(model: CTRModel, settings: TrainingSettings) -> list[dict[str, Any]]:
    """The sparse parameters by their learning rate; at most two groups, none of them empty."""
    events = {id(parameter) for parameter in model.event_parameters()}
    memory = [parameter for parameter in model.sparse_parameters() if id(parameter) not in events]
    groups = [
        {"params": memory, "lr": settings.memory_learning_rate},
        {"params": model.event_parameters(), "lr": settings.event_learning_rate},
    ]
    return [group for group in groups if group["params"]]
