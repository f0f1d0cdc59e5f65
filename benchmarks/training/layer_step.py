"""A training step of the layer over the size of its memory: ``python -m benchmarks.training.layer_step --out FILE``.

A step is forward, backward and update of keys and values, with gradients cleared. This library takes sparse rows and an
optimiser that updates those; the sides to compare with are plain torch with a dense gradient and AdamW, as published
layers train (as torch makes it, and fused), and plain torch with sparse rows and SparseAdam. All sides have the table
of values in huge pages. Beside each size the router alone is timed, forward and backward, since its work grows with the
root of the slots by design and the rest should not; so is the counting of the reads of a few steps
(``lmn_model.modules.usage``), which a step does not hold: given is the time for one. One process of its own trains
three steps and reports its peak of resident memory.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.kernels.peak_memory import peak_resident_bytes
from benchmarks.kernels.problems import Case, Problem, make_problems
from benchmarks.kernels.providers import torch_layer
from benchmarks.kernels.shapes import Shape, tiny
from benchmarks.kernels.timing import Call, Effort, Stopwatch, percentiles, time_in_turns
from benchmarks.report.data import bars, format_bars, load
from benchmarks.result_files import ResultFile
from lmn_kernels import memory_lookup, product_key_topk
from lmn_kernels.optim import RowAdagrad, RowAdam

STEP = Shape("training", B=4096, H=1, C=64, N=1024, K=32, D=64)
SIZES = {1024: ("row_adagrad", "row_adam", "torch", "torch_fused", "torch_sparse"), 4096: ("row_adagrad", "row_adam")}
SETS = 3
UPDATES = 3  # before the peak is read
LEARNING_RATE = 1e-3

Optimizers = Callable[[Tensor], torch.optim.Optimizer]
SIDES: dict[str, tuple[str, Optimizers]] = {
    "row_adagrad": ("this library, RowAdagrad", partial(RowAdagrad, lr=LEARNING_RATE)),
    "row_adam": ("this library, RowAdam", partial(RowAdam, lr=LEARNING_RATE)),
    "torch": ("plain torch, dense gradient, AdamW", partial(torch.optim.AdamW, lr=LEARNING_RATE)),
    "torch_fused": (
        "plain torch, dense gradient, AdamW(fused=True)",
        partial(torch.optim.AdamW, lr=LEARNING_RATE, fused=True),
    ),
    "torch_sparse": ("plain torch, sparse rows, SparseAdam", partial(torch.optim.SparseAdam, lr=LEARNING_RATE)),
}


class Trainer:
    """One side: its keys and values, their optimisers, and a step."""

    def __init__(self, side: str, problem: Problem) -> None:
        self.side = side
        self.k = problem.case.shape.K
        self.keys = nn.Parameter(problem.tensors["keys"].clone())
        self.values = nn.Parameter(problem.tensors["values"])
        self.optimizers = [
            torch.optim.AdamW([self.keys], lr=LEARNING_RATE, fused=True),
            SIDES[side][1]([self.values]),  # type: ignore[arg-type]
        ]

    def step(self, problem: Problem) -> None:
        """Forward, backward, update."""
        queries = problem.tensors["queries"].detach().requires_grad_()
        if self.side.startswith("row"):
            output = memory_lookup(queries, self.keys, self.values, self.k, sparse_grad=True).output
        else:
            output, _ = torch_layer(queries, self.keys, self.values, self.k, sparse=self.side == "torch_sparse")
        output.backward(problem.grad)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)


def route(problem: Problem) -> None:
    """The router alone, forward and backward."""
    queries, keys = (problem.tensors[name].detach().requires_grad_() for name in ("queries", "keys"))
    scores, _ = product_key_topk(queries, keys, problem.case.shape.K)
    torch.autograd.grad(scores, (queries, keys), torch.ones_like(scores))


def peak_resident(side: str, shape: Shape, threads: int) -> int:
    """Bytes that a fresh process holds at most over a few steps, the interpreter and torch included."""
    with get_context("spawn").Pool(1) as pool:
        return pool.apply(_train_and_measure, (side, shape, threads))


def _train_and_measure(side: str, shape: Shape, threads: int) -> int:
    torch.set_num_threads(threads)
    problem = make_problems(Case("layer", shape), 1)[0]
    trainer = Trainer(side, problem)
    for _ in range(UPDATES):
        trainer.step(problem)
    return peak_resident_bytes()


def state_bytes(trainer: Trainer) -> int:
    """Bytes of the values and of their optimiser's state."""
    state = trainer.optimizers[1].state[trainer.values]
    return trainer.values.nbytes + sum(tensor.nbytes for tensor in state.values() if isinstance(tensor, Tensor))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; see the head of this module. Returns the exit status: 1 if a bar is missed or could not be judged."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.training.layer_step", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="result file to write")
    parser.add_argument("--threads", type=int, default=2, help="torch threads; default 2, as the bars say")
    parser.add_argument("--rehearse", action="store_true", help="tiny shapes and few rounds: the figures mean nothing")
    options = parser.parse_args(arguments)
    before = torch.get_num_threads()
    torch.set_num_threads(options.threads)
    try:
        with ResultFile(options.out, "training", "cpu", rehearsal=options.rehearse) as file:
            for N, sides in SIZES.items():
                shape = replace(STEP, N=N)
                _measure(file, tiny(shape) if options.rehearse else shape, sides, options)
    finally:
        torch.set_num_threads(before)
    judged = [bar for bar in bars([load(options.out)]) if bar.kind == "training"]
    print(format_bars(judged))
    return 0 if options.rehearse else int(any(bar.met is not True for bar in judged))


