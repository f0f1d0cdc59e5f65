"""Markdown tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; empty without rows."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([f"| {' | '.join(header)} |", f"|{'---|' * len(header)}", *lines]) if lines else ""


def spread(row: dict[str, float]) -> str:
    """The median time of a record with its 20th and 80th percentile, in milliseconds.

    >>> spread({"p20_ms": 1.0, "p50_ms": 2.0, "p80_ms": 4.0})
    '2 (1-4)'
    """
    return f"{row['p50_ms']:.3g} ({row['p20_ms']:.3g}-{row['p80_ms']:.3g})"


def mebibytes(count: float, digits: int = 0) -> str:
    """A number of bytes in MiB.

    >>> mebibytes(3 << 30)
    '3,072'
    """
    return f"{count / 2**20:,.{digits}f}"
