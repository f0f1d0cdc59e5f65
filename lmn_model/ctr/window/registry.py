"""The interest parts by the name that the setting has."""

from __future__ import annotations

from collections.abc import Callable

from lmn_model.ctr.window.base import InterestPart
from lmn_model.ctr.window.din import DeepInterestAttention
from lmn_model.ctr.window.mimn import MultiInterestMemory
from lmn_model.ctr.window.pooling import MeanPooling, NoInterest
from lmn_model.ctr.window.sim import HardSearch, SoftSearch

INTERESTS: dict[str, Callable[[int], InterestPart]] = {
    "pooling": lambda width: MeanPooling(),
    "din": DeepInterestAttention,
    "sim_hard": HardSearch,
    "sim_soft": SoftSearch,
    "mimn": MultiInterestMemory,
    "lmn": DeepInterestAttention,
    "lmn_only": lambda width: NoInterest(),
}
"""What reads the window for each value of the setting ``interest``; both lmn have the memory beside it."""


def interest_part(name: str, width: int) -> InterestPart:
    """The part that ``name`` asks for, over item embeddings of ``width`` columns.

    Raises:
        ValueError: there is no such part.
    """
    if name not in INTERESTS:
        raise ValueError(f"interest must be one of {', '.join(INTERESTS)}, got {name!r}")
    return INTERESTS[name](width)
