"""Starts or resumes a training run; a run that was interrupted ends with the same result, to the last digit on the CPU.

The files of a run folder decide whether a run starts, continues or is finished; :mod:`lmn_model.training.loop` trains.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch

from lmn_model.data import Dataset, Vocabularies, load_vocabularies
from lmn_model.training.build import check_backend, choose_device, open_dataset
from lmn_model.training.default_sizes import fill_sizes, take_sizes
from lmn_model.training.loop import Trainer
from lmn_model.training.reporting.notices import columns_in_words, without_effect, without_times
from lmn_model.training.reproducible import reproducible
from lmn_model.training.runs.folder import RunFolder, RunFolderError
from lmn_model.training.settings import Settings

logger = logging.getLogger("lmn")


def train(
    settings: Settings,
    run_folder: Path | str,
    *,
    resume: bool = False,
    dataset: Dataset | None = None,
    test: bool = True,
) -> dict[str, Any]:
    """Train a model and evaluate the best one on the test split.

    Args:
        settings: of the run; to resume, those in the folder, or those that it was opened with. Settings that are unset
            are chosen by the data when the run opens, see :mod:`lmn_model.training.default_sizes`.
        run_folder: where the run is kept, see :mod:`lmn_model.training.runs.folder`.
        resume: continue the run in the folder from its last checkpoint; a finished run is not touched, unless the
            settings now have more epochs, or its test split was not scored and ``test`` is true.
        dataset: the data that the settings name, if they are loaded already.
        test: False does not score the test split; use it while tuning. ``["results"]["test"]`` is then None.

    Returns:
        The content of ``metrics.json``. ``["results"]`` is equal for equal settings and data on one machine, however
        often the run was interrupted.

    Raises:
        RunFolderError: the folder holds a run already, or none to resume, cannot be written, or another process runs
            in it.
        SettingsError: the device is not there, the memory's kernels cannot run on it, or the model cannot be built.
        DataError: the events cannot be read or used.
        CheckpointError: the checkpoint to resume from is damaged, or the next cannot be written.
        TrainingError: a number of a batch, the loss, a gradient or a weight is NaN or infinite; the message names the
            step and the column or weight, and the last good checkpoint is kept.
        TrainingInterrupted: SIGINT or SIGTERM came; the state is saved.
    """
    folder = RunFolder(run_folder)
    device = choose_device(settings.training.device)
    check_backend(settings.model, device)
    if resume:
        folder.require_run()
    else:
        folder.make()
    with folder.locked():
        return _train(settings, folder, device, resume, dataset, test)


def _train(
    settings: Settings, folder: RunFolder, device: torch.device, resume: bool, dataset: Dataset | None, test: bool
) -> dict[str, Any]:
    if resume:
        folder.open()
        run = folder.load_settings(type(settings))
        settings = take_sizes(settings, run)
        if run != settings:
            raise RunFolderError(f"{folder}: the settings differ from those of the run; resume with {folder.settings}")
        metrics = folder.load_metrics()
        if metrics is not None and metrics["status"] == "finished" and _is_whole(metrics["results"], settings, test):
            logger.info("%s: the run is finished already", folder)
            return metrics
    else:
        folder.create()
    with reproducible(settings.training.seed, settings.training.threads, device):
        if dataset is None:
            dataset = open_dataset(settings.data, open_ids=not resume or _has_open_ids(folder))
        settings, sizes = fill_sizes(settings, dataset)
        trainer = Trainer(settings, dataset, folder, device)
        if not resume:
            settings.save(folder.settings)
        with folder.logging_to_file(logger):
            if sizes:
                logger.info("%s", sizes)
            if folder.last.exists():
                trainer.restore()
            else:
                dataset.vocabularies.save(folder.root)
            _log_notices(settings, dataset, trainer.warnings)
            return trainer.run(test)


def _has_open_ids(folder: RunFolder) -> bool:
    """Whether values outside the training split have open ids in a run; one of 0.1.0 has one id for all."""
    if not folder.vocabularies.exists():
        return True
    known = load_vocabularies(folder.root)
    return not isinstance(known, Vocabularies) or known.encoder.open_ids


def _log_notices(settings: Settings, dataset: Dataset, warnings: list[str]) -> None:
    if (columns := columns_in_words(dataset)) is not None:
        logger.info("%s", columns)
    for notice in (*without_effect(settings, dataset), *without_times(settings, dataset), *warnings):
        logger.warning("warning: %s", notice)


def _is_whole(results: dict[str, Any], settings: Settings, test: bool) -> bool:
    """Whether a finished run has all its epochs, and the metrics of the test split if that is to be scored."""
    trained = results["stopped_early"] or results["epochs"] >= settings.training.epochs
    return trained and (results["test"] is not None or not test)
