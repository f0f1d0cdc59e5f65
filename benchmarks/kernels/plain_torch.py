"""Plain torch, as published product-key layers write the ops.

Scores by einsum, a ``topk`` on each axis, all K x K sums, ``topk`` of them, a gather of their slots, softmax, and
``embedding_bag`` with per-sample weights. On a GPU in bfloat16, for whose weights ``embedding_bag`` has no gradient,
training takes ``embedding`` and a batched product instead.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def torch_router(queries: Tensor, keys: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Scores and slots ``[B, H, K]`` as published layers choose them, in the type of the inputs."""
    N = keys.shape[2]
    dots = torch.einsum("bhac,hanc->bhan", queries, keys)
    best, positions = dots.topk(k, dim=-1)  # [B, H, 2, K]
    sums = (best[:, :, 0, :, None] + best[:, :, 1, None, :]).flatten(2)  # [B, H, K * K]
    slots = (positions[:, :, 0, :, None] * N + positions[:, :, 1, None, :]).flatten(2)
    scores, chosen = sums.topk(k, dim=-1)
    return scores, slots.gather(-1, chosen)


def torch_bag(values: Tensor, slots: Tensor, weights: Tensor, sparse: bool = False) -> Tensor:
    """``[B, D]`` by ``embedding_bag``; ``sparse`` gives the values uncoalesced rows, one for each entry.

    On a GPU it has no gradient of bfloat16 weights: there the rows are gathered, ``[B, L, D]``, and multiplied.
    """
    if values.is_cuda and values.dtype == torch.bfloat16 and torch.is_grad_enabled():
        return torch.einsum("bl,bld->bd", weights, F.embedding(slots, values, sparse=sparse))
    return F.embedding_bag(slots, values, mode="sum", per_sample_weights=weights, sparse=sparse)


def torch_layer(queries: Tensor, keys: Tensor, values: Tensor, k: int, sparse: bool = False) -> tuple[Tensor, Tensor]:
    """Output ``[B, D]`` and slots ``[B, H, K]`` of the whole read."""
    scores, slots = torch_router(queries, keys, k)
    return torch_bag(values, slots.flatten(1), scores.softmax(-1).flatten(1), sparse), slots
