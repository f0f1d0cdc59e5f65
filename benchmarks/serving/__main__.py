"""Measure the latency that a memory adds in serving: ``python -m benchmarks.serving``, up to ten minutes, 6 GiB.

Times the scoring of 1 to 512 candidates of one user by the CTR model with and without a memory, and over the size of
the memory: p50 and p99 of single calls. A call is ``model(batch)`` in inference mode on a batch that is ready on the
device; looking up features, making the batch and the network are excluded. The batch is that of ``lmn predict``, with
the user's window beside every candidate. On a GPU the clock stops when the device has finished.

Sizes are those of Complete Journey. Every call has another user, other items and other events, drawn at random, so that
no cache holds its memory rows because of the call before. All values of a memory are filled with random numbers first:
pages that were never written are one page of zeros, which would flatter a large memory. Models take turns in blocks of
calls, so that a machine that slows down slows all of them.

``--draw`` draws the picture of a result file and measures nothing.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.kernels.timing import torch_threads
from benchmarks.result_files import RESULTS, ROOT, ResultFile, load
from benchmarks.serving.figure import ENOUGH, SECTIONS, draw, tables
from benchmarks.serving.measure import QUICK, Effort, described, measure
from lmn_model.training.build import choose_device
from lmn_model.training.settings import SettingsError


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, or draw a result file. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__.split("\n\n")[0])
    committed, shown = RESULTS / "serving.json", ROOT / "docs" / "results" / "serving.png"
    parser.add_argument("--out", type=Path, metavar="FILE", help="result file; benchmarks/results/serving.json")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="of --draw; docs/results/serving.png")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N; default auto")
    parser.add_argument("--threads", type=int, default=1, help="torch threads; default 1")
    parser.add_argument("--quick", action="store_true", help="few calls, small memories: the figures mean nothing")
    parser.add_argument("--draw", action="store_true", help="draw the result file instead of measuring")
    options = parser.parse_args(arguments)
    if options.threads < 1:
        parser.error(f"--threads must be at least 1, got {options.threads}")
    if options.quick and not options.out and not options.draw:
        parser.error("--quick is a rehearsal and needs --out, since benchmarks/results holds measurements")
    out = options.out or committed
    for flag, path in (("--picture", options.picture or shown),) if options.draw else (("--out", out),):
        if path.is_dir() or not path.parent.is_dir():
            parser.error(f"{flag} must be a file in a folder that is there, got {path}")
    if options.draw:
        draw(_drawable(parser, out, options.picture), options.picture or shown)
        print(options.picture or shown)
        return 0
    try:
        device = choose_device(options.device)
    except SettingsError as error:
        parser.error(f"--device: {error}")
    effort = QUICK if options.quick else Effort()
    with (
        torch_threads(options.threads),
        ResultFile(out, "serving", device, rehearsal=options.quick, settings=described(effort)) as file,
    ):
        file.data["device"], file.data["threads"] = str(device), options.threads
        for section, record in measure(device, effort):
            file.add(section, record)
            few = "" if record["calls"] >= ENOUGH or options.quick else f", only {record['calls']} calls"
            about = f"{record['model']}, {section}, {record['candidates']} candidates, slots {record['slots']}"
            print(f"{about}: {record['p50_ms']:.3g} / {record['p99_ms']:.3g} ms{few}", file=sys.stderr)
    print(tables(file.data))
    return 0


def _drawable(parser: argparse.ArgumentParser, path: Path, picture: Path | None) -> dict[str, Any]:
    """The result file at ``path``, or an error of the parser where it cannot be drawn."""
    try:
        data = load(path)
    except (OSError, ValueError) as error:
        parser.error(f"--draw: {path} cannot be read: {error}")
    if data["kind"] != "serving":
        parser.error(f"--draw: {path} must be a result file of kind 'serving', got {data['kind']!r}")
    if not any(data.get(section) for section in SECTIONS):
        parser.error(f"--draw: {path} holds no points")
    if data.get("rehearsal") and picture is None:
        parser.error("--draw: the file is of a rehearsal and needs --picture, since docs/results shows measurements")
    return data


if __name__ == "__main__":
    sys.exit(main())
