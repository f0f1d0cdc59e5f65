"""What every test runs under: a seed, poisoned ``torch.empty``, and kernels that run on a GPU or in the interpreter."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:  # as many workers as cores, so one thread each, also in what they start
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from hardware import GPU, TRITON

os.environ["TORCHINDUCTOR_AUTOGRAD_CACHE"] = "0"  # its key has no backward formula of an op: stale after a change
if GPU:
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # or cuBLAS has no deterministic mode
else:
    os.environ["TRITON_INTERPRET"] = "1"  # before the first import of Triton, which reads it there
    if TRITON:
        from fast_interpreter import install

        install()


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell starts jobs in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a GPU where there is none."""
    for item in items:
        if not GPU and item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a GPU"))


@pytest.fixture(autouse=True)
def _seeded_and_poisoned() -> Iterator[None]:
    """Seed torch and fill fresh memory with NaN, or the largest integer, so that an unwritten output shows."""
    torch.manual_seed(0)
    deterministic, warn_only = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)


@pytest.fixture(scope="session")
def device() -> torch.device:
    """Where the kernels run: the GPU, or the CPU through the interpreter."""
    return torch.device("cuda", 0) if GPU else torch.device("cpu")


@pytest.fixture(params=["torch", "triton"])
def backend(request: pytest.FixtureRequest) -> str:
    """Each backend in turn."""
    if request.param == "triton" and not TRITON:
        pytest.skip("Triton is not installed")
    return str(request.param)
