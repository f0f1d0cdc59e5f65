"""Tensors that are computed from other parameters: ``torch.nn.utils.parametrize``, and the older hooks.

``parametrize`` computes a tensor at each access, so it works wherever a module's tensors are read. The hooks of
``torch.nn.utils.prune``, ``weight_norm`` and ``spectral_norm`` compute it when the module is called: where a tensor is
read without a call it would be that of an earlier step, and is refused.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized


class ParametrizationDict(nn.ModuleDict):
    """What ``parametrize`` keeps in a module, for tensors named ``keys`` and ``values`` too.

    ``torch.nn.ModuleDict`` refuses names that its methods have. Here they are taken, and then the attribute is the
    module of that name instead of the method.
    """

    _METHODS = ("keys", "values")

    def add_module(self, name: str, module: nn.Module | None) -> None:
        """Add a module under any name that is no method of ``torch.nn.Module``."""
        if name in self._METHODS:
            self._modules[name] = module
        else:
            super().add_module(name, module)

    @property
    def keys(self) -> object:  # type: ignore[override]
        """The module ``keys`` if there is one, else the method."""
        return self._modules["keys"] if "keys" in self._modules else super().keys

    @property
    def values(self) -> object:  # type: ignore[override]
        """The module ``values`` if there is one, else the method."""
        return self._modules["values"] if "values" in self._modules else super().values


def refuse_hooks(module: nn.Module, *names: str) -> None:
    """Raise ``RuntimeError`` if a hook makes one of the tensors ``names`` in each call of the module."""
    for name in names:
        if name in module.__dict__:
            raise RuntimeError(
                f"{type(module).__name__}: {name} must not come from a hook (torch.nn.utils.prune, weight_norm, "
                "spectral_norm), which does not run here; use torch.nn.utils.parametrize"
            )


def current(module: nn.Module, name: str) -> Tensor:
    """The tensor ``name`` of a module that is read without a call of the module.

    Raises:
        RuntimeError: a hook makes the tensor in each call, so that it may be of an earlier step.
    """
    refuse_hooks(module, name)
    tensor: Tensor = getattr(module, name)
    return tensor


@torch.no_grad()
def draw(module: nn.Module, name: str, std: float) -> None:
    """Draw the tensor ``name`` with standard deviation ``std``; zeros if that is 0.

    Raises:
        RuntimeError: the tensor is computed, and a parametrization has no ``right_inverse``, or a hook computes it.
    """
    tensor = current(module, name)
    computed = is_parametrized(module, name)
    drawn = torch.empty_like(tensor) if computed else tensor
    if std:
        drawn.normal_(std=std)
    else:
        drawn.zero_()
    if computed:
        setattr(module, name, drawn)


def require_parameters(op: str, module: nn.Module, *names: str) -> None:
    """Raise ``RuntimeError`` unless the tensors ``names`` are parameters of ``module``, not computed from others."""
    for name in names:
        if name not in module._parameters:
            raise RuntimeError(f"{op}: {name} must be a parameter, got one that is computed (parametrize or a hook)")
