"""The pairs of ranks among which the K best sums of two sorted lists must lie.

The pair (r_0, r_1) has (r_0 + 1)(r_1 + 1) - 1 pairs that are at least as good and come before it, so it can be among
the K best only if (r_0 + 1)(r_1 + 1) <= K. That leaves about K ln K of the K x K pairs: 50 of 256, 119 of 1,024, 280
of 4,096. The pairs are listed by rank on axis 0, then rank on axis 1, which is the order in which ties are broken.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..constants import kept_constant


@kept_constant
def staircase(k: int, device: torch.device) -> Tensor:
    """Ranks on both axes of every pair that can be chosen: int32 ``[2, P]``, kept for each ``k`` and device.

    The first call for a ``k`` copies from the host: make it before a CUDA graph is captured.

    >>> staircase(3, torch.device("cpu")).tolist()
    [[0, 0, 0, 1, 2], [0, 1, 2, 0, 0]]
    """
    return torch.tensor(_pairs(k), dtype=torch.int32, device="cpu").T.contiguous().to(device)


@kept_constant
def staircase_chunks(k: int, block_k: int, device: torch.device) -> Tensor:
    """The pairs of :func:`staircase` in chunks of ``block_k``: int32 ``[chunks, 2, block_k]``, padded with ``block_k``.

    The order in a chunk spares the kernel a sort. The sums of the first chunk fall: all ranks on axis 1 beside the best
    on axis 0. Those of the second rise: all ranks on axis 0 but the best, beside the best on axis 1, worst first. The
    third falls along the second best on axis 0 and rises along the second best on axis 1. The rest have no order.
    Padding, which ranks below every pair, lies where it keeps these orders. ``block_k`` is at least ``k``, so each of
    the first three fits one chunk; a ``k`` without pairs for a chunk has no such chunk.

    >>> staircase_chunks(3, 4, torch.device("cpu")).tolist()
    [[[0, 0, 0, 4], [0, 1, 2, 4]], [[4, 4, 2, 1], [4, 4, 0, 0]]]
    """
    pad = (block_k, block_k)
    pairs = _pairs(k)
    falling = [pair for pair in pairs if pair[0] == 0]
    rising = [pair for pair in reversed(pairs) if pair[1] == 0 and pair[0] > 0]
    down = [pair for pair in pairs if pair[0] == 1 and pair[1] > 0]
    up = [pair for pair in reversed(pairs) if pair[1] == 1 and pair[0] > 1]
    rest = [pair for pair in pairs if min(pair) > 1]  # there are none unless ``down`` has some
    listed = falling + [pad] * (block_k - len(falling))
    if rising:
        listed += [pad] * (block_k - len(rising)) + rising
    if down:
        listed += down + [pad] * (block_k - len(down) - len(up)) + up
    listed += rest + [pad] * (-len(rest) % block_k)
    return torch.tensor(listed, dtype=torch.int32, device="cpu").view(-1, block_k, 2).mT.contiguous().to(device)


def _pairs(k: int) -> list[tuple[int, int]]:
    """The pairs (r_0, r_1) with (r_0 + 1)(r_1 + 1) <= k, by r_0, then r_1."""
    return [(rank_0, rank_1) for rank_0 in range(k) for rank_1 in range(k // (rank_0 + 1))]
