"""Tables of what only a GPU run measures: graph replays, captured steps, training steps and the slowest kernels."""

from __future__ import annotations

from benchmarks.report.markdown import mebibytes, spread, table
from benchmarks.targets import Files, find


def replay_table(files: Files) -> str:
    """Graph replays, and the captured steps."""
    rows = [
        (
            row["shape"]["name"],
            row["dtype"],
            row["provider"],
            _microseconds(row.get("p50_ms")) if row["status"] == "ok" else f"{row['status']}: {row['reason']}",
            _microseconds(row.get("warm_ms")),
            str(row.get("kernels", "")),
        )
        for row in find(files, "gpu", "replay")
    ]
    steps = [
        (row["shape"]["name"], row["dtype"], "sparse rows" if row["sparse_grad"] else "dense", row["status"])
        for row in find(files, "gpu", "capture")
    ]
    replays = table(("shape", "type", "provider", "cold, µs", "warm, µs", "kernels"), rows)
    captured = table(("captured step", "type", "values' gradient", "equal to eager"), steps)
    return f"{replays}\n\n{captured}".strip()


def profile_table(files: Files) -> str:
    """Kernels of a training read at lmn_1m in bf16, the slowest first."""
    rows = find(files, "gpu", "profile")
    lines = [
        (f"`{row['kernel'][:70]}`", f"{row['us_a_call']:,.1f}", f"{row['launches_a_call']:g}", f"{row['share']:.1%}")
        for row in rows[:12]
    ]
    return table(("kernel", "µs a call", "launches", "of the time"), lines)


def gpu_training_table(files: Files) -> str:
    """A whole training step on a GPU by the size of the memory."""
    lines = []
    for row in find(files, "gpu", "training"):
        slots = f"{row['shape']['N'] ** 2:,}"
        if row["status"] != "ok":
            lines.append((slots, row.get("what", ""), row["status"], row.get("reason", ""), ""))
            continue
        peak = mebibytes(row["peak_bytes"]) if "peak_bytes" in row else ""
        lines.append((slots, row["what"], spread(row), peak, mebibytes(row["table_bytes"])))
    return table(("slots", "step", "ms", "peak MiB", "table MiB"), lines)


def _microseconds(milliseconds: float | None) -> str:
    return "" if milliseconds is None else f"{milliseconds * 1e3:.1f}"
