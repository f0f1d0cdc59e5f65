"""Training a CTR model, scoring with it and predicting: the Python API behind the command ``lmn``.

Example::

    from lmn_model.training import Settings, evaluate_run, predict_pairs, train

    settings = Settings().override({"dataset": "events", "path": "purchases.csv"})
    train(settings, "runs/mine")
    evaluate_run("runs/mine", "valid")
    predict_pairs("runs/mine", "pairs.csv", "scores.csv")

:mod:`.train_run` starts or resumes a run and :mod:`.loop` trains. :mod:`.runs` keeps a run on disk, :mod:`.evaluation`
scores data with it, and :mod:`.reporting` logs and draws. Names are imported on first use, so settings need no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lmn_model.lazy import import_on_use

if TYPE_CHECKING:
    from lmn_model.training.errors import TrainingError, TrainingInterrupted
    from lmn_model.training.evaluation.evaluate import evaluate_run
    from lmn_model.training.evaluation.metrics import MetricError
    from lmn_model.training.evaluation.predict import PredictionError, predict_pairs
    from lmn_model.training.runs.checkpoint import CheckpointError
    from lmn_model.training.runs.folder import RunFolderError
    from lmn_model.training.runs.growth import grow_run
    from lmn_model.training.runs.loading import LoadedRun, load_run
    from lmn_model.training.settings import Settings, SettingsError
    from lmn_model.training.train_run import train

__all__ = [
    "CheckpointError",
    "LoadedRun",
    "MetricError",
    "PredictionError",
    "RunFolderError",
    "Settings",
    "SettingsError",
    "TrainingError",
    "TrainingInterrupted",
    "evaluate_run",
    "grow_run",
    "load_run",
    "predict_pairs",
    "train",
]
_MODULES = {
    "CheckpointError": "runs.checkpoint",
    "LoadedRun": "runs.loading",
    "MetricError": "evaluation.metrics",
    "PredictionError": "evaluation.predict",
    "RunFolderError": "runs.folder",
    "Settings": "settings",
    "SettingsError": "settings",
    "TrainingError": "errors",
    "TrainingInterrupted": "errors",
    "evaluate_run": "evaluation.evaluate",
    "grow_run": "runs.growth",
    "load_run": "runs.loading",
    "predict_pairs": "evaluation.predict",
    "train": "train_run",
}

__getattr__, __dir__ = import_on_use(__name__, _MODULES)
