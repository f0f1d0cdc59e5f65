"""Whether a tensor has changed since it was last read, seen on the host without waiting for its device.

A change shows in a tensor's place in memory, its layout and its version, which every in-place op of torch counts up.
A write that goes around torch (``.data``, NumPy, another process) is not seen. A tensor made under
``torch.inference_mode`` has no version.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def has_data(tensor: Tensor) -> bool:
    """Whether numbers can be read of a tensor: it is not fake, on ``"meta"`` or wrapped by ``torch.func``."""
    return (
        type(tensor) in (Tensor, nn.Parameter)
        and not tensor.is_meta
        and not torch._C._functorch.is_functorch_wrapped_tensor(tensor)
    )


def state_of(tensor: Tensor) -> object:
    """What differs once a tensor with data has changed."""
    version = None if tensor.is_inference() else tensor._version
    return tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype, tensor.device, version


class EmptyMask:
    """Whether a bool tensor held no True when it was last read, and is unchanged. A copy has read nothing.

    :meth:`read` waits for the device of the mask; :meth:`still_empty` compares states on the host alone.
    """

    def __init__(self) -> None:
        self._state: object = None
        self._storage: torch.UntypedStorage | None = None  # held, so that no other tensor takes its place

    def __reduce__(self) -> tuple[type[EmptyMask], tuple[()]]:
        return EmptyMask, ()

    def read(self, mask: Tensor) -> None:
        """Read ``mask``; a mask without data or without a version counts as not empty."""
        empty = has_data(mask) and not mask.is_inference() and not bool(mask.any())
        self._state = state_of(mask) if empty else None
        self._storage = mask.untyped_storage() if empty else None

    def still_empty(self, mask: Tensor) -> bool:
        """Whether ``mask`` was empty when it was last read and has not changed since."""
        return self._state is not None and has_data(mask) and self._state == state_of(mask)
