"""Compare sizes chosen by the data to fixed ones: ``python -m benchmarks.training.default_sizes --out FILE``, an hour.

Synthetic tables of 1,000 to 500,000 events (:mod:`benchmarks.training.synthetic_events`), labelled and not, are trained
on with the defaults of ``lmn train`` and with fixed sizes: one epoch, batches of 1,024 rows, a memory of 1,024 x 1,024
slots. Everything else is equal. A record is the mean over seeds of a table, a model and one kind of sizes.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.result_files import RESULTS, ResultFile
from benchmarks.training.synthetic_events import TableSize, make_table
from lmn_model.training import train
from lmn_model.training.settings import Settings

TABLES = {
    "1k": TableSize(1_000, 60, 120),
    "10k": TableSize(10_000, 400, 500),
    "80k": TableSize(80_000, 2_000, 2_000),
    "500k": TableSize(500_000, 10_000, 5_000),
}
SEEDS = {"1k": (0, 1, 2), "10k": (0,), "80k": (0,), "500k": (0,)}
LABELLED = {"500k": (True,)}
"""Labelled or not, for sizes that do not have both: without labels each event makes two rows."""
MODELS: dict[str, dict[str, str]] = {
    "pooling": {"window": "pooling", "memory": "none"},
    "DIN": {"window": "din", "memory": "none"},
    "LMN": {"window": "din", "memory": "factored"},
    "LMN, joint query": {"window": "din", "memory": "joint"},
}
SKIPPED = {("500k", "LMN, joint query"): "an hour of training"}
"""Tables and models that are not trained, with the reason."""
FIXED = {"epochs": 1, "batch_size": 1024, "sub_keys": 1024}
SIZES = {"fixed": FIXED, "by the data": {}}
MEANS = ("auc", "log_loss", "steps", "folder_mb")


def measure(table: str, labelled: bool, model: str, sizes: str) -> dict[str, Any]:
    """Train on each seed of a table; means of the metrics on the test split, of steps and of the folder's size."""
    runs = [_run(table, labelled, seed, {**MODELS[model], **SIZES[sizes]}) for seed in SEEDS[table]]
    return {
        "table": table,
        "labelled": labelled,
        "model": model,
        "sizes": sizes,
        "seeds": len(runs),
        "chosen": runs[0]["chosen"],
        **{name: sum(run[name] for run in runs) / len(runs) for name in MEANS},
    }


def _run(table: str, labelled: bool, seed: int, changes: dict[str, Any]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        events, run = Path(folder) / "events.parquet", Path(folder) / "run"
        make_table(TABLES[table], labelled=labelled, seed=seed).write_parquet(events)
        settings = Settings().override(
            {
                "dataset": "events",
                "path": str(events),
                "item_features": ("category",),
                "window_size": 10,
                "threads": 1,
                "device": "cpu",
                "checkpoint_minutes": 60.0,
                "profile_levels": 0,
                "user_rates": False,
                "seed": seed,
                **({"label_col": "label"} if labelled else {}),
                **changes,
            }
        )
        metrics = train(settings, run)
        results, used = metrics["results"], Settings.load(run / "settings.toml")
        return {
            **{name: results["test"][name] for name in ("auc", "log_loss")},
            "steps": results["steps"],
            "folder_mb": sum(file.stat().st_size for file in run.iterdir()) / 1e6,
            "chosen": {
                "epochs": used.training.epochs,
                "batch_size": used.training.batch_size,
                "patience": used.training.patience,
                "sub_keys": used.model.memory.sub_keys,
            },
        }


def table(records: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Lines of a Markdown table: fixed sizes and those by the data provider by provider."""
    yield "| events | model | batch, N | steps | AUC | log loss | folder MB |"
    yield "|---|---|---|---|---|---|---|"
    pairs: dict[tuple[str, bool, str], dict[str, dict[str, Any]]] = {}
    for record in records:
        key = record["table"], record["labelled"], record["model"]
        pairs.setdefault(key, {})[record["sizes"]] = record
    for (size, labelled, model), pair in pairs.items():
        if len(pair) < len(SIZES):
            continue
        fixed, chosen = pair["fixed"], pair["by the data"]
        sub_keys = chosen["chosen"]["sub_keys"]
        sizes = str(chosen["chosen"]["batch_size"]) + ("" if sub_keys is None else f", {sub_keys}")
        columns = [f"{size}{' labelled' if labelled else ''}", model, sizes]
        for name, form in (("steps", ",.0f"), ("auc", ".4f"), ("log_loss", ".4f"), ("folder_mb", ",.1f")):
            columns.append(f"{fixed[name]:{form}} → {chosen[name]:{form}}")
        yield f"| {' | '.join(columns)} |"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS / "default_sizes.json", metavar="FILE")
    parser.add_argument("--tables", default=",".join(TABLES), metavar="1k,10k", help="tables to train on")
    options = parser.parse_args(arguments)
    chosen = options.tables.split(",")
    if unknown := sorted({*chosen} - {*TABLES}):
        parser.error(f"--tables must be of {', '.join(TABLES)}, got {', '.join(unknown)}")
    with ResultFile(options.out, "default_sizes", "cpu") as file:
        for name in chosen:
            for labelled in LABELLED.get(name, (True, False)):
                for model in MODELS:
                    if reason := SKIPPED.get((name, model)):
                        file.skip(f"{model} on {name} events", reason)
                        continue
                    for sizes in SIZES:
                        file.add("runs", measure(name, labelled, model, sizes))
    print("\n".join(table(file.data["runs"])))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
