"""A training step of the layer over the size of its memory: ``python -m benchmarks.training.layer_step --out FILE``.

A step is forward, backward and update of keys and values, with gradients cleared. This library takes sparse rows and an
optimiser that updates those. It is compared to plain torch with a dense gradient and AdamW, as published layers train
(as torch makes it, and fused), and to plain torch with sparse rows and SparseAdam. All providers have the table of
values in huge pages. Beside each size the router alone is timed, forward and backward, since its work grows with the
root of the slots by design and the rest should not. So is the counting of reads (``lmn_model.modules.usage``), which a
step does not include: the time of one step's reads. A separate process trains three steps and reports its peak of
resident memory.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.kernels.peak_memory import peak_resident_bytes
from benchmarks.kernels.plain_torch import torch_layer
from benchmarks.kernels.problems import Case, Problem, make_problems
from benchmarks.kernels.shapes import Shape, tiny
from benchmarks.kernels.timing import Call, Effort, Stopwatch, percentiles, time_in_turns, torch_threads
from benchmarks.processes import in_fresh_process
from benchmarks.result_files import ResultFile, load
from benchmarks.targets import format_targets, judge_targets
from lmn_kernels import memory_lookup, product_key_topk
from lmn_kernels.optim import RowAdagrad, RowAdam

STEP = Shape("training", B=4096, H=1, C=64, N=1024, K=32, D=64)
SIZES = {1024: ("row_adagrad", "row_adam", "torch", "torch_fused", "torch_sparse"), 4096: ("row_adagrad", "row_adam")}
SETS = 3
UPDATES = 3  # before the peak is read
LEARNING_RATE = 1e-3

Optimizers = Callable[[Tensor], torch.optim.Optimizer]
PROVIDERS: dict[str, tuple[str, Optimizers]] = {
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
    """The keys and values of one provider, their optimisers, and a step."""

    def __init__(self, provider: str, problem: Problem) -> None:
        self.provider = provider
        self.k = problem.case.shape.K
        self.keys = nn.Parameter(problem.tensors["keys"].clone())
        self.values = nn.Parameter(problem.tensors["values"])
        self.optimizers = [
            torch.optim.AdamW([self.keys], lr=LEARNING_RATE, fused=True),
            PROVIDERS[provider][1]([self.values]),  # type: ignore[arg-type]
        ]

    def step(self, problem: Problem) -> None:
        """Forward, backward, update."""
        queries = problem.tensors["queries"].detach().requires_grad_()
        if self.provider.startswith("row"):
            output = memory_lookup(queries, self.keys, self.values, self.k, sparse_grad=True).output
        else:
            output, _ = torch_layer(queries, self.keys, self.values, self.k, sparse=self.provider == "torch_sparse")
        output.backward(problem.grad)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)


def route(problem: Problem) -> None:
    """The router alone, forward and backward."""
    queries, keys = (problem.tensors[name].detach().requires_grad_() for name in ("queries", "keys"))
    scores, _ = product_key_topk(queries, keys, problem.case.shape.K)
    torch.autograd.grad(scores, (queries, keys), torch.ones_like(scores))


def peak_resident(provider: str, shape: Shape, threads: int) -> int:
    """Peak of resident bytes of a fresh process over a few steps, the interpreter and torch included."""
    return in_fresh_process(_train_and_measure, provider, shape, threads)


def _train_and_measure(provider: str, shape: Shape, threads: int) -> int:
    torch.set_num_threads(threads)
    problem = make_problems(Case("layer", shape), 1)[0]
    trainer = Trainer(provider, problem)
    for _ in range(UPDATES):
        trainer.step(problem)
    return peak_resident_bytes()


def state_bytes(trainer: Trainer) -> int:
    """Bytes of the values and of their optimiser's state."""
    state = trainer.optimizers[1].state[trainer.values]
    return trainer.values.nbytes + sum(tensor.nbytes for tensor in state.values() if isinstance(tensor, Tensor))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print the targets. Returns the exit status: 1 if a target is missed or could not be judged."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.training.layer_step", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="result file to write")
    parser.add_argument("--threads", type=int, default=2, help="torch threads; default 2, as the targets say")
    parser.add_argument("--rehearse", action="store_true", help="tiny shapes and few rounds: the figures mean nothing")
    options = parser.parse_args(arguments)
    with (
        torch_threads(options.threads),
        ResultFile(options.out, "training", "cpu", rehearsal=options.rehearse) as file,
    ):
        for N, providers in SIZES.items():
            shape = replace(STEP, N=N)
            for provider in providers:
                _measure(file, tiny(shape) if options.rehearse else shape, provider, options)
    judged = judge_targets([load(options.out)], "training")
    print(format_targets(judged))
    return 0 if options.rehearse else int(any(target.met is not True for target in judged))


def _measure(file: ResultFile, shape: Shape, provider: str, options: argparse.Namespace) -> None:
    effort = Effort(0.0, 0.0, 2, 2) if options.rehearse else Effort(1.0, 6.0, 7, 40)
    times, held = _time(shape, provider, effort)  # it frees table and state, which are gigabytes
    record = {"provider": provider, "note": PROVIDERS[provider][0], "shape": asdict(shape), "state_bytes": held}
    for what, seconds in times.items():
        file.add("steps", {**record, "what": what, **percentiles(seconds), "rounds": len(seconds)})
    file.add("peaks", {**record, "peak_bytes": peak_resident(provider, shape, options.threads)})
    step_ms = percentiles(times["step"])["p50_ms"]
    print(f"{provider}, {shape.slots:,} slots: {step_ms:.0f} ms a step", file=sys.stderr)


def _time(shape: Shape, provider: str, effort: Effort) -> tuple[dict[str, list[float]], int]:
    """Seconds of a step, of its router and of counting its reads, and the bytes of the table and its state."""
    # Imported here, not in the processes whose memory is measured.
    from lmn_model.modules.usage import MAX_PENDING as PENDING
    from lmn_model.modules.usage import MemoryUsage

    problems = make_problems(Case("layer", shape), SETS)
    trainer = Trainer(provider, problems[0])
    calls: dict[str, Callable[[int], Call]] = {
        "step": lambda turn: lambda: trainer.step(problems[turn % SETS]),
        "router": lambda turn: lambda: route(problems[turn % SETS]),
    }
    if provider.startswith("row"):
        usage = MemoryUsage(shape.N, by_sub_key=False)  # as training counts unless it reseeds
        queries = [problem.tensors["queries"] for problem in problems]
        reads = [product_key_topk(queries[i], problems[i].tensors["keys"], shape.K)[1] for i in range(SETS)]

        def count_reads(turn: int) -> None:
            for each in range(turn, turn + PENDING):
                usage.record(reads[each % SETS], queries[each % SETS])

        calls["usage"] = lambda turn: lambda: count_reads(turn)
    times = time_in_turns(calls, Stopwatch("cpu"), effort)
    if "usage" in times:
        times["usage"] = [seconds / PENDING for seconds in times["usage"]]
    return times, state_bytes(trainer)


if __name__ == "__main__":
    sys.exit(main())
