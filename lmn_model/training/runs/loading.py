"""Loading the best model of a run with all that scoring needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch

from lmn_model.ctr.model import CTRModel
from lmn_model.data import RowFeatures, Vocabularies, load_vocabularies
from lmn_model.training.build import build_model, check_backend, choose_device
from lmn_model.training.runs.folder import RunFolder
from lmn_model.training.runs.state import load_model
from lmn_model.training.settings import Settings


class LoadedRun(NamedTuple):
    """A trained model with all that is needed to score new rows."""

    settings: Settings
    model: CTRModel
    vocabularies: Vocabularies | RowFeatures
    device: torch.device
    data: dict[str, Any]
    """Fingerprint of what it was trained on, see :mod:`lmn_model.training.runs.fingerprint`."""


def load_run(root: Path | str, device: str | None = None) -> LoadedRun:
    """The best model of a run and its vocabularies, ready to score.

    Args:
        root: the run folder.
        device: as the setting; None takes the run's own.

    Raises:
        RunFolderError: no run is here.
        CheckpointError: the run has no model yet, or its file is damaged, of another shape or other settings.
        DataError: the vocabularies are missing or damaged.
    """
    folder = RunFolder(root)
    settings = folder.load_settings()
    target = choose_device(device or settings.training.device)
    check_backend(settings.model, target)
    vocabularies = load_vocabularies(folder.root)
    model = build_model(vocabularies.features, settings.model)
    trained = load_model(folder.best, model, {"settings": settings.decisive()})
    return LoadedRun(settings, model.to(target), vocabularies, target, trained["data"])
