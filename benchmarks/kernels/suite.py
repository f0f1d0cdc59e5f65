"""The cases of the pytest-benchmark suite, and how one provider of a case is checked and timed.

``python -m pytest benchmarks/kernels`` times the default cases, on the GPU if there is one and on the CPU, with fewer
queries, if not; ``-k`` reaches the rest (``-k lmn_16m``, ``-k "bag and zipf"``). pytest-benchmark times one test after
another, so the providers of a case follow one another; targets are judged by ``benchmarks.kernels.cpu`` and
``benchmarks.gpu``, where they take turns.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
import torch

from benchmarks.kernels.measure import bind, describe_case, describe_failure, describe_time, rounds_of, slot_use
from benchmarks.kernels.peak_memory import peak_bytes
from benchmarks.kernels.problems import SLOTS, Case, make_problems
from benchmarks.kernels.provider import Bound
from benchmarks.kernels.providers import all_providers
from benchmarks.kernels.shapes import NAMED, SHAPES, on_cpu
from benchmarks.kernels.timing import Stopwatch
from benchmarks.result_files import ResultFile

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPES = ("fp32", "bf16")
PASSES = ("forward", "backward", "both")
SECONDS = 0.7
ROUNDS = (5, 60)
SETS = 3


def cases(op: str) -> Iterator[tuple[Case, str, str, bool]]:
    """Every case of an op with each pass and provider, providers innermost, and whether a plain run takes it."""
    for name, dtype, slots in itertools.product(NAMED, DTYPES, SLOTS):
        shape = SHAPES[name] if DEVICE == "cuda" else on_cpu(SHAPES[name])
        case = Case(op, shape, dtype, slots)
        serve = name.startswith("serve")
        for pass_ in ("forward",) if serve else PASSES:
            for provider in all_providers().values():
                if op in provider.ops:
                    yield case, pass_, provider.name, _by_default(case, provider.compiled)


def _by_default(case: Case, compiled: bool) -> bool:
    name, plain = case.shape.name, case.dtype == "fp32" and case.slots == "uniform"
    if compiled:
        return plain and case.op == "layer" and name == "lmn_1m"
    if name.startswith("serve"):
        return plain and case.op == "layer"
    if name == "ctr_64k":
        return case.slots == "uniform"
    return name == "lmn_1m" and (case.dtype == "fp32" or case.slots == "uniform")


class Bench:
    """Checks and times providers; stores the problems of one case at a time."""

    def __init__(self, file: ResultFile | None) -> None:
        self.file = file
        self.stopwatch = Stopwatch(DEVICE)
        self._case: Case | None = None

    def run(self, benchmark: object, case: Case, pass_: str, name: str) -> None:
        """Time a provider of a case under pytest-benchmark.

        Raises:
            WrongResult: the provider is wrong; there is no figure then.
        """
        provider = all_providers()[name]
        if provider.absent:
            self._skip(f"{name}: {case}", provider.absent)
        if case != self._case:
            self._open(case)
        if name not in self._bounds:
            try:
                gradients = not case.shape.name.startswith("serve")
                self._bounds[name], self._errors[name] = bind(provider, self._problems, gradients)
            except NotImplementedError as error:
                self._skip(f"{name}: {case}", str(error))
            except Exception as error:
                self._add({**describe_case(case), "provider": name, **describe_failure(error)})
                raise
        seconds = self._time(benchmark, self._bounds[name], pass_)
        record = describe_time(case, provider, pass_, seconds, self._use, None)
        if pass_ != "backward":
            record["peak_bytes"] = peak_bytes(getattr(self._bounds[name][0], pass_), DEVICE)
        benchmark.extra_info.update(record)
        self._add({**record, "errors": self._errors[name]})

    def _time(self, benchmark: object, bounds: list[Bound], pass_: str) -> list[float]:
        make = rounds_of(bounds, pass_)
        turns = itertools.count()

        def setup() -> tuple[tuple[object], dict[str, object]]:
            call = make(next(turns))
            self.stopwatch.cool()
            return (call,), {}

        def target(call: object) -> object:
            result = call()
            if DEVICE == "cuda":
                torch.cuda.synchronize()
            return result

        for _ in range(2):
            once = self.stopwatch.seconds(make(next(turns)))
        rounds = min(ROUNDS[1], max(ROUNDS[0], int(SECONDS / once)))
        benchmark.pedantic(target, setup=setup, rounds=rounds, iterations=1, warmup_rounds=1)
        return list(benchmark.stats.stats.data)

    def _open(self, case: Case) -> None:
        self._bounds: dict[str, list[Bound]] = {}
        self._problems = []
        torch._dynamo.reset()
        self._case, self._problems = case, make_problems(case, SETS, DEVICE)
        self._errors: dict[str, dict[str, float]] = {}
        self._use = slot_use(self._problems[0])

    def _add(self, record: dict[str, object]) -> None:
        if self.file is not None:
            self.file.add("times", record)

    def _skip(self, what: str, why: str) -> None:
        if self.file is not None:
            self.file.skip(what, why)
        pytest.skip(why)
