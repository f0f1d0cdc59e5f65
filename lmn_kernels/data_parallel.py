"""An early error where ``DistributedDataParallel`` cannot exchange the sparse gradient of a table.

It expects sparse gradients only of parameters that an ``nn.Embedding`` or ``nn.EmbeddingBag`` with ``sparse=True``
owns, and prepares dense buffers for all others. A sparse gradient then fails in the backward pass, deep in the reducer.
"""

from __future__ import annotations

from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

_expects_dense_of: WeakKeyDictionary[nn.parallel.DistributedDataParallel, dict[int, bool]] = WeakKeyDictionary()
"""For each wrapped model whether its reducer expects a dense gradient of a table, by the table's id: the parameters of
a wrapped model live as long as it does, and a search of all modules in each call is slow."""


def check_outside_ddp(op: str, values: Tensor) -> None:
    """Raise where a sparse gradient of ``values`` would go to a ``DistributedDataParallel`` whose forward pass runs.

    A read that its ``forward`` did not make, such as a loss that is computed outside, is not found.

    Raises:
        RuntimeError: it would; the message says what to do instead.
    """
    if torch.compiler.is_compiling() or not (values.requires_grad and torch.is_grad_enabled()):
        return
    ddp = nn.parallel.DistributedDataParallel._active_ddp_module
    if ddp is None or not ddp.require_backward_grad_sync:
        return
    known = _expects_dense_of.setdefault(ddp, {})
    if id(values) not in known:
        known[id(values)] = _expects_dense(ddp, values)
    if known[id(values)]:
        raise RuntimeError(
            f"{op}: sparse_grad must be False in DistributedDataParallel, which exchanges sparse gradients of "
            "nn.Embedding and nn.EmbeddingBag alone; or have it ignore the values and exchange their rows yourself, as "
            "in docs/guides/distributed.md, section DistributedDataParallel and FSDP"
        )


def _expects_dense(ddp: nn.parallel.DistributedDataParallel, values: Tensor) -> bool:
    """Whether the reducer has ``values`` among its dense gradients, found by the names that it compares."""
    for prefix, module in ddp.module.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter is values and f"{prefix}.{name}" not in ddp.parameters_to_ignore:
                return not (isinstance(module, nn.Embedding | nn.EmbeddingBag) and module.sparse)
    return False
