"""The demo: four models of a user's history, trained alike on household baskets and compared.

Mean pooling, target attention (DIN) and the Large Memory Network, with its factored query and with the joint query of
the paper, share embeddings, tower, data and training. Each has its own run folder, so a demo that was stopped continues
there.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lmn_model.ctr import MemorySettings, ModelSettings
from lmn_model.data import Dataset
from lmn_model.files import write_json
from lmn_model.training import train
from lmn_model.training.build import open_dataset
from lmn_model.training.default_sizes import take_sizes
from lmn_model.training.reporting.plots import plot_comparison
from lmn_model.training.runs.folder import RunFolder
from lmn_model.training.settings import DataSettings, Settings, TrainingSettings

MODELS: dict[str, tuple[str, dict[str, str]]] = {
    "pooling": ("pooling", {"window": "pooling", "memory": "none"}),
    "din": ("DIN", {"window": "din", "memory": "none"}),
    "lmn": ("LMN", {"window": "din", "memory": "factored"}),
    "lmn_joint": ("LMN, joint query", {"window": "din", "memory": "joint"}),
}
"""Name and settings of each model by the folder of its run."""
DEMO = Settings(
    data=DataSettings(max_train_rows=100_000, max_eval_rows=25_000, min_item_count=5),
    model=ModelSettings(memory=MemorySettings(sub_keys=1024)),
    training=TrainingSettings(epochs=2, batch_size=1024, eval_every=98),
)

logger = logging.getLogger("lmn")


def run_demo(out: Path | str, settings: Settings) -> list[dict[str, Any]]:
    """Train the models that are not trained yet, and write ``summary.json`` and ``learning_curves.png`` into ``out``.

    Args:
        out: folder of the runs.
        settings: of all models, except for those in ``MODELS``; the command takes ``DEMO``.

    Returns:
        One row for each model: name, metrics on the test split, parameters, training samples per second.

    Raises:
        What :func:`lmn_model.training.train_run.train` raises.
    """
    root = Path(out)
    dataset: Dataset | None = None
    runs: dict[str, dict[str, Any]] = {}
    for directory, (name, changes) in MODELS.items():
        own = settings.override(changes, source="demo")
        folder = RunFolder(root / directory)
        metrics = folder.load_metrics() if folder.holds_run() else None
        if metrics is None or metrics["status"] != "finished" or not _has_settings(folder, own):
            if not folder.holds_run():
                folder.create()
            if dataset is None:
                logger.info("reading the data set %s", own.data.dataset)
                dataset = open_dataset(own.data)
            logger.info("training %s (model %d of %d)", name, len(runs) + 1, len(MODELS))
            metrics = train(own, folder.root, resume=folder.holds_run(), dataset=dataset)
        else:
            logger.info("%s is trained already: %s", name, folder)
        runs[name] = metrics
    rows = [
        {
            "model": name,
            **metrics["results"]["test"],
            "parameters": metrics["results"]["parameters"]["total"],
            "samples_per_second": metrics["timing"]["samples_per_second"],
        }
        for name, metrics in runs.items()
    ]
    write_json(root / "summary.json", {"models": rows, "environment": runs["LMN"]["environment"]})
    plot_comparison({name: metrics["results"] for name, metrics in runs.items()}, root / "learning_curves.png")
    return rows


def _has_settings(folder: RunFolder, settings: Settings) -> bool:
    """Whether the run in ``folder`` was started with ``settings``."""
    run = folder.load_settings()
    return run == take_sizes(settings, run)


def format_table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows of :func:`run_demo` as a table for a terminal."""
    lines = [f"{'model':<18}{'AUC':>9}{'GAUC':>9}{'log loss':>10}{'parameters':>13}{'samples/s':>12}"]
    for row in rows:
        gauc = "-" if row["gauc"] is None else f"{row['gauc']:.4f}"
        lines.append(
            f"{row['model']:<18}{row['auc']:>9.4f}{gauc:>9}{row['log_loss']:>10.4f}"
            f"{row['parameters']:>13,}{row['samples_per_second']:>12,.0f}"
        )
    return "\n".join(lines)
