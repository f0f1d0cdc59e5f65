"""Profile ``lmn train``: ``python -m benchmarks.training.profile --out FILE``, three minutes.

Each model is trained by the code of ``lmn train`` for some steps in the middle of its epoch, on one thread. Hooks
around functions of the library time them exclusively: a function that calls a hooked one does not count it. A second
thread makes batches while a step runs; the share of a step is the time that it waits for them, and the time to make
them stands beside it. Evaluation and checkpoint come once an epoch; their share is that of a whole epoch. A second,
shorter run under torch's profiler gives the share of the ops of ``lmn_kernels`` and the slowest operators.

Without ``--rows`` the rows are synthetic, of the shape of Complete Journey's: 400,000 samples of 2,466 users whose
histories have 570 events, drawn from 28,165 items of 292 categories by a power law.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.kernels.timing import torch_threads
from benchmarks.result_files import ResultFile
from benchmarks.training.operators import profile_operators, train_timed
from benchmarks.training.step_clock import EPOCH, STEP, Clock
from benchmarks.training.synthetic_rows import write_synthetic_rows
from lmn_model.data import Dataset
from lmn_model.data.splits import Split
from lmn_model.training import schedule
from lmn_model.training.build import open_dataset
from lmn_model.training.settings import Settings

MODELS: dict[str, dict[str, Any]] = {
    "DIN 50": {"window": "din", "window_size": 50, "memory": "none"},
    "LMN without a window": {"window": "none", "window_size": 1},
    "LMN + DIN 50": {"window": "din", "window_size": 50},
    "LMN + DIN 50 (joint query)": {"window": "din", "window_size": 50, "memory": "joint"},
}
ROWS = {"users": 2466, "items": 28165, "categories": 291, "events": 570, "rows": 400_000}
TINY_ROWS = {"users": 30, "items": 200, "categories": 9, "events": 60, "rows": 2000}
PROFILED_STEPS = 20


@dataclass(frozen=True)
class Effort:
    """How much is measured: steps of the warm-up, timed steps, rows of a step."""

    warm_up: int
    steps: int
    batch_size: int


def middle(dataset: Dataset, rows: int) -> Dataset:
    """The data with ``rows`` of the training split, from its middle; earlier rows count as seen, as they are there."""
    total = len(dataset.train)
    first = max(0, (total - rows) // 2)
    split = _rows_of(dataset.train, first, min(total, first + rows))
    return replace(dataset, train=split.following(_rows_of(dataset.train, 0, first)))


def _rows_of(split: Split, first: int, stop: int) -> Split:
    names = ("users", "items", "events", "history_ends", "labels", "timestamps")
    return replace(split, **{name: getattr(split, name)[first:stop] for name in names})


def profile_model(name: str, base: Settings, effort: Effort) -> dict[str, Any]:
    """The record of one model: shares of a step and of an epoch, milliseconds, samples/s and slowest operators."""
    settings = base.override({**MODELS[name], "epochs": 1, "batch_size": effort.batch_size, "device": "cpu"})
    dataset = open_dataset(settings.data)
    epoch_steps = -(-len(dataset.train) // effort.batch_size)
    clock = Clock(effort.warm_up)
    train_timed(settings, middle(dataset, effort.batch_size * (effort.warm_up + effort.steps)), clock)
    step_seconds = {part: clock.seconds.get(part, 0.0) / clock.steps for part in STEP}
    epoch_seconds = {part: clock.seconds.get(part, 0.0) for part in EPOCH}
    step = (clock.wall - sum(epoch_seconds.values())) / clock.steps
    # Fewer steps than an epoch's have as many points of the curve, and the warm-up took some of them.
    epoch_seconds["curve"] *= schedule.CURVE_POINTS / max(1, clock.calls["curve"])
    epoch = step * epoch_steps + sum(epoch_seconds.values())
    profiled_steps = effort.warm_up + min(effort.steps, PROFILED_STEPS)
    return {
        "model": name,
        "steps": clock.steps,
        "epoch_steps": epoch_steps,
        "step_ms": 1e3 * step,
        "samples_per_second": effort.batch_size / step,
        "epoch_seconds": epoch,
        "parts_ms": {part: 1e3 * seconds for part, seconds in step_seconds.items()},
        "shares_of_step": {part: seconds / step for part, seconds in step_seconds.items()},
        "once_an_epoch_seconds": epoch_seconds,
        "shares_of_epoch": {part: seconds / epoch for part, seconds in epoch_seconds.items()},
        "batch_made_beside_ms": 1e3 * clock.made_seconds / clock.steps,
        **profile_operators(settings, middle(dataset, effort.batch_size * profiled_steps), effort.warm_up),
    }


def main(arguments: list[str] | None = None) -> int:
    """Profile the models. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training.profile", description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="result file to write")
    parser.add_argument("--rows", type=Path, metavar="DIR", help="prepared rows; synthetic ones if not given")
    parser.add_argument("--threads", type=int, default=1, help="torch threads; default 1")
    parser.add_argument("--steps", type=int, default=100, help="timed steps; default 100")
    parser.add_argument("--warm-up", type=int, default=10, help="steps before them; default 10")
    parser.add_argument("--only", nargs="*", choices=tuple(MODELS), metavar="NAME", help="models, all if not given")
    parser.add_argument("--rehearse", action="store_true", help="tiny rows and memories: the figures mean nothing")
    options = parser.parse_args(arguments)
    with (
        torch_threads(options.threads),
        ResultFile(options.out, "train_profile", "cpu", rehearsal=options.rehearse) as file,
        tempfile.TemporaryDirectory() as folder,
    ):
        file.data["rows"] = "synthetic" if options.rows is None else "given"
        if options.rows is None:
            write_synthetic_rows(Path(folder), **(TINY_ROWS if options.rehearse else ROWS))
        base = Settings().override(
            {
                "dataset": "rows",
                "path": os.path.abspath(options.rows or folder),
                "threads": options.threads,
                **({"sub_keys": 16, "top_k": 1} if options.rehearse else {"sub_keys": 1024}),
            }
        )
        effort = Effort(options.warm_up, options.steps, 64 if options.rehearse else 1024)
        for name in options.only or MODELS:
            record = profile_model(name, base, effort)
            file.add("models", record)
            print(f"{name}: {record['samples_per_second']:,.0f} samples/s", file=sys.stderr)
    print("\n".join(table(file.data["models"])))
    return 0


def table(records: list[dict[str, Any]]) -> Iterator[str]:
    """Lines of a Markdown table, a model a column."""

    def line(what: str, values: Iterator[str]) -> str:
        return f"| {' | '.join((what, *values))} |"

    yield line("share of a step", (record["model"] for record in records))
    yield line("---", ("---" for _ in records))
    for part, what in STEP.items():
        yield line(what, (f"{record['shares_of_step'][part]:.1%}" for record in records))
    yield line("in ops of `lmn_kernels`", (f"{record['share_of_kernel_ops']:.1%}" for record in records))
    yield line("ms a step", (f"{record['step_ms']:.1f}" for record in records))
    yield line("a batch is made beside, ms", (f"{record['batch_made_beside_ms']:.1f}" for record in records))
    yield line("samples/s in training", (f"{record['samples_per_second']:,.0f}" for record in records))
    for part, what in EPOCH.items():
        values = (
            f"{record['once_an_epoch_seconds'][part]:.2f} s, {record['shares_of_epoch'][part]:.1%}"
            for record in records
        )
        yield line(f"once an epoch: {what}", values)


if __name__ == "__main__":
    sys.exit(main())
