"""What a run ran on: versions, machine, commit and peak memory, for the record beside its results."""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

CODE = (":(top,glob)**/*.py", ":(top)pyproject.toml")
"""What decides a result, as git pathspecs."""
PACKAGES = ("lmn-kernels", "torch", "triton", "numpy", "polars", "safetensors")


def describe_environment(device: torch.device) -> dict[str, Any]:
    """Versions of Python and the packages, device, CPU threads, and the git commit of this code if it is a checkout."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES},
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {os.cpu_count()} cores",
        "threads": torch.get_num_threads(),
        "git": _git_commit(),
    }


def peak_memory_mib(device: torch.device) -> dict[str, float]:
    """Largest resident size of the process so far, and on CUDA the largest allocation on the device, in MiB."""
    # getrusage counts KiB on Linux and bytes on macOS.
    unit = 1 if sys.platform == "darwin" else 1024
    peak = {"resident": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20, 1)}
    if device.type == "cuda":
        peak["device"] = round(torch.cuda.max_memory_allocated(device) / 2**20, 1)
    return peak


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git_commit() -> str | None:
    """The commit, with "-dirty" if tracked code differs; None for an installed package, wherever it is installed.

    Result files and pages may differ: a study writes them while it runs.
    """
    here = Path(__file__).resolve()

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", str(here.parent), *arguments], capture_output=True, text=True)
        except FileNotFoundError:
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    # A virtual environment inside somebody's repository must not borrow that repository's commit.
    if git("ls-files", "--error-unmatch", here.name) is None:
        return None
    commit = git("rev-parse", "HEAD")
    clean = git("diff", "--quiet", "HEAD", "--", *CODE) is not None
    return commit if commit is None or clean else f"{commit}-dirty"
