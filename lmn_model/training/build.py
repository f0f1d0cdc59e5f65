"""From settings to what a run works with: the data set, the device and the model."""

from __future__ import annotations

import torch

from lmn_kernels.backend import use_triton
from lmn_model.ctr.model import CTRModel
from lmn_model.ctr.settings import ModelSettings
from lmn_model.data import (
    DataError,
    Dataset,
    FeatureSpec,
    RowFeatures,
    Vocabularies,
    load_dataset,
    load_rows,
    load_source,
)
from lmn_model.training.settings import COLUMN_SETTINGS, DataSettings, SettingsError


def open_dataset(
    data: DataSettings, vocabularies: Vocabularies | RowFeatures | None = None, *, open_ids: bool = True
) -> Dataset:
    """Read the events that the settings name and make samples of them, or read prepared rows.

    Args:
        data: where the events or rows are and how samples are made.
        vocabularies: ids of an earlier run, to score other events under them.
        open_ids: as in ``load_dataset``.

    Raises:
        DataError: the file is missing, a check of the table fails, settings of events are given for rows, or
            ``vocabularies`` are of rows and the data are events, or the other way round.
    """
    if data.dataset == "rows":
        return _open_rows(data, vocabularies)
    if isinstance(vocabularies, RowFeatures):
        raise DataError(f"dataset {data.dataset!r}: the run was trained on prepared rows, which fit no events")
    frame, schema = load_source(data.dataset, data.path, **data.columns())
    return load_dataset(frame, schema, data.options(), vocabularies=vocabularies, open_ids=open_ids)


def _open_rows(data: DataSettings, vocabularies: Vocabularies | RowFeatures | None) -> Dataset:
    if data.path is None:
        raise DataError("rows: path must name the folder of the prepared rows")
    if isinstance(vocabularies, Vocabularies):
        raise DataError("dataset 'rows': the run was trained on events, which fit no prepared rows")
    for name in COLUMN_SETTINGS:
        if (value := getattr(data, name)) is not None:
            raise DataError(f"{name} names columns of events, but those of prepared rows are fixed; got {value!r}")
    return load_rows(data.path, data.options(), vocabularies=vocabularies)


def choose_device(name: str) -> torch.device:
    """The device that the setting ``device`` means; ``auto`` is CUDA where there is one.

    Raises:
        SettingsError: the name is no device, or is CUDA where there is none.
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
        raise SettingsError(f"device {name!r} is not there: torch sees {torch.cuda.device_count()} CUDA devices")
    return device


def check_backend(settings: ModelSettings, device: torch.device) -> None:
    """Raise SettingsError if the memory's kernels cannot run on ``device``, before the run spends any time."""
    if not (settings.has_memory or settings.collaborative.is_on):
        return
    try:
        use_triton("memory", settings.memory.backend, device)
    except (RuntimeError, ValueError) as error:
        raise SettingsError(f"backend: {error}") from error


def build_model(features: FeatureSpec, settings: ModelSettings) -> CTRModel:
    """A model with fresh weights, on the CPU.

    Raises:
        SettingsError: a model setting is out of range, does not go with another, or needs more memory than there is.
    """
    try:
        return CTRModel(features, settings)
    except (TypeError, ValueError, OverflowError, MemoryError, RuntimeError) as error:
        # Building only allocates and draws: torch's RuntimeError is about a size, refused or not to be counted.
        reason = str(error).splitlines()[0] if str(error) else "out of memory"
        raise SettingsError(f"model: it cannot be built with these sizes: {reason}") from error
