"""Measure one case: bind its providers, check them, time them in turns, and record every result or failure."""

from __future__ import annotations

import gc
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from benchmarks.kernels.ceilings import Ceilings
from benchmarks.kernels.correctness import WrongResult, check
from benchmarks.kernels.peak_memory import peak_bytes
from benchmarks.kernels.problems import Case, Problem, make_problems
from benchmarks.kernels.provider import Bound, Provider
from benchmarks.kernels.providers import all_providers
from benchmarks.kernels.roofline import roofline_of
from benchmarks.kernels.timing import Call, Effort, Stopwatch, percentiles, time_in_turns
from benchmarks.result_files import ResultFile

COMPILE_SECONDS = 60.0
SETS = 3


@dataclass
class Session:
    """State that the measurements of a run share.

    Attributes:
        file: takes the records.
        stopwatch: of the device.
        effort: how long to measure each pass of each provider.
        ceilings: of the machine, once measured.
        deadline: ``time.monotonic()`` at which no new work starts.
        provider_names: the providers that may run.
    """

    file: ResultFile
    stopwatch: Stopwatch
    effort: Effort
    ceilings: Ceilings | None = None
    deadline: float = float("inf")
    provider_names: Sequence[str] = ()
    providers: dict[str, Provider] = field(default_factory=all_providers)

    @property
    def device(self) -> torch.device:
        """The device that computes."""
        return self.stopwatch.device

    def left(self) -> float:
        """Seconds until the deadline."""
        return self.deadline - time.monotonic()


def measure_case(session: Session, case: Case, names: Sequence[str], passes: Sequence[str]) -> None:
    """Check the providers on a case, time the correct ones in turns, and add a record for each provider and pass.

    A provider that is absent, wrong, out of memory or that fails gets a record with the reason and no figure.
    """
    problems = make_problems(case, SETS, session.device)
    use = slot_use(problems[0])
    bounds: dict[str, list[Bound]] = {}
    errors: dict[str, dict[str, float]] = {}
    if any(session.providers[name].compiled for name in names):
        torch._dynamo.reset()  # each case is compiled for its own sizes; torch keeps only some
    for name in names:
        provider = session.providers[name]
        why = _why_skipped(session, provider, case)
        if why:
            session.file.skip(f"{name}: {case}", why)
            continue
        try:
            bounds[name], errors[name] = bind(provider, problems, gradients=tuple(passes) != ("forward",))
        except Exception as error:  # a failure must not lose the figures of other providers
            session.file.add("times", {**describe_case(case), "provider": name, **describe_failure(error)})
    for pass_ in passes:
        calls = {name: rounds_of(held, pass_) for name, held in bounds.items()}
        times = time_in_turns(calls, session.stopwatch, session.effort)
        for name, seconds in times.items():
            run = getattr(bounds[name][0], pass_)
            peak = peak_bytes(run, session.device) if pass_ != "backward" else None
            record = describe_time(case, session.providers[name], pass_, seconds, use, session.ceilings)
            session.file.add("times", {**record, "peak_bytes": peak, "errors": errors[name]})
    if session.device.type == "cuda":
        del bounds, problems
        gc.collect()
        torch.cuda.empty_cache()


def bind(provider: Provider, problems: Sequence[Problem], gradients: bool) -> tuple[list[Bound], dict[str, float]]:
    """The provider, bound to each problem, and its errors on the first one.

    Raises:
        WrongResult: as :func:`~benchmarks.kernels.correctness.check`.
    """
    bounds = [provider.ops[problem.case.op](problem) for problem in problems]
    return bounds, check(provider, bounds[0], problems[0], gradients=gradients)


def rounds_of(bounds: Sequence[Bound], pass_: str) -> Any:
    """A function that makes the call of a round: inputs rotate, and a graph is built before the clock starts."""

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
    case: Case, provider: Provider, pass_: str, seconds: Sequence[float], use: dict[str, int], ceilings: Ceilings | None
) -> dict[str, Any]:
    """Percentiles of the times, the roofline of the pass and the share of it that the median reaches."""
    roofline = roofline_of(case, pass_, use["touched"] if provider.sparse_rows else case.shape.slots)
    record = {
        **describe_case(case),
        "provider": provider.name,
        "pass": pass_,
        "status": "ok",
        **percentiles(seconds),
        "rounds": len(seconds),
        **use,
        "bytes": roofline.bytes,
        "operations": roofline.operations,
    }
    if ceilings is not None:
        rate = ceilings.operations_per_s[case.dtype]
        record["share"] = round(roofline.seconds(ceilings.bytes_per_s, rate) * 1e3 / record["p50_ms"], 4)
    return record


def describe_failure(error: Exception) -> dict[str, str]:
    """Status and reason of a measurement that failed."""
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
    """Number of entries and touched slots of the problem, and uses of the hottest slot."""
    case = problem.case
    slots = problem.slots
    if slots is None:
        with torch.no_grad():
            slots = all_providers()["lmn"].ops["router"](problem).run()[1]
    _, uses = slots.flatten().unique(return_counts=True)
    return {"entries": case.shape.B * case.shape.bag, "touched": uses.numel(), "hottest": int(uses.max())}


def _why_skipped(session: Session, provider: Provider, case: Case) -> str | None:
    if provider.name not in session.provider_names:
        return "not in --providers"
    if case.op not in provider.ops:
        return f"it has no {case.op}"
    if provider.absent:
        return provider.absent
    if provider.compiled and session.left() < COMPILE_SECONDS:
        return "no time left to compile"
    return None
