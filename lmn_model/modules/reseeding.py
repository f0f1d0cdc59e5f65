"""Against collapse: sub-keys that no query chooses are moved to where queries are; a loss evens out the use of all.

Slots are reached through sub-keys, N slots through each, so it is sub-keys that die and that are moved. A moved sub-key
becomes a half of a recent query, so its neighbours choose it from the next step on. Its slots were written at another
address, if at all, and are emptied. Inactive sub-keys (see :class:`ProductKeyMemory`) become active this way.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from lmn_kernels import MemoryLookup
from lmn_kernels.checks import check_int
from lmn_model.modules.parametrized import require_parameters
from lmn_model.modules.product_key_memory import ProductKeyMemory
from lmn_model.modules.usage import MemoryUsage

MOVED_AT_ONCE = 8
"""At most N / 8 sub-keys of an axis move at once, so that read-outs do not jump."""

_ROWS = 1 << 16


class Reseeded(NamedTuple):
    """What was moved.

    Attributes:
        sub_keys: bool ``[H, 2, N]``.
        slots: int64 ``[S]``, ascending: the slots that were emptied.
    """

    sub_keys: Tensor
    slots: Tensor


@torch.no_grad()
def reseed(layer: ProductKeyMemory, usage: MemoryUsage, optimizers: Iterable[torch.optim.Optimizer] = ()) -> Reseeded:
    """Move sub-keys without a read since ``usage.reset_sub_key_reads()`` to recent queries and empty their slots.

    The queries are those of the last read. Which of the unread sub-keys move, where there are more than N / 8, and to
    which queries, is drawn from torch's generator. The counts of sub-keys are reset. A slot that was read meanwhile,
    through another head, keeps its value.

    Args:
        layer: whose sub-keys and values change, in place.
        usage: of the layer; it counts by sub-key.
        optimizers: their state of moved sub-keys and emptied slots becomes zero, as for a new parameter.

    Returns:
        What was moved; nothing if nothing has been read.

    Raises:
        RuntimeError: keys or values are computed from other parameters.
        ValueError: ``usage`` does not count by sub-key.
    """
    require_parameters("reseed", layer, "keys", "values")
    if usage.sub_key_reads is None:
        raise ValueError("reseed: usage must count by sub-key, got one with by_sub_key=False")
    H, _, N, _ = layer.keys.shape
    read = usage.sub_key_reads > 0
    random_priority = torch.rand(H, 2, N, device=read.device).masked_fill_(read, -1.0)
    chosen, places = random_priority.topk(max(1, N // MOVED_AT_ONCE), dim=2)
    moved = torch.zeros_like(read).scatter_(2, places, chosen >= 0)
    queries = usage.queries
    if queries is None or len(queries) == 0:
        moved.zero_()
    head, axis, sub_key = moved.nonzero(as_tuple=True)
    if queries is not None and len(head):
        rows = torch.randint(len(queries), head.shape, device=queries.device)
        layer.keys[head, axis, sub_key] = queries[rows, head, axis].to(layer.keys.dtype)
        layer.inactive[moved] = False
        layer.refresh_inactive()
    lines = moved.any(0)  # [2, N]
    unread = (usage.last_read <= usage.window_start).view(N, N)
    slots = ((lines[0][:, None] | lines[1][None, :]) & unread).view(-1).nonzero().squeeze(1)
    for chunk in slots.split(_ROWS):
        layer.values.index_copy_(0, chunk, layer.initial_values(len(chunk)))
    for optimizer in optimizers:
        for state in optimizer.state.get(layer.keys, {}).values():
            if isinstance(state, Tensor) and state.shape == layer.keys.shape:
                state[moved] = 0
        for state in optimizer.state.get(layer.values, {}).values():
            if isinstance(state, Tensor) and state.shape[:1] == layer.values.shape[:1]:
                state.index_fill_(0, slots, 0)
    usage.reset_sub_key_reads()
    return Reseeded(moved, slots)


def balance_loss(found: MemoryLookup, sub_keys: int) -> Tensor:
    """Squared coefficient of variation of the weight that each sub-key receives; 0 where all receive alike.

    The mean over heads and axes of ``N * sum(share ** 2) - 1``, from 0 to N - 1. Its gradient lowers the scores of
    sub-keys that take more than their share of this batch; it reaches only slots that were read.

    Args:
        found: a read of the memory, with H heads.
        sub_keys: N, sub-keys on each axis.

    Returns:
        A scalar in the type of the weights; 0 if nothing was read or all weights are 0.

    Source: the importance loss of Shazeer et al. 2017, arXiv 1701.06538, for the two axes of product keys.
    """
    sub_keys = check_int("balance_loss", "sub_keys", sub_keys, low=1)
    first = found.slots.div(sub_keys, rounding_mode="floor")
    H = found.slots.shape[1]
    heads = torch.arange(H, device=first.device).view(1, H, 1) * sub_keys
    losses = []
    for chosen in (first, found.slots - first * sub_keys):
        mass = found.weights.new_zeros(H * sub_keys)
        mass = mass.index_add(0, (chosen + heads).reshape(-1), found.weights.reshape(-1)).view(H, sub_keys)
        share = mass / mass.sum(1, keepdim=True).clamp(min=torch.finfo(mass.dtype).tiny)
        losses.append(share.square().sum(1) * sub_keys - (mass.detach().sum(1) > 0).to(mass.dtype))
    return torch.stack(losses).mean()
