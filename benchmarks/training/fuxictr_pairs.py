"""The models that are compared to FuxiCTR, and what differs between the two implementations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

PAIRED = {"order": "shuffle", "clip_norm": 10.0}
"""Defaults of FuxiCTR that ``lmn train`` does not have; both models of a pair use them."""
COMMON: dict[str, Any] = {
    "dataset": "rows",
    "epochs": 1,
    "batch_size": 1024,
    "sub_keys": 1024,
    "embedding_dim": 16,
    "hidden": (200, 80),
    "learning_rate": 1e-3,
    "device": "cpu",
    "memory_usage": False,
}
SEARCH = {"search_by": "category", "search_window": 50}


@dataclass(frozen=True)
class Pair:
    """A model: our settings, and whether FuxiCTR has it."""

    name: str
    settings: dict[str, Any]
    theirs: bool


PAIRS = (
    Pair("DIN 50", {"window": "din", "window_size": 50, "memory": "none", **PAIRED}, True),
    Pair("DIN 200", {"window": "din", "window_size": 200, "memory": "none", **PAIRED}, True),
    Pair("SIM soft 200", {"window": "sim_soft", "window_size": 200, "memory": "none", **PAIRED}, True),
    Pair("SIM hard 200", {"window": "sim_hard", "window_size": 200, "memory": "none", **SEARCH, **PAIRED}, False),
    Pair("LMN + DIN 50", {"window": "din", "window_size": 50}, False),
    Pair("LMN without a window", {"window": "none", "window_size": 1}, False),
)
DIFFERENCES = (
    "The attention's hidden layer has 64 units in both; its activation is PReLU here, Dice (a batch norm) there.",
    "SIM: here DIN's attention as exact unit, and the search learns through an interest that the one tower reads; "
    "there attention with two heads of 32, and the search learns through a tower and a loss of its own. Both keep 50 "
    "of 200; beside them ours reads the newest 50, theirs the newest 49.",
    "Here a window has its full width always, and where three positions in four are padding attention works on the "
    "real ones alone; there a batch is as wide as its longest history, up to the window, and padding is multiplied by "
    "0.",
    "Here Adam is torch's fused AdamW without decay, there torch.optim.Adam as it comes; gradients of embeddings are "
    "dense in both.",
    "Both clip the gradient's norm at 10, FuxiCTR's default, in the models that are compared; neither has a "
    "regulariser.",
    "Here a thread makes batches ahead; there a DataLoader with the number of worker processes given under workers. "
    "Threads are those of the process that trains.",
    "Here training allows deterministic ops only and checks every loss for NaN; there it does neither.",
    "Embeddings start with a deviation of 0.05 here, 0.0001 there; it moves the losses, not the time.",
    "Rows are shuffled in the models that are compared. The LMN takes rows in the order of time, by design, and some "
    "steps of it are those in the middle of its epoch.",
)
