"""What the memory costs in serving: ``python -m benchmarks.serving``, up to ten minutes, 6 GiB of memory.

Times the scoring of 1 to 512 candidates of one user by the CTR model with and without a memory, and over the size of
the memory: p50 and p99 of single calls. A call is ``model(batch)`` in inference mode on a batch that is ready on the
device: looking features up, making the batch and the network are not in it. The batch is as ``lmn predict`` makes it,
with the user's window beside every candidate. On a GPU the clock stops when the device has finished.

Sizes are those of Complete Journey. Every call has a user, items and events of its own, drawn at random, so that no
cache holds what it asks the memory for because the call before asked for it. All values of a memory are filled with
random numbers first: pages that nobody has written are one page of zeros, which would flatter a large memory. Models
take turns in blocks of calls, so that a machine that slows down slows all of them.

``--draw`` makes the picture of a result file and measures nothing.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.report.data import load
from benchmarks.result_files import RESULTS, ROOT, ResultFile
from benchmarks.serving.figure import ENOUGH, JOINT, SECTIONS, draw, tables
from lmn_model.ctr.model import CTRModel, MemorySettings, ModelSettings
from lmn_model.data import Batch, CategoricalFeature, FeatureSpec
from lmn_model.data.features import FIRST_KNOWN
from lmn_model.training.evaluation import choose_device
from lmn_model.training.settings import SettingsError

FEATURES = FeatureSpec(
    user=(CategoricalFeature("user_id", 2466 + FIRST_KNOWN),),
    item=(
        CategoricalFeature("product_id", 28165 + FIRST_KNOWN),
        CategoricalFeature("department", 31 + FIRST_KNOWN),
        CategoricalFeature("category", 302 + FIRST_KNOWN),
    ),
    context=(),
    numeric=(),
)
CATEGORY = 2
"""Column of the feature that a hard search goes by."""
FOUND = 50
"""Events that it finds, as in benchmarks/study/complete_journey.toml."""
CANDIDATES = (1, 8, 32, 128, 512)
SUB_KEYS = 1024
GROWN_CANDIDATES = 128
VALUE_STD = 0.1
WARM_UP = 2
"""Calls at the start of a block that are not counted."""
WITHOUT = "LMN without a window"


@dataclass(frozen=True)
class Served:
    """A model as the study has it: its interest part, its window, the query of its memory, whether it has matches."""

    interest: str
    window: int
    query: str = "factored"
    matches: bool = False


MODELS = {
    "pooling 50": Served("pooling", 50),
    "DIN 50": Served("din", 50),
    "DIN 200": Served("din", 200),
    "SIM hard 200": Served("sim_hard", 200),
    WITHOUT: Served("lmn_only", 1),
    "LMN + DIN 50": Served("lmn", 50),
    "LMN + DIN 50 with matches": Served("lmn", 50, matches=True),
    f"LMN + DIN 50{JOINT}": Served("lmn", 50, "joint"),
}
GROWN = {WITHOUT: MODELS[WITHOUT], f"{WITHOUT}{JOINT}": Served("lmn_only", 1, "joint")}
"""Models that are timed over the size of their memory."""


@dataclass(frozen=True)
class Effort:
    """How long to measure a point, and how large the memories are.

    Attributes:
        calls: most calls.
        seconds: of wall time, after which no call begins, if there were ``enough``.
        enough: calls that a p99 asks for.
        longest: seconds of wall time after which no call begins in any case.
        blocks: in which the models take turns.
        sub_keys: N when candidates are compared.
        sizes: N when sizes are compared; M = N * N.
    """

    calls: int = 1500
    seconds: float = 8.0
    enough: int = ENOUGH
    longest: float = 30.0
    blocks: int = 10
    sub_keys: int = SUB_KEYS
    sizes: tuple[int, ...] = (32, 256, 1024, 4096)


QUICK = Effort(calls=6, seconds=0.1, enough=4, longest=1.0, blocks=2, sub_keys=64, sizes=(16, 24, 32, 48))


@dataclass
class Request:
    """Makes the batches of one model, each of one user and his ``candidates``, on the device."""

    served: Served
    candidates: int
    device: torch.device
    draw: torch.Generator = field(default_factory=lambda: torch.Generator().manual_seed(0))

    def __call__(self) -> Batch:
        rows = self.candidates
        item, user = self._items(rows), self._ids(FEATURES.user[0], 1, 1).expand(rows, 1).contiguous()
        window = self._items(1, self.served.window).expand(rows, -1, -1).contiguous()
        found, found_mask = None, None
        if self.served.interest == "sim_hard":
            found = self._items(rows, FOUND)
            found[..., CATEGORY] = item[:, CATEGORY].unsqueeze(1)
            found_mask = torch.ones(found.shape[:2], dtype=torch.bool)
        batch = Batch(
            user=user, item=item, context=torch.empty(rows, 0, dtype=torch.int64), numeric=torch.empty(rows, 0),
            history=window, history_mask=torch.ones(window.shape[:2], dtype=torch.bool),
            label=torch.full((rows,), torch.nan), group=user[:, 0], found=found, found_mask=found_mask,
        )  # fmt: skip
        return batch.to(self.device)

    def _ids(self, feature: CategoricalFeature, *shape: int) -> torch.Tensor:
        return torch.randint(FIRST_KNOWN, feature.size, shape, generator=self.draw)

    def _items(self, *shape: int) -> torch.Tensor:
        return torch.stack([self._ids(feature, *shape) for feature in FEATURES.item], dim=-1)


def settings_of(served: Served, sub_keys: int) -> ModelSettings:
    """Settings of a model, all others by default."""
    memory = MemorySettings(query=served.query, sub_keys=sub_keys)  # type: ignore[arg-type]
    return ModelSettings(interest=served.interest, matches=served.matches, memory=memory)  # type: ignore[arg-type]


def make_model(served: Served, sub_keys: int, device: torch.device) -> CTRModel:
    """A model in evaluation mode whose memory, if it has one, is full."""
    torch.manual_seed(0)
    model = CTRModel(FEATURES, settings_of(served, sub_keys)).eval().to(device)
    if (layer := model.memory_block()) is not None:
        with torch.no_grad():
            layer.values.normal_(std=VALUE_STD)
    return model


Server = tuple[CTRModel, Callable[[], Batch]]


@torch.inference_mode()
def time_in_blocks(servers: Mapping[Any, Server], effort: Effort, device: torch.device) -> dict[Any, list[float]]:
    """Milliseconds of every call of each server; see :class:`Effort`."""
    found: dict[Any, list[float]] = {name: [] for name in servers}
    names = list(servers)
    for block in range(effort.blocks):
        first = block % len(names)  # nobody is always first
        for name in names[first:] + names[:first]:
            model, request = servers[name]
            for _ in range(WARM_UP):
                _milliseconds(model, request(), device)
            times, started = found[name], time.perf_counter()
            enough, most = (-(-(block + 1) * calls // effort.blocks) for calls in (effort.enough, effort.calls))
            while len(times) < most:
                spent = effort.blocks * (time.perf_counter() - started)
                if spent > (effort.longest if len(times) < enough else effort.seconds):
                    break
                times.append(_milliseconds(model, request(), device))
    return found


def _milliseconds(model: CTRModel, batch: Batch, device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    started = time.perf_counter()
    kept = model(batch)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    took = time.perf_counter() - started
    del kept  # giving memory back to the system is not part of the call
    return 1e3 * took


def point(times: Sequence[float], candidates: int) -> dict[str, Any]:
    """What is recorded of the times in milliseconds of calls with ``candidates`` each.

    >>> point([1.0, 2.0, 3.0], 8)
    {'candidates': 8, 'calls': 3, 'p50_ms': 2.0, 'p99_ms': 2.98, 'candidates_per_s': 4000.0}
    """
    p50, p99 = np.percentile(times, [50, 99])
    return {
        "candidates": candidates,
        "calls": len(times),
        "p50_ms": round(float(p50), 4),
        "p99_ms": round(float(p99), 4),
        "candidates_per_s": round(1e3 * candidates * len(times) / sum(times), 1),
    }


def measure(device: torch.device, effort: Effort) -> Iterator[tuple[str, dict[str, Any]]]:
    """Section and record of every point."""
    models = {name: make_model(served, effort.sub_keys, device) for name, served in MODELS.items()}
    for candidates in CANDIDATES:
        servers: dict[Any, Server] = {
            name: (models[name], Request(served, candidates, device)) for name, served in MODELS.items()
        }
        for name, times in time_in_blocks(servers, effort, device).items():
            slots = effort.sub_keys**2 if models[name].memory_block() is not None else None
            yield "candidates", {"model": name, "slots": slots, **point(times, candidates)}
    del models, servers
    for name, served in GROWN.items():  # one query at a time, since the largest memory is 4 GiB
        servers = {N: (make_model(served, N, device), Request(served, GROWN_CANDIDATES, device)) for N in effort.sizes}
        for N, times in time_in_blocks(servers, effort, device).items():
            yield "sizes", {"model": name, "slots": N * N, **point(times, GROWN_CANDIDATES)}
        del servers


def described(effort: Effort) -> dict[str, Any]:
    """The settings of a run, for its result file."""
    models = {
        name: asdict(served) | {"model": asdict(settings_of(served, effort.sub_keys))}
        for name, served in (MODELS | GROWN).items()
    }
    return {"effort": asdict(effort), "features": FEATURES.to_dict(), "found": FOUND, "models": models}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, or draw what was measured; see the head of this module. Returns the exit status."""
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
        try:
            data = load(out)
        except (OSError, ValueError) as error:
            parser.error(f"--draw: {out} cannot be read: {error}")
        if data["kind"] != "serving":
            parser.error(f"--draw: {out} must be a result file of kind 'serving', got {data['kind']!r}")
        if not any(data.get(section) for section in SECTIONS):
            parser.error(f"--draw: {out} holds no points")
        if data.get("rehearsal") and not options.picture:
            parser.error(
                "--draw: the file is of a rehearsal and needs --picture, since docs/results shows measurements"
            )
        draw(data, options.picture or shown)
        print(options.picture or shown)
        return 0
    try:
        device = choose_device(options.device)
    except SettingsError as error:
        parser.error(f"--device: {error}")
    effort = QUICK if options.quick else Effort()
    before = torch.get_num_threads()
    torch.set_num_threads(options.threads)
    try:
        with ResultFile(out, "serving", device, rehearsal=options.quick, settings=described(effort)) as file:
            file.data["device"], file.data["threads"] = str(device), options.threads
            for section, record in measure(device, effort):
                file.add(section, record)
                few = "" if record["calls"] >= ENOUGH or options.quick else f", only {record['calls']} calls"
                about = f"{record['model']}, {section}, {record['candidates']} candidates, slots {record['slots']}"
                print(f"{about}: {record['p50_ms']:.3g} / {record['p99_ms']:.3g} ms{few}", file=sys.stderr)
    finally:
        torch.set_num_threads(before)
    print(tables(file.data))
    return 0


if __name__ == "__main__":
    sys.exit(main())
