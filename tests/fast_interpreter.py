"""Make Triton's interpreter some fifty times faster at ``tl.topk`` and ``tl.sort``, with the same results.

The interpreter reduces by xor one element at a time in Python, and looks all of ``triton.language`` through again at
each call of a device function. Both are mended here without touching what is computed, which ``test_backend.py``
checks; without it the suite takes hours. On a GPU nothing is interpreted and none of this runs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import triton.language as tl
from triton.runtime import interpreter

_reduce_slowly = interpreter.ReduceOps.apply_impl


def _reduce(self: Any, operands: tuple[Any, ...]) -> Any:
    if self.combine_fn != tl.standard._xor_combine:
        return _reduce_slowly(self, operands)
    (operand,) = operands
    reduced = np.bitwise_xor.reduce(operand.handle.data, axis=self.axis, keepdims=self.keep_dims)
    return self.to_tensor(reduced, operand.dtype)


def _call_device_function(self: Any, *args: Any, **kwargs: Any) -> Any:
    if tl.core.is_builtin(tl.load) or tl.core.is_builtin(tl.core.load):
        interpreter._patch_lang(self.fn)
    return self.rewrite()(*args, **kwargs)


def install() -> None:
    """Speed up this process's interpreter."""
    interpreter.ReduceOps.apply_impl = _reduce
    interpreter.InterpretedFunction.__call__ = _call_device_function


def uninstall() -> None:
    """Reduce as the interpreter does."""
    interpreter.ReduceOps.apply_impl = _reduce_slowly
