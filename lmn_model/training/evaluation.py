"""Scoring a split with a model, and opening the model and the data of a finished run."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from lmn_kernels.backend import use_triton
from lmn_model.ctr import CTRModel, ModelSettings
from lmn_model.data import (
    BatchLoader,
    DataError,
    Dataset,
    FeatureSpec,
    RowFeatures,
    Split,
    Vocabularies,
    load_dataset,
    load_rows,
    load_source,
    load_vocabularies,
)
from lmn_model.training.metrics import click_metrics
from lmn_model.training.run_folder import RunFolder
from lmn_model.training.run_state import load_model
from lmn_model.training.settings import COLUMN_SETTINGS, DataSettings, Settings, SettingsError


class LoadedRun(NamedTuple):
    """A trained model with all that is needed to score new rows."""

    settings: Settings
    model: CTRModel
    vocabularies: Vocabularies | RowFeatures
    device: torch.device
    data: dict[str, Any]
    """Fingerprint of what it was trained on, see :func:`data_fingerprint`."""


def predict_logits(model: CTRModel, split: Split, batch_size: int, device: torch.device) -> npt.NDArray[np.float32]:
    """Logits of every row of ``split`` in its own order, float32 ``[R]``; the model's mode is restored afterwards."""
    logits = np.empty(len(split), dtype=np.float32)
    training, first = model.training, 0
    model.eval()
    try:
        with torch.no_grad(), closing(iter(BatchLoader(split, batch_size))) as batches:
            for batch in batches:
                rows = len(batch)
                logits[first : first + rows] = model(batch.to(device)).logits.float().cpu().numpy()
                first += rows
    finally:
        model.train(training)
    return logits


def evaluate_split(model: CTRModel, split: Split, batch_size: int, device: torch.device) -> dict[str, float | None]:
    """AUC, GAUC and log loss of ``model`` on ``split``.

    Raises:
        MetricError: the split has one class only, or a logit is not finite.
    """
    return click_metrics(split.labels, predict_logits(model, split, batch_size, device), split.groups)


def open_dataset(data: DataSettings, vocabularies: Vocabularies | RowFeatures | None = None) -> Dataset:
    """Read the events that the settings name and make samples of them, or read prepared rows.

    Args:
        data: where the events or rows are and how samples are made.
        vocabularies: ids of an earlier run, to score other events under them.

    Raises:
        DataError: the file is missing, a check of the table fails, settings of events are given for rows, or
            ``vocabularies`` are of rows and the data are events, or the other way round.
    """
    if data.dataset == "rows":
        return _open_rows(data, vocabularies)
    if isinstance(vocabularies, RowFeatures):
        raise DataError(f"dataset {data.dataset!r}: the run was trained on prepared rows, which fit no events")
    frame, schema = load_source(data.dataset, data.path, **data.columns())
    return load_dataset(frame, schema, data.options(), vocabularies=vocabularies)


def _open_rows(data: DataSettings, vocabularies: Vocabularies | RowFeatures | None) -> Dataset:
    if data.path is None:
        raise DataError("rows: path must name the folder of the prepared rows")
    if isinstance(vocabularies, Vocabularies):
        raise DataError("dataset 'rows': the run was trained on events, which fit no prepared rows")
    for name in COLUMN_SETTINGS:
        if (value := getattr(data, name)) is not None:
            raise DataError(f"{name} names columns of events, but those of prepared rows are fixed; got {value!r}")
    return load_rows(data.path, data.options(), vocabularies=vocabularies)


def data_fingerprint(dataset: Dataset) -> dict[str, Any]:
    """What identifies a dataset: rows and a CRC-32 of labels, users, items and times of each split, then of all events.

    ``tables`` is of the histories and the categorical features, which the samples alone do not show, ``numbers`` of
    the numeric features, where there are any.
    """
    parts: dict[str, Any] = {}
    for name, split in dataset.splits.items():
        parts[name] = [len(split), _checksum(split.labels, split.groups, split.items, split.timestamps)]
    tables = dataset.train.tables
    ids = (tables.histories.items, tables.users.ids, tables.items.ids, tables.events.ids)
    parts["tables"] = [dataset.event_count, _checksum(*ids)]
    numbers = (tables.users.numbers, tables.items.numbers, tables.events.numbers)
    if any(each.shape[1] for each in numbers):
        parts["numbers"] = [dataset.event_count, _checksum(*numbers)]
    return parts


def same_data(trained: Mapping[str, Any], found: Mapping[str, Any]) -> bool:
    """Whether two fingerprints are of the same data; what an older run did not keep is not compared."""
    return {**found, **trained} == found


def _checksum(*columns: npt.NDArray[Any]) -> int:
    checksum = 0
    for column in columns:
        checksum = zlib.crc32(np.ascontiguousarray(column), checksum)
    return checksum


def choose_device(name: str) -> torch.device:
    """The device that the setting ``device`` means; ``auto`` is CUDA where there is one.

    Raises:
        SettingsError: the name is no device, or asks for CUDA where there is none.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise SettingsError(f"device must be auto, cpu, cuda or cuda:N, got {name!r}") from error
    if device.type not in ("cpu", "cuda"):
        raise SettingsError(f"device must be auto, cpu, cuda or cuda:N, got {name!r}")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise SettingsError(f"device {name!r} was asked for, but torch sees {torch.cuda.device_count()} CUDA devices")
    return device


def check_backend(settings: ModelSettings, device: torch.device) -> None:
    """Raise SettingsError if the memory's kernels cannot run on ``device``, before anything is spent on the run."""
    if not settings.has_memory:
        return
    try:
        use_triton("memory", settings.memory.backend, device)
    except (RuntimeError, ValueError) as error:
        raise SettingsError(f"backend: {error}") from error


def build_model(features: FeatureSpec, settings: ModelSettings) -> CTRModel:
    """A model with fresh weights, on the CPU.

    Raises:
        SettingsError: a model setting is out of range, does not go with another, or asks for more memory than there is.
    """
    try:
        return CTRModel(features, settings)
    except (TypeError, ValueError, OverflowError, MemoryError, RuntimeError) as error:
        # Building only allocates and draws: torch's RuntimeError is about a size, refused or not to be counted.
        reason = str(error).splitlines()[0] if str(error) else "out of memory"
        raise SettingsError(f"model: it cannot be built with these sizes: {reason}") from error


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
