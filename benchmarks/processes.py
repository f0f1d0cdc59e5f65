"""Run a function in a fresh process, so that memory, caches and threads of earlier measurements do not matter."""

from __future__ import annotations

from collections.abc import Callable
from multiprocessing import get_context
from typing import Any, TypeVar

T = TypeVar("T")


def in_fresh_process(function: Callable[..., T], *arguments: Any) -> T:
    """The result of ``function(*arguments)`` in a new process; both must be picklable."""
    with get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)
