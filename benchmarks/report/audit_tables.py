"""Tables of the audit: the kernels' machine code by target, and every binary on one of them."""

from __future__ import annotations

from typing import Any

from benchmarks.report.markdown import table
from benchmarks.targets import Files

SHOWN_TARGET = "sm_90"


def audit_tables(files: Files) -> str:
    """The largest binary of each kernel on every target, then registers and occupancy of every binary on sm_90."""
    audit = next((data for data in files if data["kind"] == "audit"), None)
    if audit is None:
        return ""
    binaries, targets = audit["binaries"], audit["targets"]
    largest: dict[str, dict[str, dict[str, Any]]] = {}
    for row in binaries:
        by_target = largest.setdefault(row["kernel"], {})
        if row["instructions"] >= by_target.get(row["target"], row)["instructions"]:
            by_target[row["target"]] = row
    sizes = [
        (f"`{kernel}`", *(f"{row['instructions']:,}, {row['registers']}" for row in map(by_target.get, targets) if row))
        for kernel, by_target in largest.items()
    ]
    shown = [
        (
            f"`{row['kernel']}`",
            row["cases"][0],
            str(row["registers"]),
            str(row["spill_bytes"]),
            f"{row['resident_warps']} of {row['max_warps']} ({row['limited_by']})",
            str(row["widest_load_bytes"]),
            f"{row['instructions']:,}",
        )
        for row in binaries
        if row["target"] == SHOWN_TARGET
    ]
    header = ("first case", "registers", "spill bytes", "warps", "widest load", "instructions")
    return "\n\n".join(
        (
            "The largest binary of each kernel, instructions in its code and registers of a thread:",
            table(("kernel", *targets), sizes),
            f"Every binary on {SHOWN_TARGET}:",
            table(("kernel", *header), shown),
        )
    )
