"""What the memory costs in serving: ``python -m benchmarks.serving --out FILE``, about five minutes on one thread.

Times the scoring of 1 to 512 candidates of one user, p50 and p99, by the CTR model with and without a memory, and over
the size of the memory. A call is ``model(batch)`` in inference mode on a batch that is ready on the device: looking up
features, making the batch and the network are not in it. Sizes are those of Complete Journey, ids are drawn at random,
and every call asks for another user and other items, so that caches do not hold the rows. All values of a memory are
filled with random numbers first, since pages that nobody has written cost less to read.

``--draw`` makes the picture of a result file and measures nothing.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from lmn_model.ctr_model import CTRModel, MemorySettings, ModelSettings
from lmn_model.data import Batch, CategoricalFeature, FeatureSpec
from lmn_model.evaluation import choose_device
from lmn_model.files import replacing
from lmn_model.plots import COLOURS, MARKERS
from lmn_model.settings import SettingsError

from .results import RESULTS, ROOT, ResultFile

FEATURES = FeatureSpec(
    user=(CategoricalFeature("user_id", 2467),),
    item=(CategoricalFeature("product_id", 28166), CategoricalFeature("department", 31),
          CategoricalFeature("category", 303)),
    context=(),
    numeric=(),
)  # fmt: skip
CANDIDATES = (1, 8, 32, 128, 512)
SIZES = (32, 256, 1024, 4096)
"""Sub-keys N of the memories of M = N * N slots that are compared."""
MIDDLE = 128
"""Candidates of a call when sizes are compared."""
SUB_KEYS = 1024
FOUND = 50
MODELS: dict[str, dict[str, Any]] = {
    "pooling 50": {"interest": "pooling", "window": 50},
    "DIN 50": {"interest": "din", "window": 50},
    "DIN 200": {"interest": "din", "window": 200},
    "SIM hard 200": {"interest": "sim_hard", "window": 200},
    "LMN without a window": {"interest": "lmn_only", "window": 1, "query": "factored"},
    "LMN + DIN 50": {"interest": "lmn", "window": 50, "query": "factored"},
    "LMN + DIN 50 (joint query)": {"interest": "lmn", "window": 50, "query": "joint"},
}
GROWN = ("LMN without a window", "LMN + DIN 50 (joint query)")
"""Models that are timed over the size of their memory."""
PICTURE = ROOT / "docs" / "results" / "serving.png"
POOL, WARM_UP = 64, 10


def make_model(
    interest: str, window: int, device: torch.device, query: str = "factored", sub_keys: int = SUB_KEYS
) -> CTRModel:
    """A model in evaluation mode whose memory, if it has one, is full."""
    torch.manual_seed(0)
    memory = MemorySettings(query=query, sub_keys=sub_keys)  # type: ignore[arg-type]
    model = CTRModel(FEATURES, ModelSettings(interest=interest, memory=memory)).eval().to(device)  # type: ignore[arg-type]
    if (layer := model.memory_layer()) is not None:
        with torch.no_grad():
            layer.values.normal_(std=0.1)
    return model


def make_batches(candidates: int, window: int, searches: bool, device: torch.device, count: int = POOL) -> list[Batch]:
    """``count`` requests, each of one user with ``candidates`` items and a full window."""
    draw = torch.Generator().manual_seed(candidates)

    def ids(*shape: int) -> torch.Tensor:
        columns = [torch.randint(1, feature.size, shape, generator=draw) for feature in FEATURES.item]
        return torch.stack(columns, dim=-1)

    batches = []
    for _ in range(count):
        user = torch.randint(1, FEATURES.user[0].size, (1, 1), generator=draw).expand(candidates, 1).contiguous()
        history = ids(1, window).expand(candidates, -1, -1).contiguous()
        batch = Batch(
            user=user, item=ids(candidates), context=torch.empty(candidates, 0, dtype=torch.int64),
            numeric=torch.empty(candidates, 0), history=history,
            history_mask=torch.ones(candidates, window, dtype=torch.bool), label=torch.full((candidates,), torch.nan),
            group=user[:, 0], found=ids(candidates, FOUND) if searches else None,
            found_mask=torch.ones(candidates, FOUND, dtype=torch.bool) if searches else None,
        )  # fmt: skip
        batches.append(batch.to(device))
    return batches


@torch.inference_mode()
def time_calls(model: CTRModel, batches: Sequence[Batch], calls: int, seconds: float) -> dict[str, Any]:
    """Milliseconds of a call, p50 and p99, of at most ``calls`` calls and some ``seconds`` in all."""
    device = next(model.parameters()).device

    def call(batch: Batch) -> float:
        started = time.perf_counter()
        model(batch)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return 1e3 * (time.perf_counter() - started)

    for place in range(WARM_UP):
        call(batches[place % len(batches)])
    found: list[float] = []
    until = time.monotonic() + seconds
    while len(found) < calls and (time.monotonic() < until or len(found) < 20):
        found.append(call(batches[len(found) % len(batches)]))
    p50, p99 = np.percentile(found, [50, 99])
    return {"calls": len(found), "p50_ms": round(float(p50), 4), "p99_ms": round(float(p99), 4)}


def measure(device: torch.device, calls: int, seconds: float, quick: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    """Section and record of every point."""
    sub_keys = 64 if quick else SUB_KEYS
    for name, made in MODELS.items():
        own = {key: value for key, value in made.items() if key in ("interest", "window", "query")}
        model = make_model(**own, device=device, sub_keys=sub_keys)
        for candidates in CANDIDATES:
            batches = make_batches(candidates, made["window"], model.interest.searches, device)
            point = time_calls(model, batches, calls, seconds)
            yield "candidates", {"model": name, "sub_keys": sub_keys, "candidates": candidates, **point}
        del model
    for name in GROWN:
        for size in (16, 32) if quick else SIZES:
            model = make_model(**MODELS[name], device=device, sub_keys=size)
            batches = make_batches(MIDDLE, MODELS[name]["window"], False, device)
            point = time_calls(model, batches, calls, seconds)
            yield "sizes", {"model": name, "sub_keys": size, "slots": size**2, "candidates": MIDDLE, **point}
            del model


def draw(data: dict[str, Any], path: Path) -> None:
    """Latency over candidates and over slots; points are p50, the line above each ends at p99.

    Raises:
        OSError: the picture cannot be written.
    """
    figure = Figure(figsize=(12, 5), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=[3, 2])
    names = list(dict.fromkeys(each["model"] for each in data["candidates"]))
    for axes, section, key, label in (
        (left, "candidates", "candidates", "candidates of one user"),
        (right, "sizes", "slots", f"slots M, {MIDDLE} candidates"),
    ):
        for place, name in enumerate(names):
            points = [each for each in data[section] if each["model"] == name]
            if not points:
                continue
            p50 = np.array([each["p50_ms"] for each in points])
            p99 = np.array([each["p99_ms"] for each in points])
            axes.errorbar(
                [each[key] * 1.03 ** (place - 3) if section == "candidates" else each[key] for each in points], p50,
                yerr=[np.zeros_like(p50), np.maximum(p99 - p50, 0)], label=name, color=(*COLOURS, "#000000")[place],
                marker=(*MARKERS, "X")[place], markersize=5, capsize=2, linewidth=1.2,
            )  # fmt: skip
        ticks = sorted({each[key] for each in data[section]})
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xticks(ticks)
        if section == "candidates":
            axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.minorticks_off()
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.set_xlabel(label)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#E5E5E5", linewidth=0.8)
        axes.set_axisbelow(True)
    left.set_title("Milliseconds of a call, p50 and up to p99", fontsize=12, loc="left")
    right.set_title("Over the size of the memory", fontsize=12, loc="left")
    left.legend(frameon=False, fontsize=9)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")


def table(data: dict[str, Any]) -> str:
    """The points as two Markdown tables."""
    lines = []
    for section, key in (("candidates", "candidates"), ("sizes", "slots")):
        columns = sorted({each[key] for each in data[section]})
        head = [f"{each:,}" for each in columns]
        lines += ["", f"| p50 / p99, ms, by {key} | {' | '.join(head)} |", f"|{' --- |' * (len(columns) + 1)}"]
        for name in dict.fromkeys(each["model"] for each in data[section]):
            points = {each[key]: each for each in data[section] if each["model"] == name}
            cells = [f"{points[each]['p50_ms']:.2f} / {points[each]['p99_ms']:.2f}" for each in columns]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines[1:])


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, or draw what was measured."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=RESULTS / "serving.json", help="result file")
    parser.add_argument("--picture", type=Path, default=PICTURE, help="PNG of --draw")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--quick", action="store_true", help="a rehearsal with few calls and small memories")
    parser.add_argument("--draw", action="store_true", help="draw the result file")
    options = parser.parse_args(arguments)
    if options.threads < 1:
        parser.error(f"--threads must be at least 1, got {options.threads}")
    if options.draw:
        try:
            draw(json.loads(options.out.read_text(encoding="utf-8")), options.picture)
        except (OSError, ValueError, KeyError) as error:
            parser.error(f"--draw: {options.out}: {error}")
        print(options.picture)
        return 0
    try:
        device = choose_device(options.device)
    except SettingsError as error:
        parser.error(f"--device: {error}")
    torch.set_num_threads(options.threads)
    calls, seconds = (20, 0.2) if options.quick else (500, 5.0)
    with ResultFile(options.out, "serving", device, threads=options.threads, quick=options.quick) as file:
        for section, record in measure(device, calls, seconds, options.quick):
            file.add(section, record)
            print(record, file=sys.stderr)
    print(table(file.data))
    return 0


if __name__ == "__main__":
    sys.exit(main())
