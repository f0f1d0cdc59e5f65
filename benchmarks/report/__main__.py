"""The generated parts of docs/performance.md, from the committed result files and nothing else.

``python -m benchmarks.report`` reads ``benchmarks/results/*.json``, at most one file of each kind (``cpu``, ``suite``,
``training``, ``gpu``, ``audit``), writes each section between its markers ``<!-- report: NAME -->`` and
``<!-- /report -->``, and the plots into docs/results. What no file holds is called not measured. A test holds the page
to the files.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.report.plots import draw_plots, plots_of
from benchmarks.report.tables import (
    audit_tables,
    floor_table,
    gpu_training_table,
    large_table,
    machine_table,
    profile_table,
    replay_table,
    scaling_table,
    skipped_list,
    table,
    time_tables,
    training_table,
)
from benchmarks.result_files import RESULTS, ROOT
from benchmarks.targets import Bar, bars, load

PAGE = ROOT / "docs" / "performance.md"
PLOTS = ROOT / "docs" / "results"
NOT_MEASURED = "Not measured yet: there is no result file for it."
MARKED = re.compile(r"(<!-- report: ([a-z_]+) -->\n)(.*?)(<!-- /report -->)", re.DOTALL)

Files = Sequence[dict[str, Any]]


def read_results(folder: Path = RESULTS) -> list[dict[str, Any]]:
    """The committed result files.

    Raises:
        ValueError: one is a rehearsal or of an unknown format, or two are of one kind.
    """
    files = []
    for path in sorted(folder.glob("*.json")):
        data = load(path)
        if data.get("rehearsal"):
            raise ValueError(f"{path.name} is a rehearsal at tiny shapes; its figures mean nothing")
        if any(other["kind"] == data["kind"] for other in files):
            raise ValueError(f"{path.name}: there is another file of kind {data['kind']!r}; keep one")
        files.append({**data, "file": path.name})
    return files


def render(page: str, files: Files) -> str:
    """``page`` with every marked section made anew.

    Raises:
        ValueError: a section is unknown or is not there.
    """
    found = [name for _, name, _, _ in MARKED.findall(page)]
    if sorted(found) != sorted(SECTIONS):
        raise ValueError(f"the page must have the sections {', '.join(SECTIONS)}, each once; got {', '.join(found)}")
    return MARKED.sub(lambda match: f"{match[1]}{SECTIONS[match[2]](files) or NOT_MEASURED}\n{match[4]}", page)


def bar_table(files: Files, kind: str) -> str:
    """Bars of a kind of machine."""
    if not any(data["kind"] == kind for data in files):
        return ""
    words = {True: "met", False: "**missed**", None: "not measured"}

    def row(bar: Bar) -> tuple[str, ...]:
        return bar.what, bar.bound, "" if bar.value is None else f"{bar.value:.3g}", words[bar.met]

    return table(("what", "bar", "measured", ""), [row(bar) for bar in bars(files) if bar.kind == kind])


def with_plots(kind: str, section: Callable[[Files, str], str], group: str) -> Callable[[Files], str]:
    """A section, followed by its kind's plots of a group."""

    def made(files: Files) -> str:
        text = section(files, kind)
        images = [f"![{plot.title}](results/{plot.name})" for plot in plots_of(files, kind) if plot.group == group]
        return "\n\n".join([text, *images]) if text else ""

    return made


SECTIONS: dict[str, Callable[[Files], str]] = {
    "machines": machine_table,
    "floors": floor_table,
    "cpu_bars": lambda files: bar_table(files, "cpu"),
    "cpu_scaling": with_plots("cpu", scaling_table, "scaling"),
    "cpu_times": with_plots("suite", time_tables, "times"),
    "training": lambda files: "\n\n".join(filter(None, (bar_table(files, "training"), training_table(files)))),
    "large_tables": large_table,
    "gpu_bars": lambda files: bar_table(files, "gpu"),
    "gpu_times": with_plots("gpu", time_tables, "times"),
    "gpu_replay": replay_table,
    "gpu_training": gpu_training_table,
    "gpu_scaling": with_plots("gpu", scaling_table, "scaling"),
    "gpu_profile": profile_table,
    "audit": audit_tables,
    "skipped": skipped_list,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page and the plots; see the head of this module. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__.split("\n\n")[0])
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="DIR", help="folder of the result files")
    parser.add_argument("--page", type=Path, default=PAGE, metavar="FILE", help="page with the marked sections")
    parser.add_argument("--plots", type=Path, default=PLOTS, metavar="DIR", help="folder for the plots")
    options = parser.parse_args(arguments)
    try:
        files = read_results(options.results)
        text = render(options.page.read_text(encoding="utf-8"), files)
    except ValueError as error:
        parser.error(str(error))
    options.page.write_text(text, encoding="utf-8")
    for path in draw_plots(files, options.plots):
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
