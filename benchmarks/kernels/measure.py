"""One case, all its sides: bound, checked, timed in turns, and written down, whatever becomes of it."""

from __future__ import annotations

import gc
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from benchmarks.kernels.ceilings import Limits
from benchmarks.kernels.correctness import WrongResult, check
from benchmarks.kernels.peak_memory import peak_bytes
from benchmarks.kernels.problems import Case, Problem, make_problems
from benchmarks.kernels.providers import Bound, Side, all_sides
from benchmarks.kernels.roofline import floor_of
from benchmarks.kernels.timing import Call, Effort, Stopwatch, percentiles, time_in_turns
from benchmarks.result_files import ResultFile

COMPILE_SECONDS = 60.0
SETS = 3


@dataclass
class Session:
    """What the measurements of a run share.

    Attributes:
        file: where records go.
        stopwatch: of the device.
        effort: how long to measure each pass of each side.
        limits: of the machine, once measured.
        deadline: ``time.monotonic()`` at which no new work starts.
        side_names: the sides that may run.
    """

    file: ResultFile
    stopwatch: Stopwatch
    effort: Effort
    limits: Limits | None = None
    deadline: float = float("inf")
    side_names: Sequence[str] = ()
    sides: dict[str, Side] = field(default_factory=all_sides)

    @property
    def device(self) -> torch.device:
        """Where the run runs."""
        return self.stopwatch.device

    def left(self) -> float:
        """Seconds until the deadline."""
        return self.deadline - time.monotonic()


def measure_case(
    session: Session, case: Case, names: Sequence[str], passes: Sequence[str], memory: bool = True
) -> None:
    """Check the sides on a case, time the green ones in turns, and add a record for each side and pass.

    A side that is absent, wrong, out of memory or that fails gets a record that says so and no figure.
    """
    problems = make_problems(case, SETS, session.device)
    use = slot_use(problems[0])
    bounds: dict[str, list[Bound]] = {}
    errors: dict[str, dict[str, float]] = {}
    if any(session.sides[name].compiled for name in names):
        torch._dynamo.reset()  # each case is compiled for its own sizes; torch keeps only some
    for name in names:
        side = session.sides[name]
        why = _not_now(session, side, case)
        if why:
            session.file.skip(f"{name}: {case}", why)
            continue
        try:
            bound = side.ops[case.op](problems[0])
            errors[name] = check(side, bound, problems[0], gradients=tuple(passes) != ("forward",))
            bounds[name] = [bound, *(side.ops[case.op](problem) for problem in problems[1:])]
        except Exception as error:  # of any side, on any machine: the others' figures must not be lost
            session.file.add("times", {**describe_case(case), "side": name, **describe_failure(error)})
    for pass_ in passes:
        calls = {name: rounds_of(held, pass_) for name, held in bounds.items()}
        times = time_in_turns(calls, session.stopwatch, session.effort)
        for name, seconds in times.items():
            peak = None
            if memory and pass_ != "backward":
                peak = peak_bytes(getattr(bounds[name][0], pass_), session.device)
            record = describe_time(case, session.sides[name], pass_, seconds, use, session.limits)
            session.file.add("times", {**record, "peak_bytes": peak, "errors": errors[name]})
    if session.device.type == "cuda":
        del bounds, problems
        gc.collect()
        torch.cuda.empty_cache()


def rounds_of(bounds: Sequence[Bound], pass_: str) -> Any:
    """What makes the call of round i: inputs rotate, and a graph is built before the clock starts."""

    def make(turn: int) -> Call:
        bound = bounds[turn % len(bounds)]
        if pass_ != "backward":
            return bound.forward if pass_ == "forward" else bound.both
        output = bound.graph()
        return lambda: bound.backward(output)

    return make


def describe_case(case: Case) -> dict[str, Any]:
    """The case as fields of a record."""
    return {
        "op": case.op,
        "shape": asdict(case.shape),
        "dtype": case.dtype,
        "slots": case.slots,
        **({"sweep": case.sweep} if case.sweep else {}),
    }


def describe_time(
    case: Case, side: Side, pass_: str, seconds: Sequence[float], use: dict[str, int], limits: Limits | None
) -> dict[str, Any]:
    """Percentiles of the times, the pass's floor and the share of the machine's limit that the median reaches."""
    floor = floor_of(case, pass_, use["touched"] if side.sparse_rows else case.shape.slots)
    record = {
        **describe_case(case),
        "side": side.name,
        "pass": pass_,
        "status": "ok",
        **percentiles(seconds),
        "rounds": len(seconds),
        **use,
        "bytes": floor.bytes,
        "operations": floor.operations,
    }
    if limits is not None:
        rate = limits.operations_per_s[case.dtype]
        record["share"] = round(floor.seconds(limits.bytes_per_s, rate) * 1e3 / record["p50_ms"], 4)
    return record


def describe_failure(error: Exception) -> dict[str, str]:
    """Status and reason of a side that gave no figure."""
    status = "failed"
    if isinstance(error, WrongResult):
        status = "wrong"
    elif isinstance(error, NotImplementedError):
        status = "unsupported"
    elif isinstance(error, torch.OutOfMemoryError):
        status = "out of memory"
    reason = (str(error).strip() or "no message").splitlines()[0]
    return {"status": status, "reason": f"{type(error).__name__}: {reason[:300]}"}


def slot_use(problem: Problem) -> dict[str, int]:
    """How many slots the problem touches, and how often the most used one is."""
    case = problem.case
    slots = problem.slots
    if slots is None:
        with torch.no_grad():
            slots = all_sides()["lmn"].ops["router"](problem).run()[1]
    _, uses = slots.flatten().unique(return_counts=True)
    return {"entries": case.shape.B * case.shape.bag, "touched": uses.numel(), "hottest": int(uses.max())}


def _not_now(session: Session, side: Side, case: Case) -> str | None:
    if side.name not in session.side_names:
        return "this side was not asked for"
    if case.op not in side.ops:
        return f"it has no {case.op}"
    if side.absent:
        return side.absent
    if side.compiled and session.left() < COMPILE_SECONDS:
        return "no time left to compile"
    return None
