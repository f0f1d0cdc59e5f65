"""Write the generated sections of docs/performance.md, from the committed result files and nothing else.

``python -m benchmarks.report`` reads ``benchmarks/results/*.json``, at most one file of each kind, writes each section
between its markers ``<!-- report: NAME -->`` and ``<!-- /report -->``, and the plots into docs/results. Where no file
has a figure, the section says that it is not measured. A test compares the page to the files.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.report.audit_tables import audit_tables
from benchmarks.report.gpu_tables import gpu_training_table, profile_table, replay_table
from benchmarks.report.plots import draw_plots, plots_of
from benchmarks.report.tables import (
    large_table,
    machine_table,
    roofline_table,
    skipped_list,
    target_table,
    training_table,
)
from benchmarks.report.time_tables import scaling_table, time_tables
from benchmarks.result_files import RESULTS, ROOT, load
from benchmarks.targets import Files

PAGE = ROOT / "docs" / "performance.md"
PLOTS = ROOT / "docs" / "results"
NOT_MEASURED = "Not measured yet: there is no result file for it."
MARKED = re.compile(r"(<!-- report: ([a-z_]+) -->\n)(.*?)(<!-- /report -->)", re.DOTALL)


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
    """``page`` with every marked section rendered again.

    Raises:
        ValueError: a section is unknown or missing.
    """
    found = [name for _, name, _, _ in MARKED.findall(page)]
    if sorted(found) != sorted(SECTIONS):
        raise ValueError(f"the page must have the sections {', '.join(SECTIONS)}, each once; got {', '.join(found)}")
    return MARKED.sub(lambda match: f"{match[1]}{SECTIONS[match[2]](files) or NOT_MEASURED}\n{match[4]}", page)


def with_plots(kind: str, section: Callable[[Files, str], str], group: str) -> Callable[[Files], str]:
    """A section, followed by its kind's plots of a group."""

    def made(files: Files) -> str:
        text = section(files, kind)
        images = [f"![{plot.title}](results/{plot.name})" for plot in plots_of(files, kind) if plot.group == group]
        return "\n\n".join([text, *images]) if text else ""

    return made


SECTIONS: dict[str, Callable[[Files], str]] = {
    "machines": machine_table,
    "roofline": roofline_table,
    "cpu_targets": lambda files: target_table(files, "cpu"),
    "cpu_scaling": with_plots("cpu", scaling_table, "scaling"),
    "cpu_times": with_plots("suite", time_tables, "times"),
    "training": lambda files: "\n\n".join(filter(None, (target_table(files, "training"), training_table(files)))),
    "large_tables": large_table,
    "gpu_targets": lambda files: target_table(files, "gpu"),
    "gpu_times": with_plots("gpu", time_tables, "times"),
    "gpu_replay": replay_table,
    "gpu_training": gpu_training_table,
    "gpu_scaling": with_plots("gpu", scaling_table, "scaling"),
    "gpu_profile": profile_table,
    "audit": audit_tables,
    "skipped": skipped_list,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page and the plots. Returns the exit status."""
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
