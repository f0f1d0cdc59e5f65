"""Result files read back, and the bars of the project judged by them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

Row = dict[str, Any]


class Bar(NamedTuple):
    """One bar: on which kind of machine, what, the bound as text, what was measured (None: not yet), whether met."""

    kind: str
    what: str
    bound: str
    value: float | None
    met: bool | None


def load(path: Path) -> dict[str, Any]:
    """A result file.

    Raises:
        ValueError: it is no result file of a format that is known.
    """
    data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if data.get("format") != 1 or "kind" not in data:
        raise ValueError(f"{path.name} must be a result file of format 1, got format {data.get('format')!r}")
    return data


def find(files: Iterable[dict[str, Any]], kind: str, section: str = "times", **wanted: Any) -> list[Row]:
    """Rows of a section of all files of a kind, whose fields, or whose shape's, have the wanted values.

    ``name`` stands for the shape's name. A row of a series is found only by its ``sweep``.
    """
    wanted = {"sweep": None, **wanted}

    def value(row: Row, field: str) -> Any:
        return row["shape"]["name"] if field == "name" else row.get(field, row.get("shape", {}).get(field))

    return [
        row
        for data in files
        if data["kind"] == kind
        for row in data.get(section, ())
        if all(value(row, field) == each for field, each in wanted.items())
    ]


def one(rows: Sequence[Row], field: str) -> float | None:
    """The field of the only measured row; None if there is none.

    Raises:
        ValueError: there are several.
    """
    rows = [row for row in rows if row.get("status", "ok") == "ok" and row.get(field) is not None]
    if len(rows) > 1:
        raise ValueError(f"expected one measured row, got {len(rows)}: {rows[0]}")
    return rows[0][field] if rows else None


def ratio(files: Sequence[dict[str, Any]], kind: str, over: str, field: str = "p50_ms", **wanted: Any) -> float | None:
    """``field`` of side ``over`` divided by that of this library."""
    theirs, ours = (one(find(files, kind, side=side, **wanted), field) for side in (over, "lmn"))
    return theirs / ours if theirs is not None and ours else None


def bars(files: Sequence[dict[str, Any]]) -> list[Bar]:
    """Every bar that timing can judge, met, missed or not measured."""
    found: list[Bar] = []

    def judge(kind: str, what: str, value: float | None, relation: str, bound: float, shown: str | None = None) -> None:
        compare: Callable[[float], bool] = (lambda x: x >= bound) if relation == "≥" else (lambda x: x <= bound)
        met = None if value is None else not math.isnan(value) and compare(value)
        found.append(Bar(kind, what, f"{relation} {shown or f'{bound:g}'}", value, met))

    at = {"op": "layer", "name": "cpu_bar"}
    speed = "times faster than plain torch"
    judge("cpu", f"layer forward, {speed}", ratio(files, "cpu", "torch", **at, **{"pass": "forward"}), "≥", 1.5)
    judge("cpu", f"layer forward + backward, {speed}", ratio(files, "cpu", "torch", **at, **{"pass": "both"}), "≥", 3)
    peak = ratio(files, "cpu", "torch", "peak_bytes", **at, **{"pass": "both"})
    judge("cpu", "peak memory of forward + backward, of plain torch's", 1 / peak if peak else None, "≤", 1 / 3, "1/3")
    for pass_, label in (("forward", "forward"), ("both", "forward + backward")):
        times = [one(find(files, "cpu", sweep="N", N=N, side="lmn", **{"pass": pass_}), "p50_ms") for N in (256, 4096)]
        grown = times[1] / times[0] if times[0] and times[1] else None
        judge("cpu", f"layer {label}, time at 2^24 slots over that at 2^16", grown, "≤", 16, "16 = √(2^24 / 2^16)")
    _judge_determinism(files, "cpu", judge)
    for name in ("lmn_1m", "wide_1m"):
        for pass_, bound in (("forward", 0.85), ("backward", 0.5)):
            where = {"op": "bag", "name": name, "dtype": "bf16", "slots": "uniform", "pass": pass_, "side": "lmn"}
            share = one(find(files, "gpu", **where), "share")
            judge("gpu", f"bag {pass_}, {name}, bf16, share of the copy bandwidth", share, "≥", bound)
    for dtype in ("bf16", "fp32"):
        where = {"name": "lmn_1m", "dtype": dtype, "slots": "uniform"}
        router = ratio(files, "gpu", "torch", op="router", **where, **{"pass": "forward"})
        judge("gpu", f"router forward, lmn_1m, {dtype}, {speed}", router, "≥", 8)
        for over, label, bound in (("torch", "plain torch", 6), ("compile", "`torch.compile`", 2)):
            layer = ratio(files, "gpu", over, op="layer", **where, **{"pass": "both"})
            judge("gpu", f"layer forward + backward, lmn_1m, {dtype}, times faster than {label}", layer, "≥", bound)
    served = find(files, "gpu", "replay", name="serve_256", side="lmn", dtype="bf16")
    cold = one(served, "p50_ms")
    judge("gpu", "serve_256 by graph replay, cold caches, µs", None if cold is None else cold * 1e3, "≤", 30)
    judge("gpu", "serve_256, kernels launched", one(served, "kernels"), "≤", 3)
    steps = find(files, "gpu", "capture")
    wrong = float(sum(step["status"] != "ok" for step in steps)) if steps else None
    judge("gpu", "captured training steps that differ from eager ones", wrong, "≤", 0)
    _judge_determinism(files, "gpu", judge)
    _judge_training(files, judge)
    return found


def _judge_training(files: Sequence[dict[str, Any]], judge: Callable[..., None]) -> None:
    def ms(N: int, side: str, what: str) -> float | None:
        return one(find(files, "training", "steps", N=N, side=side, what=what), "p50_ms")

    for side, name in (("row_adagrad", "RowAdagrad"), ("row_adam", "RowAdam")):
        theirs, ours = ms(1024, "torch", "step"), ms(1024, side, "step")
        faster = theirs / ours if theirs and ours else None
        judge("training", f"{name}, 2^20 slots, times faster than a dense gradient and AdamW", faster, "≥", 4)
        counting, step = ms(1024, side, "usage"), ms(1024, side, "step")
        share = counting / step if counting and step else None
        judge("training", f"{name}, 2^20 slots, counting the reads, of the step", share, "≤", 0.02)
        rest = []
        for N in (1024, 4096):
            step, router = ms(N, side, "step"), ms(N, side, "router")
            rest.append(step - router if step and router else None)
        grown = rest[1] / rest[0] if rest[0] and rest[1] else None
        judge("training", f"{name}, step without router, 2^24 slots over 2^20", grown, "≤", 1.3)
        peaks = find(files, "training", "peaks", N=4096, side=side)
        share = peaks[0]["peak_bytes"] / peaks[0]["state_bytes"] if peaks else None
        judge("training", f"{name}, 2^24 slots, peak resident memory over table and state", share, "≤", 1.15)


def _judge_determinism(files: Sequence[dict[str, Any]], kind: str, judge: Callable[..., None]) -> None:
    rows = find(files, kind, "determinism")
    runs = [row.get("differing", row["runs"]) for row in rows]
    judge(kind, "runs of 20 that differ with all rows on 3 slots, deterministic", max(runs, default=None), "≤", 0)
    slower = max((row.get("ratio", math.inf) for row in rows), default=None)
    judge(kind, "deterministic mode's time there, of the fast mode's", slower, "≤", 1.3)


def format_bars(judged: Sequence[Bar]) -> str:
    """For a terminal, one line a bar."""
    words = {True: "met", False: "MISSED", None: "not measured"}
    lines = []
    for bar in judged:
        value = "-" if bar.value is None else f"{bar.value:.3g}"
        lines.append(f"{words[bar.met]:13} {value:>8}  {bar.bound:20} {bar.kind}: {bar.what}")
    return "\n".join(lines)
