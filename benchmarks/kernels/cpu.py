"""The CPU targets in one run: ``python -m benchmarks.kernels.cpu --out FILE``, about three minutes on two idle cores.

The whole read, forward and with its gradients, at B = 8,192: this library and the other providers in turns, with peak
memory; time and memory from 2^16 to 2^24 slots; and the deterministic mode with every entry on three slots. The ratios
are printed; the report reads the file.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.kernels.ceilings import measure_ceilings
from benchmarks.kernels.determinism import measure_determinism
from benchmarks.kernels.measure import Session, measure_case
from benchmarks.kernels.problems import Case
from benchmarks.kernels.providers import all_providers
from benchmarks.kernels.shapes import CPU_8K, Shape, tiny
from benchmarks.kernels.timing import Effort, Stopwatch, torch_threads
from benchmarks.result_files import ResultFile, load
from benchmarks.targets import format_targets, judge_targets

SCALING = Shape("scaling", B=2048, H=1, C=64, N=1024, K=32, D=64)
SCALING_N = (256, 512, 1024, 2048, 4096)
SCALING_B = (256, 1024, 4096)
SCALING_K = (8, 16, 32, 64)
PROVIDERS = ("lmn", "torch")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print the targets. Returns the exit status: 1 if a target is missed or could not be judged."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kernels.cpu", description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="result file to write")
    parser.add_argument("--threads", type=int, default=2, help="torch threads; default 2, as the targets say")
    parser.add_argument("--rehearse", action="store_true", help="tiny shapes and few rounds: the figures mean nothing")
    options = parser.parse_args(arguments)
    with (
        torch_threads(options.threads),
        ResultFile(options.out, "cpu", "cpu", rehearsal=options.rehearse) as file,
    ):
        _run(file, options.rehearse)
    judged = judge_targets([load(options.out)], "cpu")
    print(format_targets(judged))
    return 0 if options.rehearse else int(any(target.met is not True for target in judged))


def _run(file: ResultFile, rehearse: bool) -> None:
    def size(shape: Shape) -> Shape:
        return tiny(shape) if rehearse else shape

    effort = Effort(0.0, 0.0, 2, 2) if rehearse else Effort(warmup_s=0.5, budget_s=6.0, min_rounds=7, max_rounds=30)
    session = Session(file, Stopwatch("cpu"), effort, provider_names=tuple(all_providers()))
    session.ceilings = measure_ceilings(session.stopwatch, effort, scale=64 if rehearse else 1)
    file.add("ceilings", session.ceilings.as_record())
    measure_case(session, Case("layer", size(CPU_8K)), (*PROVIDERS, "torch_sparse", "pkm"), ("forward", "both"))
    measure_determinism(session, Case("bag", size(CPU_8K)))
    session.effort = effort if rehearse else Effort(warmup_s=0.0, budget_s=1.5, min_rounds=3, max_rounds=20)
    for letter, values in (("N", SCALING_N), ("B", SCALING_B), ("K", SCALING_K)):
        for value in values:
            shape = replace(SCALING, **{letter: value})
            if rehearse:
                shape = replace(tiny(shape), **{letter: max(8, value // 64)})
            measure_case(session, Case("layer", shape, sweep=letter), PROVIDERS, ("forward", "both"))


if __name__ == "__main__":
    sys.exit(main())
