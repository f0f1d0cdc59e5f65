"""Which options of a factored query go together; without torch, so that settings are checked before it is loaded."""

from __future__ import annotations

FLAT_SUB_KEYS = 256
"""The most sub-keys on an axis whose N * N slots are searched one by one: a search costs rows * N * N * D."""


def check_together(*, code_dim: int, target: str, keys: str, sub_keys: int, address: str) -> None:
    """Raise ValueError for options of a factored query, each possible, that do not go together."""
    if target == "pair" and code_dim % 2:
        raise ValueError(f"code_dim must be even for target = 'pair', got {code_dim}")
    if keys == "flat" and sub_keys > FLAT_SUB_KEYS:
        raise ValueError(f"sub_keys must be at most {FLAT_SUB_KEYS} for keys = 'flat', got {sub_keys}")
    if keys == "flat" and address != "pair":
        raise ValueError(f"address must be 'pair' for keys = 'flat', got {address!r}")
