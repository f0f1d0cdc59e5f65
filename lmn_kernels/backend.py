"""Which backend runs an op: the Triton kernels or plain torch.

``"auto"`` takes the Triton kernels on a GPU and plain torch everywhere else; ``"triton"`` and ``"torch"`` require one,
and raise a ``RuntimeError`` where it cannot run. The environment variable ``LMN_BACKEND`` sets what ``"auto"`` means.
The choice is made inside the dispatched op, so a compiled graph holds no decision and needs no guard.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import warnings
from collections.abc import Callable
from functools import cache
from typing import ParamSpec, TypeVar, cast

import torch

BACKENDS = ("auto", "triton", "torch")

_P = ParamSpec("_P")
_Result = TypeVar("_Result")


def check_backend(op: str, backend: str) -> None:
    """Raise ``ValueError`` unless ``backend`` is one of :data:`BACKENDS`."""
    if backend not in BACKENDS:
        raise ValueError(f"{op}: backend must be one of {', '.join(map(repr, BACKENDS))}, got {backend!r}")


def on_backend(
    op: str, backend: str, device: torch.device, reference: Callable[_P, _Result], launcher: str
) -> Callable[_P, _Result]:
    """The function that runs ``op`` for tensors on ``device``: ``reference``, or the Triton ``launcher``.

    Args:
        op: named in errors.
        backend: one of :data:`BACKENDS`.
        device: where the tensors are.
        reference: the computation in plain torch, a function of the op's ``reference.py``.
        launcher: name of the function of the op's ``triton`` that takes the same arguments. It is imported only to run,
            because Triton need not be installed.

    Raises:
        RuntimeError, ValueError: as :func:`use_triton`.
    """
    if not use_triton(op, backend, device):
        return reference
    folder = reference.__module__.rpartition(".")[0]
    return cast(Callable[_P, _Result], getattr(importlib.import_module(f"{folder}.triton"), launcher))


def use_triton(op: str, backend: str, device: torch.device) -> bool:
    """Whether ``op`` runs its Triton kernels for tensors on ``device``.

    Raises:
        RuntimeError: ``backend="triton"`` and the kernels cannot run: Triton is not installed, or the tensors are not
            on a GPU and the interpreter is off.
        ValueError: ``LMN_BACKEND`` holds something that is no backend.
    """
    if backend == "auto":
        backend = os.environ.get("LMN_BACKEND", "auto")
        if backend not in BACKENDS:
            raise ValueError(f"{op}: LMN_BACKEND must be one of {', '.join(map(repr, BACKENDS))}, got {backend!r}")
    if backend == "torch":
        return False
    if backend == "auto":
        if device.type != "cuda":
            return False
        if not triton_installed():
            _warn_no_triton()
            return False
        return True
    if not triton_installed():
        raise RuntimeError(
            f"{op}: backend='triton' needs Triton, which is not installed; "
            "install it (pip install 'lmn-kernels[triton]') or pass backend='torch'"
        )
    # Meta tensors pass: their launches are recorded for the audit and never run.
    if device.type not in ("cuda", "meta") and os.environ.get("TRITON_INTERPRET", "0") != "1":
        raise RuntimeError(
            f"{op}: backend='triton' needs tensors on a GPU, got {device}; move them there, pass backend='torch', "
            "or set TRITON_INTERPRET=1 before the import to run the kernels in Triton's interpreter"
        )
    return True


@cache
def triton_installed() -> bool:
    """Whether ``import triton`` can succeed; it is not imported."""
    return importlib.util.find_spec("triton") is not None


@cache
def _warn_no_triton() -> None:
    warnings.warn(
        "lmn_kernels: Triton is not installed, so GPU tensors take the slower torch backend; "
        "install it (pip install 'lmn-kernels[triton]') or pass backend='torch' to say that this is meant",
        RuntimeWarning,
        stacklevel=2,
    )
