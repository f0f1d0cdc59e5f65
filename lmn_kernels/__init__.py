"""Fused product-key memory ops for PyTorch, on Triton where there is a GPU and on plain torch where there is none.

Letters, the same everywhere: B rows, H heads, C width of one query half, N sub-keys on each axis, M = N * N slots,
K slots chosen for each row and head, D width of a value row, L slots of a bag.

Public are the names below and :mod:`lmn_kernels.optim`. Modules and ops built on them may also import:

- ``activation``, ``product_key_topk.metric``: the activations and metrics, for settings and checks;
- ``backend``, ``checks``, ``dtypes``: checks of arguments, their messages, and the choice of a backend;
- ``library``, ``exported``: keep Dynamo out of a function, register a named tuple for ``torch.export``;
- ``testing``: inputs, oracles and error bounds for tests of ops.

All other modules are internal and may change without notice.
"""

from .gather_aggregate import gather_aggregate
from .gather_aggregate.recycled import empty_cache
from .huge_pages import huge_zeros
from .memory_lookup import MemoryLookup, memory_lookup
from .product_key_topk import AxisTopK, ProductKeyTopK, axis_topk, combine_axes, product_key_topk

__version__ = "0.1.0"
__all__ = [
    "AxisTopK",
    "MemoryLookup",
    "ProductKeyTopK",
    "axis_topk",
    "combine_axes",
    "empty_cache",
    "gather_aggregate",
    "huge_zeros",
    "memory_lookup",
    "product_key_topk",
]
