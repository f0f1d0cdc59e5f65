"""The pairs of ranks among which the K best sums of two sorted lists must lie.

The pair (r_0, r_1) has (r_0 + 1)(r_1 + 1) - 1 pairs that are at least as good and come before it, so it can be among
the K best only if (r_0 + 1)(r_1 + 1) <= K. That leaves about K ln K of the K x K pairs: 50 of 256, 119 of 1,024, 280
of 4,096. The pairs are listed by rank on axis 0, then rank on axis 1, which is the order in which ties are broken.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor


@lru_cache(maxsize=64)
def staircase(k: int, device: torch.device) -> Tensor:
    """Ranks on both axes of every pair that can be chosen: int32 ``[2, P]``, cached for each ``k`` and device.

    The first call for a ``k`` copies from the host: make it before a CUDA graph is captured.

    >>> staircase(3, torch.device("cpu")).tolist()
    [[0, 0, 0, 1, 2], [0, 1, 2, 0, 0]]
    """
    pairs = [(first, second) for first in range(k) for second in range(k // (first + 1))]
    return torch.tensor(pairs, dtype=torch.int32, device="cpu").T.contiguous().to(device)
