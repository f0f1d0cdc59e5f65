"""Result files: JSON with the measurements, the machine and the version of the code, rewritten after every record.

A run that is interrupted leaves all that it had measured, with ``"complete": false``.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PACKAGES = ("torch", "triton", "numpy", "product-key-memory", "fbgemm-gpu", "fbgemm-gpu-cpu")
FORMAT = 2
FORMAT_1_KEYS = {"side": "provider", "limits": "ceilings", "most_warps": "max_warps"}  # a former name
FORMAT_1_SHAPES = {"cpu_bar": "cpu_8k"}


class ResultFile:
    """A result file that is being written.

    Args:
        path: of the file; its folder is made.
        kind: names the benchmark for the report: ``"cpu"``, ``"suite"``, ``"training"``, ``"large_tables"``,
            ``"serving"``, ``"fuxictr"``, ``"train_profile"``, ``"default_sizes"``, ``"gpu"`` or ``"audit"``.
        device: where the measurements run.
        **about: further top-level fields.
    """

    def __init__(self, path: Path, kind: str, device: torch.device | str, **about: Any) -> None:
        self.path = path
        self.data: dict[str, Any] = {
            "format": FORMAT,
            "kind": kind,
            "complete": False,
            **about,
            "environment": describe_machine(torch.device(device)),
            "skipped": [],
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        self.write()

    def __enter__(self) -> ResultFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.data["complete"] = kind is None
        self.write()

    def add(self, section: str, record: dict[str, Any]) -> None:
        """Append a record to a section, on disk at once."""
        self.data.setdefault(section, []).append(record)
        self.write()

    def skip(self, what: str, why: str) -> None:
        """Record that something was not measured, and why."""
        self.add("skipped", {"what": what, "why": why})

    def write(self) -> None:
        """Replace the file as a whole."""
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text(json.dumps(self.data, indent=1) + "\n", encoding="utf-8")
        os.replace(temporary, self.path)


def load(path: Path) -> dict[str, Any]:
    """Read a result file; the names of format 1 become those of today.

    Raises:
        ValueError: it is no result file of a known format.
    """
    data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"), object_hook=_renamed)
    found = data.get("format")
    if found not in (1, FORMAT) or "kind" not in data:
        raise ValueError(f"{path.name} must be a result file of format 1 or {FORMAT}, got format {found!r}")
    return data


def _renamed(found: dict[str, Any]) -> dict[str, Any]:
    renamed = {FORMAT_1_KEYS.get(key, key): value for key, value in found.items()}
    if "name" in renamed:
        renamed["name"] = FORMAT_1_SHAPES.get(renamed["name"], renamed["name"])
    return renamed


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Hardware, driver, versions and commit; no names of hosts, users or paths."""
    found: dict[str, Any] = {
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "packages": {name: _version(name) for name in PACKAGES},
        **commit_of(ROOT),
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found |= {
            "gpu": properties.name,
            "gpu_memory_gib": round(properties.total_memory / 2**30, 1),
            "multiprocessors": properties.multi_processor_count,
            "cuda": torch.version.cuda or torch.version.hip,
            "driver": _driver(),
        }
    return found


def commit_of(root: Path) -> dict[str, Any]:
    """Commit and whether tracked files differ, None where there is no git, and a digest of the library's source."""
    digest = hashlib.sha256()
    for path in sorted((root / "lmn_kernels").rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    commit = _output("git", "-C", str(root), "rev-parse", "HEAD")
    changed = _output("git", "-C", str(root), "status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "dirty": None if changed is None else bool(changed), "source": digest.hexdigest()[:16]}


def _output(*command: str) -> str | None:
    if shutil.which(command[0]) is None:
        return None
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else None


def _driver() -> str | None:
    found = _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    return found.splitlines()[0] if found else None


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor()
    )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
