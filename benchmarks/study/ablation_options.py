"""Which options of an ablated memory go together; without torch, so that a study file is checked before it loads."""

from __future__ import annotations

MAX_FLAT_SUB_KEYS = 256
"""The most sub-keys on an axis whose N * N slots are searched one by one: a search costs rows * N * N * D."""


def check_together(*, code_dim: int, target: str, keys: str, sub_keys: int, address: str) -> None:
    """Raise ValueError for options of an ablation, each possible, that do not go together."""
    if target == "pair" and code_dim % 2:
        raise ValueError(f"code_dim must be even for target = 'pair', got {code_dim}")
    if keys == "flat" and sub_keys > MAX_FLAT_SUB_KEYS:
        raise ValueError(f"sub_keys must be at most {MAX_FLAT_SUB_KEYS} for keys = 'flat', got {sub_keys}")
    if keys == "flat" and address != "pair":
        raise ValueError(f"address must be 'pair' for keys = 'flat', got {address!r}")
