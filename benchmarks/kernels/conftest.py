"""Options of the timing suite: where its records go, and which cases a plain run takes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from benchmarks.kernels.suite import DEVICE, Bench
from benchmarks.result_files import ResultFile

CPU_THREADS = 2


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--results FILE``."""
    parser.addoption("--results", type=Path, metavar="FILE", help="write the records of the benchmarks to FILE")


def pytest_configure(config: pytest.Config) -> None:
    """Name the marker of what a plain run leaves out."""
    config.addinivalue_line("markers", "more: a benchmark that runs only if -k, -m more or its id asks for it")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what a plain run has no time for."""
    # The project's own options hold a -m, so only one that names the marker asks for more.
    if config.option.keyword or "more" in config.option.markexpr or any("::" in argument for argument in config.args):
        return
    left_out = [item for item in items if item.get_closest_marker("more")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not item.get_closest_marker("more")]


@pytest.fixture(scope="session")
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """What checks and times; its records go to ``--results``."""
    before = torch.get_num_threads()
    torch.set_num_threads(CPU_THREADS)
    path = request.config.getoption("results")
    if path is None:
        yield Bench(None)
    else:
        with ResultFile(path, "suite", DEVICE) as file:
            yield Bench(file)
    torch.set_num_threads(before)
