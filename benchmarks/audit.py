"""Count what the kernels cost in machine code, for GPUs that need not be here.

``python -m benchmarks.audit --case lmn_1m:bf16 --target sm_90 --kernel NAME --lines`` prints the instructions that one
thread issues, loops weighted by their trips, by machine loop and by source line. How they are weighted: ``weights.py``.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from . import scalar_sass
from .breakdown import format_breakdown
from .launches import collect_launches
from .loops import Program
from .offline import AUDIT_CASES, TARGETS, compile_launch, parse_case
from .weights import Declarations, weigh


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the weighted instructions; see the head of this module. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.audit", description=__doc__.split("\n\n")[0])
    parser.add_argument("--case", action="append", metavar="SHAPE:DTYPE[:METRIC[:ACTIVATION]]", help="may repeat")
    parser.add_argument("--target", action="append", choices=list(TARGETS), help="may repeat; default: all")
    parser.add_argument("--kernel", action="append", help="only kernels whose name holds this; may repeat")
    parser.add_argument("--lines", action="store_true", help="print loops and source lines")
    options = parser.parse_args(arguments)
    declared = tomllib.loads(Path(__file__).with_name("budgets.toml").read_text())
    declarations = Declarations(declared.get("trips", {}), declared.get("rare", {}))
    with tempfile.TemporaryDirectory() as cache:
        os.environ["TRITON_CACHE_DIR"] = cache
        for target in options.target or ("sm_90",):
            for case in options.case or AUDIT_CASES:
                seen = set()
                for launch in collect_launches(*parse_case(case)):
                    name = launch.kernel.__name__
                    if options.kernel and not any(part in name for part in options.kernel):
                        continue
                    compiled = compile_launch(launch, target)
                    if compiled.key in seen:
                        continue
                    seen.add(compiled.key)
                    constants = dict(zip(launch.kernel.arg_names, launch.args, strict=False)) | dict(launch.meta)
                    program = Program(compiled.instructions, scalar_sass)
                    weights = weigh(program, name, target, constants, declarations)
                    total = sum(weights.of)
                    programs = math.prod(launch.grid)
                    print(
                        f"{case} {target} {name}: {total:.0f} weighted instructions x {compiled.threads} threads x "
                        f"{programs} programs = {total * compiled.threads * programs:.4g}; {compiled.registers} "
                        f"registers, {compiled.spill_bytes} bytes spilled ({compiled.config})"
                    )
                    if options.lines:
                        print(format_breakdown(compiled.instructions, weights))
    return 0


if __name__ == "__main__":
    sys.exit(main())
