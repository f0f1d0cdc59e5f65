"""A finished run as it is at the start of the test split, and the events before it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lmn_model.ctr import CTRModel
from lmn_model.data import DataError, Dataset, RowFeatures, Split, Vocabularies
from lmn_model.training.build import open_dataset
from lmn_model.training.evaluation.new_events import write_new_events
from lmn_model.training.reproducible import reproducible
from lmn_model.training.runs.checkpoint import open_checkpoint
from lmn_model.training.runs.fingerprint import data_fingerprint, same_data
from lmn_model.training.runs.folder import RunFolder, RunFolderError
from lmn_model.training.runs.loading import load_run
from lmn_model.training.settings import Settings


class WrittenRun(NamedTuple):
    """The best model of a run, to which the events up to the test split were written, and the data."""

    settings: Settings
    model: CTRModel
    vocabularies: Vocabularies | RowFeatures
    dataset: Dataset
    test: Split
    """The test split, which follows the earlier ones."""


@contextmanager
def written_run(root: Path | str, path: str | None, device: str | None) -> Iterator[WrittenRun]:
    """Load a run and write the events up to the test split, as evaluation does; reads inside are reproducible.

    Args:
        root: the run folder.
        path: where the data are, if they were moved.
        device: as the setting; None takes the run's own.

    Raises:
        RunFolderError: no run is here.
        DataError: the data cannot be read, or are not those of the run.
        CheckpointError: as in :func:`lmn_model.training.runs.loading.load_run`.
    """
    folder = RunFolder(root)
    settings, model, vocabularies, on, _ = load_run(root, device)
    data = settings.data if path is None else settings.override({"path": path}).data
    with reproducible(settings.training.seed, settings.training.threads, on):
        dataset = open_dataset(data, vocabularies)
        with open_checkpoint(folder.best) as file:
            trained_on = file.metadata.get("data")
        if trained_on is not None and not same_data(trained_on, data_fingerprint(dataset)):
            raise DataError(f"{path or data.path or data.dataset}: these are not the data that {folder} was trained on")
        write_new_events(folder.best, model, settings.training, dataset, on)
        model.eval()
        yield WrittenRun(
            settings, model, vocabularies, dataset, dataset.test.following(dataset.valid.following(dataset.train))
        )


def refuse_unfinished(folder: RunFolder) -> None:
    """Raise RunFolderError unless the run is finished."""
    metrics = folder.load_metrics()
    if metrics is None or metrics["status"] != "finished":
        raise RunFolderError(f"{folder}: the run is not finished; lmn train --resume {folder} finishes it")


def events_before(test: Split) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Rows of item and of user, ``[E]`` each and users ascending, of the true events before the test split.

    Rows without times have no common clock; there they are the events before the user's last sample of the earlier
    splits, which are the ones that were written.
    """
    histories = test.tables.histories
    starts = histories.starts[:-1]
    if test.seen is None:
        raise ValueError("the test split must follow the earlier splits, got none")
    ends = test.seen[: len(starts)]
    if histories.common_clock:
        ends = histories.ends(np.arange(len(starts)), np.full(len(starts), test.timestamps.min()))
    return histories.between(starts, ends)
