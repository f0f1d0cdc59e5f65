"""The deterministic mode at its worst case: all entries of a bag on three slots.

Values and weights get their gradients 20 times under ``torch.use_deterministic_algorithms``; every run must give the
same bits. Its time is set against the fast mode's, in turns. Torch's own debugging aid of that mode, which fills fresh
memory with NaN, is off: it would time the filling.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch

from benchmarks.kernels.measure import Session, describe_case, describe_failure
from benchmarks.kernels.problems import Case, make_problems
from benchmarks.kernels.provider import Bound
from benchmarks.kernels.timing import Call, percentiles, time_in_turns

RUNS = 20


def measure_determinism(session: Session, case: Case, providers: tuple[str, ...] = ("lmn", "lmn_dense")) -> None:
    """Add a record to ``determinism`` for each provider: how many of 20 runs differ, and both modes' times."""
    problem = make_problems(case, 1, session.device)[0]
    problem = replace(problem, slots=problem.slots % 3 * (case.shape.slots // 3))
    for provider in providers:
        record = {**describe_case(case), "provider": provider, "runs": RUNS, "hot_slots": 3}
        try:
            record |= _compare(session, session.providers[provider].ops[case.op](problem))
        except Exception as error:  # a failure must not lose the figures of other providers
            record |= describe_failure(error)
        session.file.add("determinism", record)


def _compare(session: Session, bound: Bound) -> dict[str, object]:
    with deterministic():
        first = [_dense(each) for each in bound.both()]
        differing = sum(
            not all(torch.equal(one, _dense(other)) for one, other in zip(first, bound.both(), strict=True))
            for _ in range(RUNS - 1)
        )

    def in_mode(mode: bool) -> Call:
        def call() -> object:
            with deterministic(mode):
                return bound.both()

        return call

    calls = {"deterministic": lambda _: in_mode(True), "fast": lambda _: in_mode(False)}
    times = {name: percentiles(each) for name, each in time_in_turns(calls, session.stopwatch, session.effort).items()}
    ratio = times["deterministic"]["p50_ms"] / times["fast"]["p50_ms"]
    return {"status": "ok", "differing": differing, "ratio": round(ratio, 4), **times}


@contextmanager
def deterministic(mode: bool = True) -> Iterator[None]:
    """Torch's deterministic mode on or off inside, and afterwards what it was before."""
    before = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    fill = torch.utils.deterministic.fill_uninitialized_memory
    torch.utils.deterministic.fill_uninitialized_memory = False
    torch.use_deterministic_algorithms(mode)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warn_only)
        torch.utils.deterministic.fill_uninitialized_memory = fill


def _dense(tensor: torch.Tensor) -> torch.Tensor:
    """All rows of a gradient as they are; a sparse one by its indices and values."""
    if tensor.layout == torch.sparse_coo:
        rows = tensor.coalesce()
        return torch.cat([rows.indices().T.double(), rows.values().double()], dim=1)
    return tensor.detach()
