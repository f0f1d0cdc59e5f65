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
