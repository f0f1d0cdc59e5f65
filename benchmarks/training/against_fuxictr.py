"""Speed of training against an independent implementation: FuxiCTR 2.3.9, its LongCTR zoo.

``python -m benchmarks.training.against_fuxictr --rows DIR --fuxictr-python PYTHON --max-steps 100 --out FILE``, some 25
minutes on an idle machine. DIR holds prepared rows; PYTHON is that of a virtual environment of its own, for the package
wants an older numpy: ``pip install torch==2.13.0``, then ``pip install "numpy<2" "scikit-learn<1.5" "pandas<3"
"pyarrow<22" fuxictr==2.3.9 packaging``.

Each model is trained in a fresh process, ours and theirs in turns, on the same rows with the same widths, batch,
optimiser and threads, and with each library's own loop and loader; a step is counted from one request for a batch to
the next. Beside it stand the same steps on batches that were made before, and the pace of the loader alone, so that it
shows where a difference comes from. What differs between the two is in the file under ``differences``.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from benchmarks.result_files import ResultFile
from lmn_model.data import Batch, BatchLoader, Dataset, FeatureSpec
from lmn_model.training import loop
from lmn_model.training.evaluation import open_dataset
from lmn_model.training.reproducible import reproducible
from lmn_model.training.run_folder import RunFolder
from lmn_model.training.settings import Settings

DATASET_ID = "rows"
PAIRED = {"order": "shuffle", "clip_norm": 10.0}
"""What FuxiCTR does by default and ``lmn train`` does not: so both sides of a pair do it."""
COMMON: dict[str, Any] = {
    "dataset": "rows",
    "epochs": 1,
    "batch_size": 1024,
    "sub_keys": 1024,
    "embedding_dim": 16,
    "hidden": (200, 80),
    "learning_rate": 1e-3,
    "device": "cpu",
    "memory_usage": False,
}
SEARCH = {"search_by": "category", "search_window": 50}


@dataclass(frozen=True)
class Pair:
    """A model: settings of ours, and whether FuxiCTR has it."""

    name: str
    settings: dict[str, Any]
    theirs: bool


PAIRS = (
    Pair("DIN 50", {"interest": "din", "window": 50, **PAIRED}, True),
    Pair("DIN 200", {"interest": "din", "window": 200, **PAIRED}, True),
    Pair("SIM soft 200", {"interest": "sim_soft", "window": 200, **PAIRED}, True),
    Pair("SIM hard 200", {"interest": "sim_hard", "window": 200, **SEARCH, **PAIRED}, False),
    Pair("LMN + DIN 50", {"interest": "lmn", "window": 50}, False),
    Pair("LMN without a window", {"interest": "lmn_only", "window": 1}, False),
)
DIFFERENCES = (
    "The attention's hidden layer has 64 units in both; its activation is PReLU here, Dice (a batch norm) there.",
    "SIM: here DIN's attention as exact unit, and the search learns through an interest that the one tower reads; "
    "there attention with two heads of 32, and the search learns through a tower and a loss of its own. Both keep 50 "
    "of 200; beside them ours reads the newest 50, theirs the newest 49.",
    "Here a window has its full width always, and where three positions in four are padding attention works on the "
    "real ones alone; there a batch is as wide as its longest history, up to the window, and padding is multiplied by "
    "0.",
    "Here Adam is torch's fused AdamW without decay, there torch.optim.Adam as it comes; gradients of embeddings are "
    "dense in both.",
    "Both clip the gradient's norm at 10, FuxiCTR's default, in the models that are compared; neither has a "
    "regulariser.",
    "Here a thread makes batches ahead; there a DataLoader with the number of worker processes given under workers. "
    "Threads are those of the process that trains.",
    "Here training allows deterministic ops only and checks every loss for NaN; nothing there asks for that.",
    "Embeddings start with a deviation of 0.05 here, 0.0001 there; it moves the losses, not the time.",
    "Rows are shuffled in the models that are compared. The LMN takes rows in the order of time, by design, and some "
    "steps of it are those in the middle of its epoch.",
)


class _Enough(Exception):
    """The steps that were asked for are done."""


class _Timed:
    """The batches of our loader up to the one that closes the last step, and when each was asked for."""

    def __init__(self, batches: Iterable[Batch], steps: int, stamps: list[float]) -> None:
        self._batches, self._steps, self._stamps = batches, steps, stamps

    def __iter__(self) -> Generator[Batch, None, None]:
        with closing(_closable(self._batches)) as batches:
            for _ in range(self._steps):
                self._stamps.append(time.perf_counter())
                yield next(batches)
            self._stamps.append(time.perf_counter())
            raise _Enough


def _closable(batches: Iterable[Batch]) -> Generator[Batch, None, None]:
    yield from batches


def measure_ours(settings: Settings, budget: dict[str, Any]) -> dict[str, Any]:
    """Train ours for the steps of ``budget``; in a process of its own, the fields of FuxiCTR's side."""
    with reproducible(settings.training.seed, settings.training.threads, torch.device("cpu")):
        dataset = open_dataset(settings.data)
        total = -(-len(dataset.train) // settings.training.batch_size)
        steps = budget["steps"] or total - 1 - budget["warm_up"]
        start = (total - steps - budget["warm_up"]) // 2 if settings.model.writes_new_events else 0
        loader = BatchLoader(
            dataset.train,
            settings.training.batch_size,
            order=settings.training.order,
            seed=settings.training.seed,
            start=start,
            new_events=settings.model.writes_new_events,
        )
        with closing(iter(loader)) as batches:
            ready = list(itertools.islice(batches, budget["ready_batches"]))
        with closing(iter(loader)) as batches:
            next(batches)
            first = time.perf_counter()
            for _ in range(budget["ready_batches"]):
                next(batches)
            loader_seconds = time.perf_counter() - first
        found: dict[str, Any] = {"steps": steps, "loader_seconds": loader_seconds}
        seconds, loss, parameters = _train(settings, dataset, None, budget["warm_up"], steps, start)
        found |= {"seconds": seconds, "mean_loss": loss, "parameters": parameters, "start": start}
        ready_steps = budget["ready_steps"]
        found["ready_seconds"], _, _ = _train(settings, dataset, ready, budget["warm_up"], ready_steps, start)
        return {**found, "ready_steps": ready_steps, "loader_batches": budget["ready_batches"]}


def _train(
    settings: Settings, dataset: Dataset, ready: list[Batch] | None, warm_up: int, steps: int, start: int
) -> tuple[float, float, int]:
    """Seconds of ``steps`` steps of ``lmn train``, mean click loss from the start, and number of dense parameters."""
    stamps: list[float] = []

    def loader(*arguments: Any, **options: Any) -> Iterable[Batch]:
        batches = BatchLoader(*arguments, **options) if ready is None else itertools.cycle(ready)
        return _Timed(batches, warm_up + steps, stamps)

    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder(Path(folder) / "run")
        run.make()
        trainer = loop.Trainer(settings, dataset, run, torch.device("cpu"))
        trainer.state.progress.epoch_step = start
        with mock.patch.object(loop, "BatchLoader", loader), suppress(_Enough):
            trainer.run()
    click_loss, _, rows = trainer.state.sums.tolist()
    parameters = trainer.state.model.parameter_counts()
    return stamps[warm_up + steps] - stamps[warm_up], click_loss / rows, parameters["total"] - parameters["memory"]


def measure_theirs(python: Path, settings: Settings, feature_map: Path, workers: int, budget: dict[str, Any]) -> Any:
    """Train theirs, see :mod:`benchmarks.training.fuxictr_provider`.

    Raises:
        RuntimeError: its process failed; the message ends with what it said.
    """
    asked = {
        "rows": settings.data.path,
        "feature_map": str(feature_map),
        "dataset_id": DATASET_ID,
        "model": settings.model.interest,
        "window": settings.data.window,
        "embedding_dim": settings.model.embedding_dim,
        "hidden": settings.model.hidden,
        "batch_size": settings.training.batch_size,
        "learning_rate": settings.training.learning_rate,
        "threads": settings.training.threads,
        "seed": settings.training.seed,
        "workers": workers,
        **budget,
    }
    command = [str(python), str(Path(__file__).with_name("fuxictr_provider.py")), json.dumps(asked)]
    done = subprocess.run(command, capture_output=True, text=True, env=_environment(settings.training.threads or 1))
    if done.returncode:
        raise RuntimeError(f"FuxiCTR's side failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def _environment(threads: int) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}


def write_feature_map(folder: Path, features: FeatureSpec) -> None:
    """The ``feature_map.json`` that FuxiCTR reads, with the sizes that our model has."""
    meta = [{name: {"source": "", "type": "meta"}} for name in ("user_index", "item_index", "seq_len")]
    categorical = [
        {feature.name: {"source": source, "type": "categorical", "padding_idx": 0, "vocab_size": feature.size}}
        for source, some in (("user", features.user), ("item", features.item), ("context", features.context))
        for feature in some
    ]
    content = {"dataset_id": DATASET_ID, "num_fields": len(categorical), "labels": ["label"]}
    (folder / "feature_map.json").write_text(json.dumps({**content, "features": [*meta, *categorical]}))


def main(arguments: list[str] | None = None) -> int:
    """Run it; see the head of this module. Returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.training.against_fuxictr", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument("--rows", type=Path, required=True, metavar="DIR", help="prepared rows")
    parser.add_argument("--fuxictr-python", type=Path, required=True, metavar="PYTHON", help="a Python with FuxiCTR")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="result file to write")
    parser.add_argument("--threads", type=int, default=1, help="torch threads of both sides; default 1")
    parser.add_argument("--workers", type=int, default=1, help="of FuxiCTR's loader; default 1, as its class has it")
    parser.add_argument("--max-steps", type=int, metavar="N", help="steps after the warm-up; one epoch if not given")
    parser.add_argument("--ready-steps", type=int, default=20, metavar="N", help="steps on batches made before")
    parser.add_argument("--warm-up", type=int, default=5, metavar="N", help="steps before the clock starts; default 5")
    parser.add_argument("--rounds", type=int, default=3, help="times that each model is measured; default 3")
    parser.add_argument("--only", nargs="*", metavar="NAME", help="models, all if not given")
    options = parser.parse_args(arguments)
    chosen = [pair for pair in PAIRS if options.only is None or pair.name in options.only]
    if options.only is not None and len(chosen) != len(options.only):
        parser.error(f"--only takes {', '.join(repr(pair.name) for pair in PAIRS)}")
    budget = {
        "steps": options.max_steps,
        "warm_up": options.warm_up,
        "ready_steps": options.ready_steps,
        "ready_batches": 20,
    }
    about = {"budget": budget, "workers": options.workers, "threads": options.threads, "differences": DIFFERENCES}
    os.environ |= _environment(options.threads)  # of our processes, which are spawned
    torch.set_num_threads(options.threads)
    with (
        ResultFile(options.out, "fuxictr", "cpu", **about) as file,
        tempfile.TemporaryDirectory() as folder,
    ):
        base = Settings().override({**COMMON, "path": os.path.abspath(options.rows), "threads": options.threads})
        dataset = open_dataset(base.data)
        write_feature_map(Path(folder), dataset.features)
        rows = len(dataset.train)
        file.data["train_rows"] = rows
        del dataset
        for turn, pair in itertools.product(range(options.rounds), chosen):
            settings = base.override(pair.settings)
            with get_context("spawn").Pool(1) as pool:
                ours = pool.apply(measure_ours, (settings, budget))
            _add(file, pair, "ours", turn, rows, settings, ours)
            if pair.theirs:
                theirs = measure_theirs(options.fuxictr_python, settings, Path(folder), options.workers, budget)
                _add(file, pair, "theirs", turn, rows, settings, theirs)
    print("\n".join(table(file.data)))
    return 0


def _add(
    file: ResultFile, pair: Pair, side: str, turn: int, rows: int, settings: Settings, found: dict[str, Any]
) -> None:
    batch = settings.training.batch_size
    speed = found["steps"] * batch / found["seconds"]
    record = {
        "model": pair.name,
        "side": side,
        "round": turn,
        **found,
        "samples_per_second": speed,
        "ready_samples_per_second": found["ready_steps"] * batch / found["ready_seconds"],
        "loader_samples_per_second": found["loader_batches"] * batch / found["loader_seconds"],
        "epoch_seconds": rows / speed,
    }
    file.add("trainings", record)
    print(f"{pair.name}, {side}: {speed:,.0f} samples/s", file=sys.stderr)


def table(data: dict[str, Any]) -> Iterator[str]:
    """Lines of a Markdown table: medians over the rounds, and the ratio of ours to theirs with its range."""
    yield "| model | ours, samples/s | FuxiCTR, samples/s | ratio | on ready batches | epoch, s: ours | FuxiCTR |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for name in dict.fromkeys(record["model"] for record in data["trainings"]):
        of = {
            side: [r for r in data["trainings"] if (r["model"], r["side"]) == (name, side)]
            for side in ("ours", "theirs")
        }

        def median(side: str, field: str, of: dict[str, Any] = of) -> str:
            return f"{statistics.median(record[field] for record in of[side]):,.0f}" if of[side] else "-"

        def ratio(field: str, of: dict[str, Any] = of) -> str:
            both = zip(of["ours"], of["theirs"], strict=False)
            ratios = sorted(ours[field] / theirs[field] for ours, theirs in both)
            if not ratios:
                return "-"
            return f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"

        cells = [name, *(median(side, "samples_per_second") for side in of), ratio("samples_per_second")]
        cells += [ratio("ready_samples_per_second"), *(median(side, "epoch_seconds") for side in of)]
        yield f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main())
