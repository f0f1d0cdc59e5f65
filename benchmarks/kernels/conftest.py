"""Options of the timing suite: the file of its records, and the cases of a plain run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from benchmarks.kernels.suite import DEVICE, Bench
from benchmarks.kernels.timing import torch_threads
from benchmarks.result_files import ResultFile

CPU_THREADS = 2


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--results FILE``."""
    parser.addoption("--results", type=Path, metavar="FILE", help="write the records of the benchmarks to FILE")


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker of what a plain run skips."""
    config.addinivalue_line("markers", "more: a benchmark that runs only if -k, -m more or its id selects it")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what a plain run has no time for."""
    # The project's own options contain a -m, so only one that names the marker selects more.
    if config.option.keyword or "more" in config.option.markexpr or any("::" in argument for argument in config.args):
        return
    skipped = [item for item in items if item.get_closest_marker("more")]
    if skipped:
        config.hook.pytest_deselected(items=skipped)
        items[:] = [item for item in items if not item.get_closest_marker("more")]


@pytest.fixture(scope="session")
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """Checks and times the cases; its records go to ``--results``."""
    path = request.config.getoption("results")
    with torch_threads(CPU_THREADS), ResultFile(path, "suite", DEVICE) if path else nullcontext() as file:
        yield Bench(file)
