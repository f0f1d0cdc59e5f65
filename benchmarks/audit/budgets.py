"""Budgets on the figures of the audit, read from ``budgets.toml``.

Each ``[[budget]]`` names a ``figure`` and its ``max`` or ``min``, inclusive: one number, or a table of numbers by
target. ``kernel``, ``case`` and ``target`` restrict it; without them it holds for all. Figures of a binary are fields
of :class:`~benchmarks.audit.offline.Binary`; ``PART.launches`` is the number of launches of a part of a case.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from benchmarks.audit.count import Part
from benchmarks.audit.offline import TARGETS, Binary

BUDGETS = Path(__file__).with_name("budgets.toml")
LAUNCHES = "launches"
FIGURES = ("registers", "spill_bytes", "shared_bytes", "resident_warps", "instructions", "widest_load_bytes")
_KEYS = {"figure", "max", "min", "kernel", "case", "target"}


@dataclass(frozen=True)
class Budget:
    """A bound on one figure; one of ``max`` and ``min`` is None."""

    figure: str
    max: float | None = None
    min: float | None = None
    kernel: str | None = None
    case: str | None = None
    target: str | None = None

    def allows(self, value: float) -> bool:
        """Whether ``value`` is within the budget."""
        return (self.max is None or value <= self.max) and (self.min is None or value >= self.min)

    def __str__(self) -> str:
        places = [name for name in (self.kernel, self.case, self.target) if name]
        bound = f"<= {self.max:g}" if self.max is not None else f">= {self.min:g}"
        return f"{self.figure} {bound}{' of ' if places else ''}{' '.join(places)}"


def read_budgets(path: Path = BUDGETS) -> tuple[Budget, ...]:
    """Read and check a budget file.

    Raises:
        ValueError: a key, figure, target or value is unknown.
    """
    data = tomllib.loads(path.read_text(encoding="utf-8"))
    _check_keys(path, "the file", data, {"budget"})
    return tuple(budget for entry in data.get("budget", []) for budget in _budgets(path, entry))


def broken(budgets: Sequence[Budget], binaries: Sequence[Binary], parts: Sequence[Part]) -> list[str]:
    """Each broken budget with the figure and the place."""
    return [
        f"{budget}: is {value:g} at {place}"
        for budget in budgets
        for place, value in _values(budget, binaries, parts)
        if not budget.allows(value)
    ]


def unused(budgets: Sequence[Budget], binaries: Sequence[Binary], parts: Sequence[Part]) -> list[str]:
    """Budgets that match nothing in a whole audit, so that stale ones are removed."""
    return [f"{budget}: matches nothing" for budget in budgets if not any(_values(budget, binaries, parts))]


def _values(budget: Budget, binaries: Sequence[Binary], parts: Sequence[Part]) -> Iterator[tuple[str, float]]:
    name, _, figure = budget.figure.rpartition(".")
    if name:
        for part in parts:
            if part.part == name and budget.case in (None, part.case) and budget.target in (None, part.target):
                yield f"{part.case} {part.target}", getattr(part, figure)
        return
    for binary in binaries:
        if (
            budget.kernel in (None, binary.kernel)
            and budget.target in (None, binary.target)
            and budget.case in (None, *binary.cases)
        ):
            yield str(binary), getattr(binary, figure)


def _budgets(path: Path, entry: dict[str, Any]) -> list[Budget]:
    """The budgets of an entry, one for each target that its bound names."""
    _check_keys(path, f"budget {entry}", entry, _KEYS)
    figure = entry.get("figure")
    part, _, name = str(figure).rpartition(".")
    if name not in ((LAUNCHES,) if part else FIGURES):
        raise ValueError(f"{path.name}: figure must be one of {', '.join(FIGURES)}, or PART.{LAUNCHES}, got {figure!r}")
    if part and "kernel" in entry:
        raise ValueError(
            f"{path.name}: {figure} is a figure of a case, not of a kernel, got kernel {entry['kernel']!r}"
        )
    bounds = [key for key in ("max", "min") if key in entry]
    values = entry[bounds[0]] if len(bounds) == 1 else None
    if isinstance(values, dict) and values and "target" not in entry:
        unknown = sorted(set(values) - set(TARGETS))
        if unknown:
            raise ValueError(f"{path.name}: a target must be one of {', '.join(TARGETS)}, got {unknown[0]!r}")
        entries = [{**entry, bounds[0]: value, "target": target} for target, value in values.items()]
    else:
        entries = [entry]
    if len(bounds) != 1 or not all(isinstance(each[bounds[0]], int | float) for each in entries):
        raise ValueError(f"{path.name}: budget {entry} must have one of max and min, a number or numbers by target")
    return [Budget(**each) for each in entries]


def _check_keys(path: Path, what: str, entry: dict[str, Any], known: set[str]) -> None:
    unknown = sorted(set(entry) - known)
    if unknown:
        raise ValueError(f"{path.name}: {what} must have only the keys {', '.join(sorted(known))}, got {unknown[0]}")
