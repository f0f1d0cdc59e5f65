"""The timing suite at tiny shapes: providers, checks, clocks and files. The times themselves mean nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.kernels import cpu
from benchmarks.kernels.correctness import WrongResult, check, row_error
from benchmarks.kernels.peak_memory import peak_bytes
from benchmarks.kernels.problems import OPS, SLOTS, Case, make_problems, zipf
from benchmarks.kernels.provider import Bound
from benchmarks.kernels.providers import all_providers
from benchmarks.kernels.roofline import Roofline, roofline_of
from benchmarks.kernels.sanitize import run as sanitize
from benchmarks.kernels.shapes import NAMED, SHAPES, Shape, on_cpu, tiny
from benchmarks.kernels.suite import cases
from benchmarks.kernels.timing import Effort, Stopwatch, percentiles, time_in_turns
from benchmarks.result_files import ROOT, load
from lmn_kernels import gather_aggregate

TINY = Shape("tiny", B=24, H=2, C=8, N=20, K=6, D=12)
UNCOMPILED = [name for name, provider in all_providers().items() if not provider.compiled]


def problem_and_bound(provider: str, op: str, dtype: str = "fp32", slots: str = "uniform") -> Any:
    problem = make_problems(Case(op, TINY, dtype, slots), 1)[0]
    return problem, all_providers()[provider].ops[op](problem)


@pytest.mark.parametrize("slots", SLOTS)
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("name", UNCOMPILED)
def test_every_provider_computes_the_same(name: str, dtype: str, slots: str) -> None:
    provider = all_providers()[name]
    if provider.absent:
        pytest.skip(provider.absent)
    for op in provider.ops:
        problem = make_problems(Case(op, TINY, dtype, slots), 1)[0]
        expected = {"output", *(f"grad_{tensor}" for tensor in problem.tensors)}
        try:
            errors = check(provider, provider.ops[op](problem), problem)
        except NotImplementedError as error:
            assert (name, dtype) == ("fbgemm", "bf16"), error  # noqa: PT017
            return
        assert set(errors) == expected
        assert max(errors.values()) < (1e-5 if dtype == "fp32" else 0.1)


@pytest.mark.slow
def test_the_compiled_provider_computes_the_same() -> None:
    problem, bound = problem_and_bound("compile", "layer")
    assert max(check(all_providers()["compile"], bound, problem).values()) < 1e-5


def test_the_bound_shares_the_table() -> None:
    for name in ("lmn", "torch", "pkm"):
        if not all_providers()[name].absent:
            problem, bound = problem_and_bound(name, "layer")
            assert bound.leaves["values"].data_ptr() == problem.tensors["values"].data_ptr()


class TestCheckIsRed:
    """A wrong provider gets no figure: each way of being wrong is found."""

    def reject(self, op: str, change: Callable[[Bound], Bound], match: str) -> None:
        problem, bound = problem_and_bound("torch", op)
        with pytest.raises(WrongResult, match=match):
            check(all_providers()["torch"], change(bound), problem)

    def test_one_wrong_row_of_the_output(self) -> None:
        def change(bound: Bound) -> Bound:
            def run() -> tuple[torch.Tensor, torch.Tensor | None]:
                output, slots = bound.run()
                return output * torch.where(torch.arange(24) == 7, 1.01, 1.0)[:, None], slots

            return replace(bound, run=run)

        self.reject("bag", change, "torch: output of bag tiny")

    @pytest.mark.parametrize("name", ["queries", "keys", "values"])
    def test_a_wrong_gradient(self, name: str) -> None:
        def change(bound: Bound) -> Bound:
            return replace(bound, restore=lambda found: {**found, name: found[name] * 1.01})

        self.reject("layer", change, f"torch: grad_{name} of layer")

    def test_a_gradient_without_a_value(self) -> None:
        self.reject("bag", lambda b: replace(b, restore=lambda f: {**f, "weights": f["weights"] * torch.nan}), "inf")

    def test_a_gradient_of_an_untouched_slot(self) -> None:
        self.reject("bag", lambda b: replace(b, restore=lambda f: {**f, "values": f["values"] + 1e-2}), "grad_values")

    def test_slots_that_are_not_the_best(self) -> None:
        def change(bound: Bound) -> Bound:
            return replace(bound, run=lambda: (bound.run()[0], (bound.run()[1] + 1) % 400))

        self.reject("router", change, "are not among the 6 best")

    def test_slots_that_repeat(self) -> None:
        def change(bound: Bound) -> Bound:
            return replace(bound, run=lambda: (bound.run()[0], bound.run()[1][..., :1].expand(-1, -1, 6)))

        self.reject("router", change, "must differ")


def test_row_error_is_that_of_the_worst_row() -> None:
    truth = torch.tensor([[3.0, 4.0], [0.0, 0.0]], dtype=torch.float64)
    assert row_error(truth, truth) == 0
    assert row_error(truth + torch.tensor([[0.0, 0.5], [0.0, 0.0]]), truth) == pytest.approx(0.1)
    # A row shorter than the root mean square, here 5 / sqrt(2), is measured by that.
    assert row_error(truth + torch.tensor([[0.0, 0.0], [0.0, 0.5]]), truth) == pytest.approx(0.1 * 2**0.5)
    assert row_error(truth * torch.nan, truth) == float("inf")


def test_zipf_follows_its_law_and_repeats_slots() -> None:
    generator = torch.Generator().manual_seed(0)
    ranks = zipf(200_000, 1000, generator, exponent=1.0)
    counts = ranks.bincount(minlength=1000)
    harmonic = sum(1 / rank for rank in range(1, 1001))
    for rank in (1, 2, 10):
        assert int(counts[rank - 1]) / 200_000 == pytest.approx(1 / rank / harmonic, rel=0.05)
    assert int(ranks.max()) < 1000
    shape = replace(TINY, B=256, N=64)
    for op in ("router", "bag"):
        hottest = {}
        for slots in SLOTS:
            problem = make_problems(Case(op, shape, "fp32", slots), 1)[0]
            chosen = problem.slots if op == "bag" else all_providers()["lmn"].ops[op](problem).run()[1]
            hottest[slots] = int(chosen.unique(return_counts=True)[1].max())
        assert hottest["zipf"] > 3 * hottest["uniform"]


@pytest.mark.parametrize(("field", "value"), [("op", "gather"), ("dtype", "int8"), ("slots", "normal")])
def test_an_unknown_case_is_named(field: str, value: str) -> None:
    with pytest.raises(ValueError, match=f"make_problems: {field} must be one of .*, got '{value}'"):
        make_problems(replace(Case("bag", TINY), **{field: value}), 1)


def test_problems_of_a_case_share_parameters_alone() -> None:
    first, second = make_problems(Case("layer", TINY), 2)
    assert first.tensors["values"] is second.tensors["values"]
    assert not torch.equal(first.tensors["queries"], second.tensors["queries"])
    again = make_problems(Case("layer", TINY), 1)[0]
    assert torch.equal(first.tensors["queries"], again.tensors["queries"])


def test_rooflines_are_those_of_the_arithmetic() -> None:
    shape = SHAPES["lmn_1m"]
    bag, router, layer = (Case(op, shape, "bf16") for op in ("bag", "router", "layer"))
    E, row = 65536 * 32, 256
    assert roofline_of(router, "forward", 0).operations == 4 * 65536 * 1024 * 64  # 17 GFLOP
    assert roofline_of(bag, "forward", 0).bytes == E * row + E * 10 + 65536 * row  # 537 MB of rows
    assert roofline_of(bag, "backward", 1000).bytes == E * row + E * 12 + 1000 * row
    assert roofline_of(layer, "forward", 0).bytes == sum(
        (E * row + E * 12 + 65536 * row, 2 * 64 * 2 * (65536 + 1024) + 12 * E)
    )
    both = roofline_of(layer, "both", 7)
    assert both == roofline_of(layer, "forward", 7) + roofline_of(layer, "backward", 7)
    assert Roofline(100, 10).seconds(50.0, 1.0) == 10
    with pytest.raises(ValueError, match="pass_ must be one of"):
        roofline_of(bag, "backwards", 0)


def test_percentiles() -> None:
    assert percentiles([n / 1000 for n in range(11)]) == {"p20_ms": 2.0, "p50_ms": 5.0, "p80_ms": 8.0}
    with pytest.raises(ValueError, match="at least one time"):
        percentiles([])


def test_calls_take_turns_as_long_as_their_budget_lasts() -> None:
    order: list[str] = []

    def make(name: str) -> Callable[[int], Callable[[], None]]:
        return lambda turn: lambda: order.append(name)

    times = time_in_turns({"a": make("a"), "b": make("b")}, Stopwatch("cpu"), Effort(0.0, 0.0, 3, 5))
    assert {name: len(each) for name, each in times.items()} == {"a": 3, "b": 3}
    assert order[2:] == ["a", "b", "b", "a", "a", "b"]  # after one warm-up each; the order rotates
    times = time_in_turns({"a": make("a")}, Stopwatch("cpu"), Effort(0.0, 60.0, 3, 5))
    assert len(times["a"]) == 5


def test_peak_memory_counts_what_lives_at_once() -> None:
    def call() -> torch.Tensor:
        first = torch.zeros(1000, 1000)
        second = torch.zeros(500, 1000)
        del first
        return second + 1

    objects = 10_000  # Python's own are counted with NumPy's arrays
    assert peak_bytes(call, "cpu") == pytest.approx(6_000_000, abs=objects)
    assert peak_bytes(lambda: torch.zeros(250, 1000), "cpu") == pytest.approx(1_000_000, abs=objects)
    assert peak_bytes(lambda: torch.from_numpy(np.zeros(250_000)), "cpu") == pytest.approx(2_000_000, abs=objects)
    values, slots = torch.zeros(20_000, 64, requires_grad=True), torch.arange(20_000).view(-1, 2)

    def gradient() -> torch.Tensor:
        out = gather_aggregate(values, slots, torch.ones(10_000, 2), sparse_grad=True, backend="torch")
        return torch.autograd.grad(out.sum(), values)[0]

    first = peak_bytes(gradient, "cpu")
    assert first > values.nbytes
    assert peak_bytes(gradient, "cpu") == pytest.approx(first, rel=0.01)  # also where memory of the first is kept


def test_cpu_shapes_have_fewer_queries() -> None:
    assert (on_cpu(SHAPES["heads_1m"]).B, on_cpu(SHAPES["lmn_1m"]).B, on_cpu(SHAPES["serve_1"]).B) == (256, 1024, 1)
    for name in NAMED:
        small = tiny(SHAPES[name])
        assert small.K <= small.N
        assert small.slots * small.D < 20_000


def test_a_plain_run_of_the_suite_leaves_the_large_tables_out() -> None:
    taken = {op: {case.shape.name for case, _, _, default in cases(op) if default} for op in OPS}
    assert taken == {
        "router": {"ctr_64k", "lmn_1m"},
        "bag": {"ctr_64k", "lmn_1m"},
        "layer": {"ctr_64k", "lmn_1m", "serve_1", "serve_256"},
    }
    assert {case.shape.name for op in OPS for case, _, _, _ in cases(op)} == set(NAMED)


@pytest.mark.slow
def test_the_suite_checks_times_and_writes(tmp_path: Path) -> None:
    path = tmp_path / "suite.json"
    command = [
        sys.executable,
        "-m",
        "pytest",
        "benchmarks/kernels/bench_ops.py",
        "-q",
        "-k",
        "layer-serve_1-fp32-uniform-forward-torch",
    ]
    # pytest-benchmark times nothing where it thinks that it is a worker of xdist.
    alone = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST")}
    done = subprocess.run(
        [*command, "--results", str(path)], cwd=ROOT, env=alone, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    data = load(path)
    assert data["complete"]
    assert [row["provider"] for row in data["times"]] == ["torch", "torch_sparse"]
    assert all(row["rounds"] >= 5 and row["p20_ms"] <= row["p50_ms"] <= row["p80_ms"] for row in data["times"])
    assert all(row["errors"]["output"] < 1e-5 and row["peak_bytes"] > 0 for row in data["times"])


def test_a_rehearsal_of_the_cpu_targets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cpu.main(["--out", str(tmp_path / "cpu.json"), "--rehearse", "--threads", "1"]) == 0
    data = load(tmp_path / "cpu.json")
    assert {row["sweep"] for row in data["times"] if "sweep" in row} == {"N", "B", "K"}
    printed = capsys.readouterr().out
    assert "layer forward, times faster than plain torch" in printed
    assert "gpu" not in printed


def test_the_sanitized_shapes_are_right() -> None:
    assert sanitize("cpu", [Shape("small", B=9, H=2, C=6, N=12, K=5, D=7)]) == 30


def test_the_command_of_make_bench_is_accepted(tmp_path: Path) -> None:
    line = next(each for each in (ROOT / "Makefile").read_text().splitlines() if "--results" in each)
    words = line.replace("$(or $(OUT),runs/bench)", str(tmp_path)).split()[1:]  # without the Python
    run = subprocess.run([sys.executable, *words, "--collect-only", "-q"], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "bench_ops.py::test_op[router-" in run.stdout


@pytest.mark.slow
def test_a_plain_run_of_the_suite_takes_the_default_cases_alone() -> None:
    def collected(*options: str) -> set[str]:
        command = [
            sys.executable,
            "-m",
            "pytest",
            "benchmarks/kernels",
            "--collect-only",
            "-q",
            "-p",
            "no:cacheprovider",
        ]
        run = subprocess.run([*command, *options], cwd=ROOT, capture_output=True, text=True, check=True)
        return {line for line in run.stdout.splitlines() if "::" in line}

    default: set[str] = set()
    more: set[str] = set()
    for op in OPS:
        for case, pass_, provider, plain in cases(op):
            name = f"test_op[{op}-{case.shape.name}-{case.dtype}-{case.slots}-{pass_}-{provider}]"
            (default if plain else more).add(name)
    assert {line.partition("::")[2] for line in collected()} == default
    assert {line.partition("::")[2] for line in collected("-m", "more")} == more