def _measure(file: ResultFile, shape: Shape, sides: Sequence[str], options: argparse.Namespace) -> None:
    from lmn_model.modules.usage import MAX_PENDING, MemoryUsage  # not in the processes whose memory is measured

    effort = Effort(0.0, 0.0, 2, 2) if options.rehearse else Effort(1.0, 6.0, 7, 40)
    for side in sides:
        # One side at a time holds its table and state: they are gigabytes each.
        problems = make_problems(Case("layer", shape), SETS)
        trainer = Trainer(side, problems[0])

        def step(turn: int, trainer: Trainer = trainer, problems: list[Problem] = problems) -> Call:
            return lambda: trainer.step(problems[turn % SETS])

        def router(turn: int, problems: list[Problem] = problems) -> Call:
            return lambda: route(problems[turn % SETS])

        usage = MemoryUsage(shape.N, by_sub_key=False)  # as training counts unless it reseeds
        reads = [
            product_key_topk(problem.tensors["queries"], problem.tensors["keys"], shape.K)[1] for problem in problems
        ]

        def count_some(turn: int, usage: Any = usage, problems: list[Problem] = problems, reads: Any = reads) -> Call:
            def call() -> None:
                for each in range(turn, turn + MAX_PENDING):
                    usage.record(reads[each % SETS], problems[each % SETS].tensors["queries"])

            return call

        calls = {"step": step, "router": router, "usage": count_some}
        if not side.startswith("row"):
            del calls["usage"]
        times = time_in_turns(calls, Stopwatch("cpu"), effort)
        held = state_bytes(trainer)
        del trainer, problems, step, router, count_some, calls, usage
        record = {"side": side, "note": SIDES[side][0], "shape": asdict(shape), "state_bytes": held}
        if "usage" in times:
            times["usage"] = [seconds / MAX_PENDING for seconds in times["usage"]]
        for what, seconds in times.items():
            file.add("steps", {**record, "what": what, **percentiles(seconds), "rounds": len(seconds)})
        file.add("peaks", {**record, "peak_bytes": peak_resident(side, shape, options.threads)})
        print(f"{side}, {shape.slots:,} slots: {percentiles(times['step'])['p50_ms']:.0f} ms a step", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
