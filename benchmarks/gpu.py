"""Everything on one GPU: ``python3 -m benchmarks.gpu --out DIR``, at most eight minutes on an H200.

It uses the installed torch, triton and matplotlib and installs nothing. It measures the machine's ceilings, then the
cases in the order of their weight, each checked against float64 before it is timed, until the time is up; the file
lists what was skipped. The report reads ``DIR/gpu.json``; ``profile.txt`` and, with Nsight Compute,
``ncu.txt`` show the slowest kernel. ``--dry-run`` rehearses all of it at tiny shapes, on a CPU too.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch

from benchmarks.kernels.ceilings import measure_ceilings
from benchmarks.kernels.determinism import measure_determinism
from benchmarks.kernels.graphs import check_captured_step, measure_replay
from benchmarks.kernels.measure import Session, describe_failure, measure_case
from benchmarks.kernels.problems import Case
from benchmarks.kernels.profiling import profile_counters, profile_kernels
from benchmarks.kernels.providers import all_providers
from benchmarks.kernels.shapes import SHAPES, Shape, tiny
from benchmarks.kernels.timing import Effort, Stopwatch
from benchmarks.result_files import ResultFile, load
from benchmarks.targets import format_targets, judge_targets
from benchmarks.training.gpu_step import STEP, SUB_KEYS, measure_training

BUDGET_S = 450.0
EFFORT = Effort(warmup_s=0.1, budget_s=0.4, min_rounds=10, max_rounds=100)
REHEARSAL = Effort(warmup_s=0.0, budget_s=0.0, min_rounds=2, max_rounds=2)
SWEEPS = {"N": (256, 512, 1024, 2048, 4096), "B": (1024, 4096, 16384, 65536), "K": (8, 16, 32, 64, 128)}
SWEPT = replace(SHAPES["lmn_1m"], name="scaling", D=64)


class Item(NamedTuple):
    """One measurement: its label, the seconds that must be left for it, and the function that runs it."""

    label: str
    need_s: float
    run: Callable[[Session], None]


def plan(folder: Path, size: Callable[[Shape], Shape] = lambda shape: shape) -> Iterator[Item]:
    """All items, those of the targets first, some twice; ``size`` shrinks the shapes for a rehearsal."""

    def case(
        op: str, name: str, dtype: str, slots: str, providers: Sequence[str], passes: Sequence[str], need: float
    ) -> Item:
        made = Case(op, size(SHAPES[name]), dtype, slots)
        return Item(str(made), need, lambda session: measure_case(session, made, providers, passes))

    router = ("lmn", "torch", "compile")
    bag = ("lmn", "lmn_dense", "torch", "torch_sparse", "fbgemm")
    layer = ("lmn", "lmn_dense", "torch", "torch_sparse", "pkm", "compile")
    all_passes = ("forward", "backward", "both")
    main = size(SHAPES["lmn_1m"])

    def profiled(session: Session) -> None:
        at = Case("layer", main, "bf16")
        slowest = profile_kernels(session, at, folder)
        if slowest:
            profile_counters(session, at, slowest, folder, timeout_s=min(90.0, max(10.0, session.left())))

    yield case("layer", "lmn_1m", "bf16", "uniform", ("lmn", "torch", "compile"), ("forward", "both"), 30)
    yield case("router", "lmn_1m", "bf16", "uniform", router, ("forward", "both"), 20)
    for name in ("lmn_1m", "wide_1m"):
        yield case("bag", name, "bf16", "uniform", bag, all_passes, 20)
    for name in ("serve_256", "serve_1"):
        served = Case("layer", size(SHAPES[name]), "bf16")
        yield Item(f"replay of {served}", 15, lambda session, at=served: measure_replay(session, at, ("lmn", "torch")))
    for dtype in ("fp32", "bf16"):
        step = Case("layer", size(SHAPES["ctr_64k"]), dtype)
        yield Item(f"captured step of {step}", 10, lambda session, at=step: check_captured_step(session, at))
    for N in SUB_KEYS:
        trained = size(replace(STEP, N=N))
        yield Item(
            f"training step with {trained.slots:,} slots",
            15,
            lambda session, at=trained: measure_training(session, at),
        )
    hot = Case("bag", main, "bf16")
    yield Item(f"determinism of {hot}", 15, lambda session: measure_determinism(session, hot))
    yield case("layer", "lmn_1m", "fp32", "uniform", layer, all_passes, 40)
    yield Item("profile of the slowest kernel", 30, profiled)
    yield case("router", "lmn_1m", "fp32", "uniform", ("lmn", "torch"), all_passes, 15)
    for op, providers in (("bag", bag), ("layer", layer[:4]), ("router", ("lmn", "torch"))):
        yield case(op, "lmn_1m", "bf16", "zipf", providers, all_passes, 15)
    yield case("bag", "lmn_1m", "fp32", "uniform", bag, all_passes, 15)
    for letter, values in SWEEPS.items():
        for value in values:
            swept = size(replace(SWEPT, **{letter: value}))
            at = Case("layer", swept, "bf16", sweep=letter)
            yield Item(
                f"scaling with {letter}: {at}",
                8,
                lambda session, at=at: measure_case(session, at, ("lmn", "torch"), ("forward", "both")),
            )
    for dtype in ("bf16", "fp32"):
        for name in ("ctr_64k", "heads_1m", "lmn_16m", "wide_1m"):
            yield case("layer", name, dtype, "uniform", ("lmn", "torch"), all_passes, 12)
            yield case("router", name, dtype, "uniform", ("lmn", "torch"), all_passes, 10)
            yield case("bag", name, dtype, "uniform", ("lmn", "lmn_dense", "torch"), all_passes, 12)
    for op in ("bag", "layer", "router"):
        yield case(op, "lmn_1m", "fp32", "zipf", ("lmn", "torch"), all_passes, 10)
        for name in ("ctr_64k", "heads_1m", "lmn_16m", "wide_1m"):
            yield case(op, name, "bf16", "zipf", ("lmn", "torch"), all_passes, 10)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure everything. Returns the exit status: 1 if this library was wrong or failed anywhere."""
    started = time.monotonic()
    parser = argparse.ArgumentParser(prog="python3 -m benchmarks.gpu", description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the result files")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"), help="cpu only with --dry-run")
    parser.add_argument("--dry-run", action="store_true", help="tiny shapes and few rounds: the figures mean nothing")
    parser.add_argument("--budget", type=float, default=BUDGET_S, metavar="S", help="seconds for everything")
    parser.add_argument(
        "--commit", help="commit of this code, where it is a copy without its git; `source` in the file is its digest"
    )
    parser.add_argument("--only", action="append", metavar="TEXT", help="only items with it in the label; may repeat")
    parser.add_argument("--providers", default=",".join(all_providers()), help="only these providers, comma-separated")
    options = parser.parse_args(arguments)
    unknown = set(options.providers.split(",")) - set(all_providers())
    if unknown:
        parser.error(f"--providers must be of {', '.join(all_providers())}; got {', '.join(sorted(unknown))}")
    if options.device == "cpu" and not options.dry_run:
        parser.error(
            "--device cpu is for rehearsals (--dry-run); CPU figures come from python -m benchmarks.kernels.cpu"
        )
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("there is no GPU that torch can use; --device cpu --dry-run rehearses the run without one")
    if options.device == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # or cuBLAS has no deterministic mode
    path = options.out / "gpu.json"
    with ResultFile(path, "gpu", options.device, rehearsal=options.dry_run) as file:
        if options.commit:
            file.data["environment"] |= {"commit": options.commit, "dirty": None}  # a copy may lie in another git
        effort = REHEARSAL if options.dry_run else EFFORT
        session = Session(
            file, Stopwatch(options.device), effort, None, started + options.budget, options.providers.split(",")
        )
        items = plan(options.out, tiny) if options.dry_run else plan(options.out)
        _run(session, items, options.only or ("",), started, options.dry_run)
    data = load(path)
    print(format_targets(judge_targets([data], "gpu")))
    print(f"copy {path} to benchmarks/results/ and run python -m benchmarks.report")
    own = [row for name in ("times", "replay", "capture", "training", "determinism") for row in data.get(name, ())]
    bad = [row for row in own if row["status"] != "ok" and row.get("provider", "lmn").startswith("lmn")]
    bad += data.get("failed", [])
    for row in bad:
        print(f"{row['status']}: {row}")
    return int(bool(bad))


def _run(session: Session, items: Iterator[Item], only: Sequence[str], started: float, dry_run: bool) -> None:
    session.ceilings = measure_ceilings(session.stopwatch, session.effort, scale=64 if dry_run else 1)
    session.file.add("ceilings", session.ceilings.as_record())
    done: set[str] = set()
    for item in items:
        if item.label in done:
            continue
        done.add(item.label)
        if not any(text in item.label for text in only):
            session.file.skip(item.label, "not in --only")
            continue
        if session.left() < item.need_s and not dry_run:
            session.file.skip(item.label, f"{session.left():.0f} s were left of the time, {item.need_s:.0f} needed")
            continue
        print(f"{time.monotonic() - started:6.1f} s  {item.label}", flush=True)
        try:
            item.run(session)
        except Exception as error:  # a failure must not lose the items after it
            session.file.add("failed", {"what": item.label, **describe_failure(error)})


if __name__ == "__main__":
    sys.exit(main())
