"""Tables of the report that are not of one op: machines, rooflines, targets, training, and skipped measurements."""

from __future__ import annotations

from typing import Any

from benchmarks.kernels.problems import OPS, Case
from benchmarks.kernels.roofline import roofline_of
from benchmarks.kernels.shapes import NAMED, SHAPES
from benchmarks.report.markdown import mebibytes, spread, table
from benchmarks.targets import Files, Target, judge_targets

KIND_NAMES = {
    "cpu": "CPU targets",
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
MAX_LISTED = 6
"""Skipped measurements that are listed for one reason; the others are counted."""


def machine_table(files: Files) -> str:
    """One line a result file: machine, versions and commit."""

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


def roofline_table(files: Files) -> str:
    """Bytes and operations of each pass at the named shapes in bf16, uniform slots, sparse rows; arithmetic alone."""
    measured = next((data["ceilings"][0] for data in files if data["kind"] == "gpu" and data.get("ceilings")), None)
    rows = []
    for op in OPS:
        for name in NAMED:
            shape = SHAPES[name]
            entries = shape.B * shape.bag
            touched = round(shape.slots * (1 - (1 - 1 / shape.slots) ** entries))
            for pass_ in ("forward",) if name.startswith("serve") else ("forward", "backward"):
                roofline = roofline_of(Case(op, shape, "bf16"), pass_, touched)
                row = [op, pass_, name, f"{roofline.bytes / 1e6:,.2f}", f"{roofline.operations / 1e9:,.2f}"]
                if measured:
                    seconds = roofline.seconds(measured["bytes_per_s"], measured["operations_per_s"]["bf16"])
                    row.append(f"{seconds * 1e3:.3g}")
                rows.append(row)
    time = ["ms at the measured ceilings"] if measured else []
    return table(("op", "pass", "shape", "MB", "GFLOP", *time), rows)


def target_table(files: Files, kind: str) -> str:
    """The targets that one kind of result file is judged by."""
    if not any(data["kind"] == kind for data in files):
        return ""
    words = {True: "met", False: "**missed**", None: "not measured"}

    def row(target: Target) -> tuple[str, ...]:
        value = "" if target.value is None else f"{target.value:.3g}"
        return target.what, target.bound, value, words[target.met]

    return table(("what", "target", "measured", ""), [row(target) for target in judge_targets(files, kind)])


def training_table(files: Files) -> str:
    """Time of a training step, of the router in it, and memory, by provider and size."""
    rows = []
    for data in (data for data in files if data["kind"] == "training"):
        for peak in data["peaks"]:
            what = {
                row["what"]: row
                for row in data["steps"]
                if row["provider"] == peak["provider"] and row["shape"] == peak["shape"]
            }
            step, router = what["step"], what["router"]
            details = ("", "", "")
            if peak["provider"].startswith("row"):  # it is this library's router that was timed
                rest = step["p50_ms"] - router["p50_ms"]
                details = (f"{router['p50_ms']:.3g}", f"{rest:.3g}", f"{what['usage']['p50_ms']:.2g}")
            memory = (mebibytes(peak["state_bytes"]), mebibytes(peak["peak_bytes"]))
            rows.append((peak["note"], f"{peak['shape']['N'] ** 2:,}", spread(step), *details, *memory))
    details_header = ("router ms", "rest ms", "counting reads ms")
    return table(
        ("provider", "slots", "step ms", *details_header, "table and state MiB", "peak resident MiB"),
        rows,
    )


def large_table(files: Files) -> str:
    """Seconds and peak memory of making, training, saving and loading large memories."""
    rows = [
        (
            f"{row['slots']:,}",
            mebibytes(row["held_bytes"]),
            *(f"{row[name]:.3g}" for name in ("make_s", "save_s", "verify_s", "load_s")),
            f"{row['save_peak_bytes'] / row['held_bytes']:.3f}",
            f"{row['load_peak_bytes'] / row['held_bytes']:.3f}",
        )
        for data in files
        if data["kind"] == "large_tables"
        for row in data["tables"]
    ]
    peaks = ("peak of making, training and saving", "peak of loading and training")
    return table(("slots", "held MiB", "make s", "save s", "verify s", "load s", *peaks), rows)


def skipped_list(files: Files) -> str:
    """Skipped and failed measurements by reason."""
    lines = []
    for data in files:
        reasons: dict[str, list[str]] = {}
        for each in data["skipped"]:
            reasons.setdefault(each["why"], []).append(each["what"])
        for row in data.get("times", ()):
            if row["status"] != "ok":
                what = f"{row['provider']}: {row['op']} {row['shape']['name']} {row['dtype']} {row['slots']}"
                reasons.setdefault(f"{row['status']}: {row['reason']}", []).append(what)
        for why, what in reasons.items():
            more = f" and {len(what) - MAX_LISTED} more" if len(what) > MAX_LISTED else ""
            lines.append(f"- {KIND_NAMES[data['kind']]}: {why}: {'; '.join(what[:MAX_LISTED])}{more}")
    return "\n".join(lines) or ("Nothing." if files else "")
