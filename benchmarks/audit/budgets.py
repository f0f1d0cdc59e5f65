"""Limits on what the audit counts, and what it cannot count by itself, read from ``budgets.toml``.

``[trips.KERNEL]`` and ``[taken.KERNEL]`` are declarations for ``machine/weights.py``, by the first lines of loops and
branches, comments and quotes aside. Each ``[[budget]]`` names a ``figure``,
``most`` or ``least``, and optionally ``kernel``, ``case`` and ``target``; without them it holds for all. Figures of a
binary are the fields of :class:`~benchmarks.audit.count.Binary`, figures of a case those of
:class:`~benchmarks.audit.count.Part`, as ``PART.figure``: ``router.instructions_per_score``.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from benchmarks.audit.count import Binary, Part
from benchmarks.audit.machine.sources import normal_head
from benchmarks.audit.machine.weights import Declarations

BUDGETS = Path(__file__).with_name("budgets.toml")
_KEYS = {"figure", "most", "least", "kernel", "case", "target"}
_BINARY_FIGURES = (
    "registers",
    "spill_bytes",
    "shared_bytes",
    "resident_warps",
    "instructions",
    "weighted_instructions",
    "widest_load_bytes",
)
_PART_FIGURES = ("launches", "instructions_per_score", "instructions_per_16_bytes")


@dataclass(frozen=True)
class Budget:
    """A limit on one figure; ``most`` and ``least`` are inclusive, and one of them is None."""

    figure: str
    most: float | None = None
    least: float | None = None
    kernel: str | None = None
    case: str | None = None
    target: str | None = None

    def __str__(self) -> str:
        places = [name for name in (self.kernel, self.case, self.target) if name]
        limit = f"<= {self.most:g}" if self.most is not None else f">= {self.least:g}"
        return f"{self.figure} {limit}{' of ' if places else ''}{' '.join(places)}"


@dataclass(frozen=True)
class Budgets:
    """All of ``budgets.toml``."""

    declarations: Declarations
    limits: tuple[Budget, ...]


def read_budgets(path: Path = BUDGETS) -> Budgets:
    """Read and check a budget file.

    Raises:
        ValueError: a key, figure or value is not one that the audit knows.
    """
    data = tomllib.loads(path.read_text(encoding="utf-8"))
    _check_keys(path, "the file", data, {"trips", "taken", "budget"})
    declared: dict[str, dict[str, int | str]] = {}
    for kernel, loops in data.get("trips", {}).items():
        for text, trips in loops.items():
            if not isinstance(trips, str) and (type(trips) is not int or trips < 0):
                raise ValueError(
                    f"{path.name}: trips of {text!r} in {kernel} must be an integer >= 0 or an expression, "
                    f"got {trips!r}"
                )
        declared[kernel] = {_head(path, text): trips for text, trips in loops.items()}
    taken: dict[str, dict[str, float]] = {}
    for kernel, branches in data.get("taken", {}).items():
        for text, share in branches.items():
            if type(share) not in (int, float) or not 0 <= share <= 1:
                raise ValueError(f"{path.name}: share of {text!r} in {kernel} must be 0 to 1, got {share!r}")
        taken[kernel] = {_head(path, text): share for text, share in branches.items()}
    limits = tuple(_budget(path, entry) for entry in data.get("budget", []))
    return Budgets(Declarations(declared, taken), limits)


def broken(budgets: Sequence[Budget], binaries: Sequence[Binary], parts: Sequence[Part]) -> list[str]:
    """What breaks a budget: the budget, the figure and where it was found."""
    found = []
    for budget in budgets:
        for place, value in _values(budget, binaries, parts):
            if value is None:
                found.append(f"{budget}: not counted at {place}")
            elif (budget.most is not None and value > budget.most) or (
                budget.least is not None and value < budget.least
            ):
                found.append(f"{budget}: is {value:g} at {place}")
    return found


def unused(budgets: Budgets, binaries: Sequence[Binary], parts: Sequence[Part]) -> list[str]:
    """Budgets and declarations that nothing in a whole audit answers to, so that stale ones are removed."""
    found = [f"{budget}: matches nothing" for budget in budgets.limits if not _values(budget, binaries, parts)]
    kernels = {binary.kernel for binary in binaries}
    declared = {**budgets.declarations.trips, **budgets.declarations.taken}
    return found + [
        f"declarations for {kernel}: there is no such kernel" for kernel in declared if kernel not in kernels
    ]


def _values(budget: Budget, binaries: Sequence[Binary], parts: Sequence[Part]) -> list[tuple[str, float | None]]:
    if "." in budget.figure:
        name, figure = budget.figure.split(".")
        return [
            (f"{part.case} {part.target}", getattr(part, figure))
            for part in parts
            if part.part == name and budget.case in (None, part.case) and budget.target in (None, part.target)
        ]
    return [
        (f"{binary.kernel} {binary.cases[0]} {binary.target} ({binary.config})", getattr(binary, budget.figure))
        for binary in binaries
        if budget.kernel in (None, binary.kernel)
        and budget.target in (None, binary.target)
        and (budget.case is None or budget.case in binary.cases)
    ]


def _budget(path: Path, entry: dict[str, Any]) -> Budget:
    _check_keys(path, f"budget {entry}", entry, _KEYS)
    figure = entry.get("figure")
    part, _, name = str(figure).rpartition(".")
    if name not in (_PART_FIGURES if part else _BINARY_FIGURES):
        raise ValueError(
            f"{path.name}: figure must be one of {', '.join(_BINARY_FIGURES)}, or PART. and one of "
            f"{', '.join(_PART_FIGURES)}, got {figure!r}"
        )
    if part and "kernel" in entry:
        raise ValueError(
            f"{path.name}: {figure} is a figure of a case, not of a kernel, got kernel {entry['kernel']!r}"
        )
    limits = [entry[key] for key in ("most", "least") if key in entry]
    if len(limits) != 1 or not isinstance(limits[0], int | float):
        raise ValueError(f"{path.name}: budget {entry} must have one number, most or least")
    return Budget(**entry)


def _head(path: Path, text: str) -> str:
    try:
        return normal_head(text)
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from error


def _check_keys(path: Path, what: str, entry: dict[str, Any], known: set[str]) -> None:
    unknown = sorted(set(entry) - known)
    if unknown:
        raise ValueError(f"{path.name}: {what} must have only the keys {', '.join(sorted(known))}, got {unknown[0]}")
