"""Speed of training against an independent implementation: FuxiCTR 2.3.9, its LongCTR zoo.

``python -m benchmarks.training.against_fuxictr --rows DIR --fuxictr-python PYTHON --max-steps 100 --out FILE``, some 25
minutes on an idle machine. DIR holds prepared rows; PYTHON is that of a separate virtual environment, since the package
needs an older numpy: ``pip install torch==2.13.0``, then ``pip install "numpy<2" "scikit-learn<1.5" "pandas<3"
"pyarrow<22" fuxictr==2.3.9 packaging``.

Each model is trained in a fresh process, ours and theirs in turns, on the same rows with the same widths, batch,
optimiser and threads, and with each library's own loop and loader; a step is counted from one request for a batch to
the next. The same steps on batches that were made before, and the loader alone, show where a difference comes from. The
file lists the differences between the two under ``differences``.
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
from pathlib import Path
from typing import Any

import torch

from benchmarks.processes import in_fresh_process
from benchmarks.report.markdown import table as markdown_table
from benchmarks.result_files import ResultFile
from benchmarks.training.fuxictr_ours import measure_ours
from benchmarks.training.fuxictr_pairs import COMMON, DIFFERENCES, PAIRS, Pair
from lmn_model.data import FeatureSpec
from lmn_model.training.build import open_dataset
from lmn_model.training.settings import Settings

DATASET_ID = "rows"


def measure_theirs(python: Path, settings: Settings, feature_map: Path, workers: int, budget: dict[str, Any]) -> Any:
    """Train FuxiCTR's model, see :mod:`benchmarks.training.fuxictr_provider`.

    Raises:
        RuntimeError: its process failed; the message has the end of its output.
    """
    request = {
        "rows": settings.data.path,
        "feature_map": str(feature_map),
        "dataset_id": DATASET_ID,
        "model": settings.model.window,
        "window": settings.data.window_size,
        "embedding_dim": settings.model.embedding_dim,
        "hidden": settings.model.hidden,
        "batch_size": settings.training.batch_size,
        "learning_rate": settings.training.learning_rate,
        "threads": settings.training.threads,
        "seed": settings.training.seed,
        "workers": workers,
        **budget,
    }
    command = [str(python), str(Path(__file__).with_name("fuxictr_provider.py")), json.dumps(request)]
    done = subprocess.run(command, capture_output=True, text=True, env=_environment(settings.training.threads or 1))
    if done.returncode:
        raise RuntimeError(f"FuxiCTR's process failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def _environment(threads: int) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}


def write_feature_map(folder: Path, features: FeatureSpec) -> None:
    """The ``feature_map.json`` that FuxiCTR reads, with the sizes that our model has."""
    meta = [{name: {"source": "", "type": "meta"}} for name in ("user_index", "item_index", "seq_len")]
    categorical = [
        {feature.name: {"source": source, "type": "categorical", "padding_idx": 0, "vocab_size": feature.size}}
        for source, group in (("user", features.user), ("item", features.item), ("context", features.context))
        for feature in group
    ]
    content = {"dataset_id": DATASET_ID, "num_fields": len(categorical), "labels": ["label"]}
    (folder / "feature_map.json").write_text(json.dumps({**content, "features": [*meta, *categorical]}))


def main(arguments: list[str] | None = None) -> int:
    """Measure and print the comparison. Returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.training.against_fuxictr", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument("--rows", type=Path, required=True, metavar="DIR", help="prepared rows")
    parser.add_argument("--fuxictr-python", type=Path, required=True, metavar="PYTHON", help="a Python with FuxiCTR")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="result file to write")
    parser.add_argument("--threads", type=int, default=1, help="torch threads of both; default 1")
    parser.add_argument("--workers", type=int, default=1, help="of FuxiCTR's loader; default 1, that of its class")
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
            ours = in_fresh_process(measure_ours, settings, budget)
            _add(file, pair, "ours", turn, rows, settings, ours)
            if pair.theirs:
                theirs = measure_theirs(options.fuxictr_python, settings, Path(folder), options.workers, budget)
                _add(file, pair, "theirs", turn, rows, settings, theirs)
    print(comparison(file.data))
    return 0


def _add(
    file: ResultFile, pair: Pair, provider: str, turn: int, rows: int, settings: Settings, found: dict[str, Any]
) -> None:
    batch = settings.training.batch_size
    speed = found["steps"] * batch / found["seconds"]
    record = {
        "model": pair.name,
        "provider": provider,
        "round": turn,
        **found,
        "samples_per_second": speed,
        "ready_samples_per_second": found["ready_steps"] * batch / found["ready_seconds"],
        "loader_samples_per_second": found["loader_batches"] * batch / found["loader_seconds"],
        "epoch_seconds": rows / speed,
    }
    file.add("trainings", record)
    print(f"{pair.name}, {provider}: {speed:,.0f} samples/s", file=sys.stderr)


def comparison(data: dict[str, Any]) -> str:
    """A Markdown table: medians over the rounds, and the ratio of ours to theirs with its range."""
    rows = []
    for name in dict.fromkeys(record["model"] for record in data["trainings"]):
        ours, theirs = (
            [record for record in data["trainings"] if (record["model"], record["provider"]) == (name, provider)]
            for provider in ("ours", "theirs")
        )
        speeds = [_median(records, "samples_per_second") for records in (ours, theirs)]
        ratios = [_ratio(ours, theirs, field) for field in ("samples_per_second", "ready_samples_per_second")]
        rows.append((name, *speeds, *ratios, *(_median(records, "epoch_seconds") for records in (ours, theirs))))
    speed_header = ("ours, samples/s", "FuxiCTR, samples/s", "ratio", "on ready batches")
    return markdown_table(("model", *speed_header, "epoch, s: ours", "FuxiCTR"), rows)


def _median(records: list[dict[str, Any]], field: str) -> str:
    return f"{statistics.median(record[field] for record in records):,.0f}" if records else "-"


def _ratio(ours: list[dict[str, Any]], theirs: list[dict[str, Any]], field: str) -> str:
    ratios = sorted(mine[field] / other[field] for mine, other in zip(ours, theirs, strict=False))
    return f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})" if ratios else "-"


if __name__ == "__main__":
    sys.exit(main())
