"""The axes of a tuning as a study file gives them: lists of values, or ranges of numbers."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from lmn_model.setting_types import SettingsError, convert, declared_settings
from lmn_model.training.settings import Settings

RANGE_KEYS = ("low", "high", "log")
EARLIER_AXES = {"window": "window_size"}
"""Settings with numbers that had another name in earlier releases."""

Point = Mapping[str, Any]
"""A value for every axis, as JSON holds it: lists, no tuples."""


@dataclass(frozen=True)
class Choices:
    """An axis of listed values; numbers that ascend are steps of a scale, others have no order."""

    values: tuple[Any, ...]

    @property
    def is_ordered(self) -> bool:
        """Whether neighbours in the list are near each other."""
        are_numbers = all(type(value) in (int, float) for value in self.values)
        return are_numbers and all(low < high for low, high in itertools.pairwise(self.values))

    def __contains__(self, value: Any) -> bool:
        return value in self.values

    @property
    def size(self) -> int | None:
        """How many values there are; None for numbers with a fraction."""
        return len(self.values)


@dataclass(frozen=True)
class Range:
    """An axis of numbers from ``low`` to ``high``, both included; ``log`` draws them evenly on a logarithmic scale."""

    low: float
    high: float
    log: bool
    is_integer: bool

    def __contains__(self, value: Any) -> bool:
        return type(value) in (int, float) and self.low <= value <= self.high

    @property
    def size(self) -> int | None:
        """As :attr:`Choices.size`."""
        return int(self.high - self.low) + 1 if self.is_integer else None


Axis = Choices | Range


@dataclass(frozen=True)
class Tune:
    """``[tune]`` of a study file.

    Args:
        axes: of every model, by the name of the setting.
        trials: points that are tried for each model, the first of them its own settings.
        seeds: of each trial; its score is the mean validation AUC over them.
    """

    axes: Mapping[str, Axis]
    trials: int
    seeds: tuple[int, ...]


def read_axes(table: Mapping[str, Any], settings: Settings, where: str) -> dict[str, Axis]:
    """The axes of a table: a list of values, or ``{ low, high, log }`` for a setting with a number.

    Args:
        table: by the name of the setting.
        settings: that each value is checked with.
        where: for messages.

    Raises:
        SettingsError: there is no such setting, it cannot have such a value, or the values are neither form.
    """
    axes: dict[str, Axis] = {}
    for key, values in table.items():
        source = f"{where}: {key}"
        if isinstance(values, Mapping):
            name, found = key, _range(key, values, settings, source)
            axis: Axis = found
            checked: tuple[Any, ...] = (found.low, found.high)
        elif isinstance(values, list) and values:
            name = EARLIER_AXES.get(key, key) if type(values[0]) is int else key
            settings.value(name, where)  # raises if there is no such setting
            checked = tuple(plain(settings.override({name: value}, where).value(name)) for value in values)
            if any(value in checked[:place] for place, value in enumerate(checked)):
                raise SettingsError(f"{source} must be a list of different values, got {values!r}")
            axis = Choices(checked)
        else:
            raise SettingsError(f"{source} must be a list of values or {{ low, high, log }}, got {values!r}")
        for value in checked:
            settings.override({name: value}, where)
        axes[name] = axis
    return axes


def plain(value: Any) -> Any:
    """A setting as JSON holds it."""
    return list(value) if isinstance(value, tuple) else value


def _range(name: str, table: Mapping[str, Any], settings: Settings, source: str) -> Range:
    settings.value(name, source)
    kind = next(each.kind for each in declared_settings(type(settings)) if each.name == name)
    kinds = {kind, *get_args(kind)}
    if not {int, float} & kinds:
        raise SettingsError(f"{source} must be a list of values, for a setting without a number has no range")
    if unknown := [key for key in table if key not in RANGE_KEYS]:
        raise SettingsError(f"{source} must have the keys low, high and log alone, got {unknown[0]!r}")
    if "low" not in table or "high" not in table:
        raise SettingsError(f"{source} must have the keys low and high, got {dict(table)!r}")
    is_integer = float not in kinds
    number = int if is_integer else float
    low, high = (convert(table[key], number, f"{source}: {key}") for key in ("low", "high"))
    log = convert(table.get("log", False), bool, f"{source}: log")
    if not low < high:
        raise SettingsError(f"{source} must have low < high, got {low!r} and {high!r}")
    if log and not low > 0:
        raise SettingsError(f"{source}: low must be greater than 0 for a logarithmic range, got {low!r}")
    return Range(low, high, log, is_integer)
