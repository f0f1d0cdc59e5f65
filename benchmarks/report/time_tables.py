"""Tables of the report in Markdown; an empty string where there is nothing to show."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from benchmarks.kernels.problems import OPS, Case
from benchmarks.kernels.roofline import floor_of
from benchmarks.kernels.shapes import NAMED, SHAPES
from benchmarks.targets import Row, find

Files = Sequence[dict[str, Any]]
SIDE_ORDER = ("lmn", "lmn_dense", "torch", "torch_sparse", "compile", "pkm", "fbgemm")
KIND_NAMES = {
    "cpu": "CPU bars",
    "suite": "suite",
    "training": "training step",
    "large_tables": "large tables",
    "serving": "latency of scoring",
    "fuxictr": "training beside FuxiCTR",
    "train_profile": "profile of training",
    "default_sizes": "default sizes",
    "gpu": "GPU",
    "audit": "machine code",
}


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; empty without rows."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    if not lines:
        return ""
    return "\n".join([f"| {' | '.join(header)} |", f"|{'---|' * len(header)}", *lines])


def machine_table(files: Files) -> str:
    """One line a result file: where and with which code."""

    def row(data: dict[str, Any]) -> tuple[str, ...]:
        at = data["environment"]
        gpu = f"{at['gpu']}, driver {at['driver']}, " if "gpu" in at else ""
        code = f"{(at['commit'] or 'unknown')[:10]}{' + changes' if at['dirty'] else ''}, source {at['source'][:8]}"
        return (
            f"{KIND_NAMES[data['kind']]} ([{data['file']}](../benchmarks/results/{data['file']}))",
            f"{gpu}{at['cpu']}, {at['cores']} cores, {at['threads']} threads",
            f"torch {at['packages']['torch']}, Triton {at['packages']['triton'] or '-'}",
            code,
            at["date"] + ("" if data["complete"] else ", **interrupted**"),
        )

    return table(("results", "machine", "versions", "code", "date"), [row(data) for data in files])


def floor_table(files: Files) -> str:
    """Bytes and operations of each pass at the named shapes in bf16, uniform slots, sparse rows; arithmetic alone."""
    limits = next((data["limits"][0] for data in files if data["kind"] == "gpu" and data.get("limits")), None)
    rows = []
    for op in OPS:
        for name in NAMED:
            shape = SHAPES[name]
            entries = shape.B * shape.bag
            touched = round(shape.slots * (1 - (1 - 1 / shape.slots) ** entries))
            for pass_ in ("forward", "backward"):
                if name.startswith("serve") and pass_ == "backward":
                    continue
                floor = floor_of(Case(op, shape, "bf16"), pass_, touched)
                seconds = floor.seconds(limits["bytes_per_s"], limits["operations_per_s"]["bf16"]) if limits else None
                time = [f"{seconds * 1e3:.3g}"] if seconds is not None else []
                rows.append((op, pass_, name, f"{floor.bytes / 1e6:,.2f}", f"{floor.operations / 1e9:,.2f}", *time))
    time_header = ["ms at the measured limits"] if limits else []
    return table(("op", "pass", "shape", "MB", "GFLOP", *time_header), rows)


def time_tables(files: Files, kind: str) -> str:
    """Times of every op, pass and case, one table an op, losses counted above them."""
    rows = find(files, kind)
    if not rows:
        return ""
    parts = [_losses(rows)]
    for op in OPS:
        of_op = [row for row in rows if row["op"] == op]
        sides = [side for side in SIDE_ORDER if any(row["side"] == side for row in of_op)]
        shares = any("share" in row for row in of_op)
        header = ["shape", "B", "type", "slots", "pass", *sides, "torch / lmn", "best other / lmn", "peak MiB, torch's"]
        lines = [_time_row(group, sides, shares) for group in _groups(of_op)]
        if lines:
            parts.append(f"**{op}**, ms: median (20th-80th percentile)\n")
            parts.append(table([*header, *(["share of limit"] if shares else [])], lines) + "\n")
    return "\n".join(parts).rstrip()


def scaling_table(files: Files, kind: str) -> str:
    """Series of the layer over N (and M = N * N), B and K: medians and peak memory."""
    rows = [
        row for letter in "NBK" for row in find(files, kind, sweep=letter) if row.get("pass") in ("forward", "both")
    ]
    lines = []
    for group in _groups(rows):
        shape, letter = group[0]["shape"], group[0]["sweep"]
        at = f"M = {shape['N'] ** 2:,}" if letter == "N" else f"{letter} = {shape[letter]:,}"
        cells = [at, group[0]["pass"]]
        for side in ("lmn", "torch"):
            found = _of_side(group, side)
            cells += [_median(found), _mebibytes(found)]
        lines.append(cells)
    return table(("at", "pass", "lmn ms", "lmn peak MiB", "torch ms", "torch peak MiB"), lines)


def replay_table(files: Files) -> str:
    """Graph replays, and the captured steps."""
    rows = [
        (
            row["shape"]["name"],
            row["dtype"],
            row["side"],
            _in_us(row.get("p50_ms")) if row["status"] == "ok" else f"{row['status']}: {row['reason']}",
            _in_us(row.get("warm_ms")),
            str(row.get("kernels", "")),
        )
        for row in find(files, "gpu", "replay")
    ]
    steps = [
        (row["shape"]["name"], row["dtype"], "sparse rows" if row["sparse_grad"] else "dense", row["status"])
        for row in find(files, "gpu", "capture")
    ]
    replays = table(("shape", "type", "side", "cold, µs", "warm, µs", "kernels"), rows)
    captured = table(("captured step", "type", "values' gradient", "equal to eager"), steps)
    return f"{replays}\n\n{captured}".strip()


def profile_table(files: Files) -> str:
    """Kernels of a training read at lmn_1m in bf16, the slowest first."""
    rows = [row for data in files if data["kind"] == "gpu" for row in data.get("profile", ())]
    lines = [
        (f"`{row['kernel'][:70]}`", f"{row['us_a_call']:,.1f}", f"{row['launches_a_call']:g}", f"{row['share']:.1%}")
        for row in rows[:12]
    ]
    return table(("kernel", "µs a call", "launches", "of the time"), lines)


def audit_tables(files: Files) -> str:
    """Instructions a score and a gathered 16 bytes, then registers and occupancy of every binary on sm_90."""
    audit = next((data for data in files if data["kind"] == "audit"), None)
    if audit is None:
        return ""
    figures = ("instructions_per_score", "instructions_per_16_bytes")
    parts = [
        (row["case"], row["target"], row["part"], str(row["launches"]), *(_figure(row[name]) for name in figures))
        for row in audit["parts"]
        if any(row[name] is not None for name in figures)
    ]
    binaries = [
        (
            f"`{row['kernel']}`",
            row["cases"][0],
            str(row["registers"]),
            str(row["spill_bytes"]),
            f"{row['resident_warps']} of {row['most_warps']} ({row['limited_by']})",
            f"{row['widest_load_bytes']}",
            f"{row['weighted_instructions']:,.0f}",
        )
        for row in audit["binaries"]
        if row["target"] == "sm_90"
    ]
    header = (
        "kernel, sm_90",
        "first case",
        "registers",
        "spill bytes",
        "warps",
        "widest load",
        "instructions a thread",
    )
    costs = table(("case", "target", "part", "launches", "instructions a score", "a gathered 16 bytes"), parts)
    return f"{costs}\n\n{table(header, binaries)}"


def training_table(files: Files) -> str:
    """Time of a training step, of the router in it, and memory, by side and size."""
    rows = []
    for data in (data for data in files if data["kind"] == "training"):
        for peak in data["peaks"]:
            what = {
                row["what"]: row
                for row in data["steps"]
                if row["side"] == peak["side"] and row["shape"] == peak["shape"]
            }
            step, router, ours = what["step"], what["router"], peak["side"].startswith("row")
            rows.append(
                (
                    peak["note"],
                    f"{peak['shape']['N'] ** 2:,}",
                    f"{step['p50_ms']:.3g} ({step['p20_ms']:.3g}-{step['p80_ms']:.3g})",
                    f"{router['p50_ms']:.3g}" if ours else "",  # it is this library's router that was timed
                    f"{step['p50_ms'] - router['p50_ms']:.3g}" if ours else "",
                    f"{what['usage']['p50_ms']:.2g}" if ours else "",
                    f"{peak['state_bytes'] / 2**20:,.0f}",
                    f"{peak['peak_bytes'] / 2**20:,.0f}",
                )
            )
    header = (
        "side",
        "slots",
        "step ms",
        "router ms",
        "rest ms",
        "counting reads ms",
        "table and state MiB",
        "peak resident MiB",
    )
    return table(header, rows) if rows else ""


def large_table(files: Files) -> str:
    """Seconds and peak memory of making, training, saving and loading large memories."""
    rows = [
        (
            f"{row['slots']:,}",
            f"{row['held_bytes'] / 2**20:,.0f}",
            *(f"{row[name]:.3g}" for name in ("make_s", "save_s", "verify_s", "load_s")),
            f"{row['save_peak_bytes'] / row['held_bytes']:.3f}",
            f"{row['load_peak_bytes'] / row['held_bytes']:.3f}",
        )
        for data in files
        if data["kind"] == "large_tables"
        for row in data["tables"]
    ]
    peaks = ("peak of making, training and saving", "peak of loading and training")
    return table(("slots", "held MiB", "make s", "save s", "verify s", "load s", *peaks), rows) if rows else ""


def gpu_training_table(files: Files) -> str:
    """A whole training step on a GPU by the size of the memory."""
    rows = []
    for row in (row for data in files if data["kind"] == "gpu" for row in data.get("training", ())):
        slots = f"{row['shape']['N'] ** 2:,}"
        if row["status"] != "ok":
            rows.append((slots, row.get("what", ""), row["status"], row.get("reason", ""), ""))
            continue
        peak = f"{row['peak_bytes'] / 2**20:,.0f}" if "peak_bytes" in row else ""
        time = f"{row['p50_ms']:.3g} ({row['p20_ms']:.3g}-{row['p80_ms']:.3g})"
        rows.append((slots, row["what"], time, peak, f"{row['table_bytes'] / 2**20:,.0f}"))
    return table(("slots", "step", "ms", "peak MiB", "table MiB"), rows) if rows else ""


def skipped_list(files: Files) -> str:
    """What the runs left out, and why, counted by reason; and the sides that gave no figure."""
    lines = []
    for data in files:
        reasons: dict[str, list[str]] = {}
        for each in data["skipped"]:
            reasons.setdefault(each["why"], []).append(each["what"])
        for row in data.get("times", ()):
            if row["status"] != "ok":
                what = f"{row['side']}: {row['op']} {row['shape']['name']} {row['dtype']} {row['slots']}"
                reasons.setdefault(f"{row['status']}: {row['reason']}", []).append(what)
        for why, what in reasons.items():
            more = f" and {len(what) - 6} more" if len(what) > 6 else ""
            lines.append(f"- {KIND_NAMES[data['kind']]}: {why}: {'; '.join(what[:6])}{more}")
    return "\n".join(lines) or ("Nothing." if files else "")


def _groups(rows: Sequence[Row]) -> list[list[Row]]:
    """Rows of one case and pass together, in the order of the file; a failed side joins every pass of its case."""
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


def _time_row(group: Sequence[Row], sides: Sequence[str], shares: bool) -> list[str]:
    shape, first = group[0]["shape"], group[0]
    ours, torch_side = _of_side(group, "lmn"), _of_side(group, "torch")
    others = [row["p50_ms"] for row in group if not row["side"].startswith("lmn") and row["status"] == "ok"]
    cells = [shape["name"], f"{shape['B']:,}", first["dtype"], first["slots"], first["pass"]]
    for side in sides:
        row = _of_side(group, side)
        spread = f" ({row['p20_ms']:.3g}-{row['p80_ms']:.3g})" if row and row["status"] == "ok" else ""
        cells.append(_median(row) + spread)
    for other in (
        torch_side["p50_ms"] if torch_side and torch_side["status"] == "ok" else None,
        min(others, default=None),
    ):
        cells.append(f"{other / ours['p50_ms']:.2f}" if ours and ours["status"] == "ok" and other else "")
    cells.append(", ".join(filter(None, (_mebibytes(ours), _mebibytes(torch_side)))))
    if shares:
        cells.append(f"{ours['share']:.0%}" if ours and "share" in ours else "")
    return cells


def _losses(rows: Sequence[Row]) -> str:
    pairs = [(_of_side(group, "lmn"), group) for group in _groups(rows)]
    judged = lost = 0
    for ours, group in pairs:
        others = [row["p50_ms"] for row in group if not row["side"].startswith("lmn") and row["status"] == "ok"]
        if ours and ours["status"] == "ok" and others:
            judged += 1
            lost += min(others) < ours["p50_ms"]
    return f"`lmn` is slower than the best other side in {lost} of {judged} rows.\n"


def _of_side(group: Sequence[Row], side: str) -> Row | None:
    return next((row for row in group if row["side"] == side), None)


def _median(row: Row | None) -> str:
    if row is None:
        return ""
    return f"{row['p50_ms']:.3g}" if row["status"] == "ok" else str(row["status"])


def _mebibytes(row: Row | None) -> str:
    return f"{row['peak_bytes'] / 2**20:,.1f}" if row and row.get("peak_bytes") is not None else ""


def _in_us(milliseconds: float | None) -> str:
    return "" if milliseconds is None else f"{milliseconds * 1e3:.1f}"


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"
