"""State dicts of version 0.1.0 load under the names that their tensors have now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def rename_entries(state_dict: dict[str, Any], prefix: str, names: Mapping[str, str]) -> None:
    """Rename the entries of ``state_dict`` in place whose name after ``prefix`` begins with a key of ``names``."""
    for old, present in names.items():
        for name in [name for name in state_dict if name.startswith(prefix + old)]:
            state_dict[prefix + present + name.removeprefix(prefix + old)] = state_dict.pop(name)
