"""The window models by the value of the setting ``window``."""

from __future__ import annotations

from collections.abc import Callable

from lmn_model.ctr.window.base import WindowModel
from lmn_model.ctr.window.din import DIN
from lmn_model.ctr.window.mimn import MIMN
from lmn_model.ctr.window.pooling import MeanPooling, NoWindow
from lmn_model.ctr.window.sim import SIMHard, SIMSoft

WINDOW_MODELS: dict[str, Callable[[int], WindowModel]] = {
    "none": lambda width: NoWindow(),
    "pooling": lambda width: MeanPooling(),
    "din": DIN,
    "sim_hard": SIMHard,
    "sim_soft": SIMSoft,
    "mimn": MIMN,
}
"""Constructor of each window model, called with the width of an item embedding."""


def window_model(name: str, width: int) -> WindowModel:
    """The window model ``name`` over item embeddings of ``width`` columns.

    Raises:
        ValueError: there is no such model.
    """
    if name not in WINDOW_MODELS:
        raise ValueError(f"window must be one of {', '.join(WINDOW_MODELS)}, got {name!r}")
    return WINDOW_MODELS[name](width)
