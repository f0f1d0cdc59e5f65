"""The project's performance targets, judged by result files."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

Row = dict[str, Any]
Files = Sequence[dict[str, Any]]
FASTER = "times faster than plain torch"


class Target(NamedTuple):
    """One target: kind of result file, what, the bound as text, the measured value if any, and whether it is met."""

    kind: str
    what: str
    bound: str
    value: float | None
    met: bool | None


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


def ratio(files: Files, kind: str, over: str, field: str = "p50_ms", **wanted: Any) -> float | None:
    """``field`` of provider ``over`` divided by that of this library."""
    theirs, ours = (one(find(files, kind, provider=name, **wanted), field) for name in (over, "lmn"))
    return _quotient(theirs, ours)


def judge_targets(files: Files, kind: str | None = None) -> list[Target]:
    """Every target that timing can judge, of one kind of result file or of all: met, missed or not measured."""
    judged = (*_cpu(files), *_gpu(files), *_training(files))
    return [target for target in judged if kind in (None, target.kind)]


def format_targets(judged: Iterable[Target]) -> str:
    """For a terminal, one line a target."""
    words = {True: "met", False: "MISSED", None: "not measured"}
    lines = []
    for target in judged:
        value = "-" if target.value is None else f"{target.value:.3g}"
        lines.append(f"{words[target.met]:13} {value:>8}  {target.bound:20} {target.kind}: {target.what}")
    return "\n".join(lines)


def _at_least(kind: str, what: str, value: float | None, bound: float) -> Target:
    return Target(kind, what, f"≥ {bound:g}", value, None if value is None else value >= bound)


def _at_most(kind: str, what: str, value: float | None, bound: float, shown: str | None = None) -> Target:
    return Target(kind, what, f"≤ {shown or f'{bound:g}'}", value, None if value is None else value <= bound)


def _quotient(above: float | None, below: float | None) -> float | None:
    return above / below if above is not None and below else None


def _cpu(files: Files) -> Iterator[Target]:
    forward, both = ({"op": "layer", "name": "cpu_8k", "pass": name} for name in ("forward", "both"))
    yield _at_least("cpu", f"layer forward, {FASTER}", ratio(files, "cpu", "torch", **forward), 1.5)
    yield _at_least("cpu", f"layer forward + backward, {FASTER}", ratio(files, "cpu", "torch", **both), 3)
    peak = _quotient(1, ratio(files, "cpu", "torch", "peak_bytes", **both))
    yield _at_most("cpu", "peak memory of forward + backward, of plain torch's", peak, 1 / 3, "1/3")
    for pass_, label in (("forward", "forward"), ("both", "forward + backward")):
        rows = {"sweep": "N", "provider": "lmn", "pass": pass_}
        small, large = (one(find(files, "cpu", N=N, **rows), "p50_ms") for N in (256, 4096))
        what = f"layer {label}, time at 2^24 slots over that at 2^16"
        yield _at_most("cpu", what, _quotient(large, small), 16, "16 = √(2^24 / 2^16)")
    yield from _determinism(files, "cpu")


def _gpu(files: Files) -> Iterator[Target]:
    for name in ("lmn_1m", "wide_1m"):
        for pass_, bound in (("forward", 0.85), ("backward", 0.5)):
            at = {"op": "bag", "name": name, "dtype": "bf16", "slots": "uniform", "pass": pass_, "provider": "lmn"}
            share = one(find(files, "gpu", **at), "share")
            yield _at_least("gpu", f"bag {pass_}, {name}, bf16, share of the copy bandwidth", share, bound)
    for dtype in ("bf16", "fp32"):
        at = {"name": "lmn_1m", "dtype": dtype, "slots": "uniform"}
        router = ratio(files, "gpu", "torch", op="router", **at, **{"pass": "forward"})
        yield _at_least("gpu", f"router forward, lmn_1m, {dtype}, {FASTER}", router, 8)
        for over, label, bound in (("torch", "plain torch", 6), ("compile", "`torch.compile`", 2)):
            layer = ratio(files, "gpu", over, op="layer", **at, **{"pass": "both"})
            what = f"layer forward + backward, lmn_1m, {dtype}, times faster than {label}"
            yield _at_least("gpu", what, layer, bound)
    served = find(files, "gpu", "replay", name="serve_256", provider="lmn", dtype="bf16")
    cold = one(served, "p50_ms")
    yield _at_most("gpu", "serve_256 by graph replay, cold caches, µs", None if cold is None else cold * 1e3, 30)
    yield _at_most("gpu", "serve_256, kernels launched", one(served, "kernels"), 3)
    steps = find(files, "gpu", "capture")
    wrong = float(sum(step["status"] != "ok" for step in steps)) if steps else None
    yield _at_most("gpu", "captured training steps that differ from eager ones", wrong, 0)
    yield from _determinism(files, "gpu")


def _training(files: Files) -> Iterator[Target]:
    def ms(N: int, provider: str, what: str) -> float | None:
        return one(find(files, "training", "steps", N=N, provider=provider, what=what), "p50_ms")

    for provider, name in (("row_adagrad", "RowAdagrad"), ("row_adam", "RowAdam")):
        step = ms(1024, provider, "step")
        faster = _quotient(ms(1024, "torch", "step"), step)
        what = f"{name}, 2^20 slots, times faster than a dense gradient and AdamW"
        yield _at_least("training", what, faster, 4)
        counting = _quotient(ms(1024, provider, "usage"), step)
        yield _at_most("training", f"{name}, 2^20 slots, counting the reads, of the step", counting, 0.02)
        rest = []
        for N in (1024, 4096):
            step, router = ms(N, provider, "step"), ms(N, provider, "router")
            rest.append(step - router if step and router else None)
        grown = _quotient(rest[1], rest[0])
        yield _at_most("training", f"{name}, step without router, 2^24 slots over 2^20", grown, 1.3)
        peaks = find(files, "training", "peaks", N=4096, provider=provider)
        share = peaks[0]["peak_bytes"] / peaks[0]["state_bytes"] if peaks else None
        what = f"{name}, 2^24 slots, peak resident memory over table and state"
        yield _at_most("training", what, share, 1.15)


def _determinism(files: Files, kind: str) -> Iterator[Target]:
    rows = find(files, kind, "determinism")
    runs = max((row.get("differing", row["runs"]) for row in rows), default=None)
    yield _at_most(kind, "runs of 20 that differ with all rows on 3 slots, deterministic", runs, 0)
    slower = max((row.get("ratio", math.inf) for row in rows), default=None)
    yield _at_most(kind, "deterministic mode's time there, of the fast mode's", slower, 1.3)
