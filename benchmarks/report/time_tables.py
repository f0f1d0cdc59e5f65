"""Tables of the timed ops: every case by provider, and series over N, B and K."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.kernels.problems import OPS
from benchmarks.report.markdown import mebibytes, spread, table
from benchmarks.targets import Files, Row, find

PROVIDERS = ("lmn", "lmn_dense", "torch", "torch_sparse", "compile", "pkm", "fbgemm")


def time_tables(files: Files, kind: str) -> str:
    """Times of every op, pass and case, one table an op, losses counted above them."""
    rows = find(files, kind)
    if not rows:
        return ""
    sections = [_losses(rows)]
    for op in OPS:
        op_rows = [row for row in rows if row["op"] == op]
        providers = [name for name in PROVIDERS if any(row["provider"] == name for row in op_rows)]
        shares = any("share" in row for row in op_rows)
        header = ["shape", "B", "type", "slots", "pass", *providers]
        header += ["torch / lmn", "best other / lmn", "peak MiB, torch's", *(["share of roofline"] if shares else [])]
        lines = [_time_row(group, providers, shares) for group in _groups(op_rows)]
        if lines:
            sections.append(f"**{op}**, ms: median (20th-80th percentile)\n")
            sections.append(table(header, lines) + "\n")
    return "\n".join(sections).rstrip()


def scaling_table(files: Files, kind: str) -> str:
    """Series of the layer over N (and M = N * N), B and K: medians and peak memory."""
    rows = [
        row for letter in "NBK" for row in find(files, kind, sweep=letter) if row.get("pass") in ("forward", "both")
    ]
    lines = []
    for group in _groups(rows):
        shape, letter = group[0]["shape"], group[0]["sweep"]
        at = f"M = {shape['N'] ** 2:,}" if letter == "N" else f"{letter} = {shape[letter]:,}"
        line = [at, group[0]["pass"]]
        for name in ("lmn", "torch"):
            row = _of_provider(group, name)
            line += [_median(row), _peak(row)]
        lines.append(line)
    return table(("at", "pass", "lmn ms", "lmn peak MiB", "torch ms", "torch peak MiB"), lines)


def _groups(rows: Sequence[Row]) -> list[list[Row]]:
    """Rows of one case and pass together, in the order of the file; a failed provider joins every pass of its case."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        if "pass" in row:
            groups.setdefault((*_case(row), row["pass"]), []).append(row)
    for row in rows:
        if "pass" not in row:
            for key, group in groups.items():
                if key[:-1] == _case(row):
                    group.append(row)
    return list(groups.values())


def _case(row: Row) -> tuple[Any, ...]:
    return row["op"], *row["shape"].values(), row["dtype"], row["slots"], row.get("sweep")


def _time_row(group: Sequence[Row], providers: Sequence[str], shares: bool) -> list[str]:
    shape, first, ours, plain = group[0]["shape"], group[0], _of_provider(group, "lmn"), _of_provider(group, "torch")
    line = [shape["name"], f"{shape['B']:,}", first["dtype"], first["slots"], first["pass"]]
    for name in providers:
        row = _of_provider(group, name)
        line.append(spread(row) if row and row["status"] == "ok" else _median(row))
    for other in (_time(plain), _best_other(group)):
        line.append(f"{other / ours['p50_ms']:.2f}" if ours and ours["status"] == "ok" and other else "")
    line.append(", ".join(filter(None, (_peak(ours), _peak(plain)))))
    if shares:
        line.append(f"{ours['share']:.0%}" if ours and "share" in ours else "")
    return line


def _losses(rows: Sequence[Row]) -> str:
    pairs = [(_time(_of_provider(group, "lmn")), _best_other(group)) for group in _groups(rows)]
    judged = [other < ours for ours, other in pairs if ours is not None and other is not None]
    return f"`lmn` is slower than the best other provider in {sum(judged)} of {len(judged)} rows.\n"


def _of_provider(group: Sequence[Row], name: str) -> Row | None:
    return next((row for row in group if row["provider"] == name), None)


def _best_other(group: Sequence[Row]) -> float | None:
    times = (_time(row) for row in group if not row["provider"].startswith("lmn"))
    return min((time for time in times if time is not None), default=None)


def _time(row: Row | None) -> float | None:
    return row["p50_ms"] if row is not None and row["status"] == "ok" else None


def _median(row: Row | None) -> str:
    if row is None:
        return ""
    return f"{row['p50_ms']:.3g}" if row["status"] == "ok" else str(row["status"])


def _peak(row: Row | None) -> str:
    return mebibytes(row["peak_bytes"], 1) if row and row.get("peak_bytes") is not None else ""
