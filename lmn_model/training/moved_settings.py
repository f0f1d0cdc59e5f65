"""Settings of version 0.1.0 that the study has kept for itself: what they leave in old files is still read.

The study compared other addresses, targets, read-outs, keys, metrics and losses of a factored memory with what the
library has now. A run at their defaults is a run without them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lmn_model.setting_types import SettingsError, declared_settings

MOVED = {
    "address": "pair",
    "target": "bound",
    "read_out": "familiarity",
    "keys": "product",
    "code_metric": "cosine",
    "loss": "smooth_l1",
}
"""Former settings of ``[model.memory]`` and what they had to be to give the present model."""


def without_moved(table: Mapping[str, Any], kind: type, source: str) -> Mapping[str, Any]:
    """The nested tables of a settings file without settings of ``MOVED`` that ``kind`` does not declare.

    Raises:
        SettingsError: one of them is not at its default, so that the file is of another model.
    """
    memory = table.get("model", {}).get("memory", {}) if isinstance(table.get("model", {}), Mapping) else {}
    declared = {each.name for each in declared_settings(kind)}
    moved = {name for name in MOVED if isinstance(memory, Mapping) and name in memory and name not in declared}
    for name in sorted(moved):
        if memory[name] != MOVED[name]:
            raise SettingsError(
                f"{source}: model.memory.{name} must be {MOVED[name]!r}, got {memory[name]!r}; only the study has "
                "other values of it, see benchmarks/study/ablations.py"
            )
    if not moved:
        return table
    kept = {name: value for name, value in memory.items() if name not in moved}
    return {**table, "model": {**table["model"], "memory": kept}}


def without_moved_names(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """``found``, settings by section and name, without moved ones at their defaults that ``wanted`` does not have."""
    moved = {f"model.memory.{name}": default for name, default in MOVED.items()}
    return {name: each for name, each in found.items() if name in wanted or name not in moved or moved[name] != each}
