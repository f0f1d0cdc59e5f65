"""Metrics of a finished run on its own validation or test split, or on other data."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from lmn_model.data import (
    DataError,
    Dataset,
    Split,
    Vocabularies,
    events_of_run,
    load_dataset,
    load_samples,
    load_source,
)
from lmn_model.data.clocks import time_in_words
from lmn_model.data.events.event_table import Events
from lmn_model.data.events.warnings import MANY_UNSEEN, warn_of_unseen_values
from lmn_model.training.build import open_dataset
from lmn_model.training.evaluation.metrics import click_metrics
from lmn_model.training.evaluation.new_events import logits_while_writing, write_new_events
from lmn_model.training.evaluation.scoring import evaluate_split
from lmn_model.training.reproducible import reproducible
from lmn_model.training.runs.fingerprint import data_fingerprint, same_data
from lmn_model.training.runs.folder import RunFolder
from lmn_model.training.runs.loading import LoadedRun, load_run
from lmn_model.training.settings import DataSettings, SettingsError

logger = logging.getLogger("lmn")

Scope = Literal["valid", "test", "all"]


def evaluate_run(
    root: Path | str,
    split: Scope | None = None,
    *,
    path: str | None = None,
    device: str | None = None,
    keep_writing: bool = False,
) -> dict[str, Any]:
    """Metrics of a run's best model on a split of its data, or on other data.

    On the test split of the run's own data a memory first writes the events since the step of the best model, see
    :func:`lmn_model.training.evaluation.new_events.write_new_events`. All rows of other events are scored. If these
    events come after the run's own data, and those can still be read, histories and memory hold the run's events.

    Args:
        root: the run folder.
        split: which split, or ``"all"`` rows of other events; None takes ``"all"`` for other events and ``"test"`` for
            the run's own data and for prepared rows.
        path: other events or rows with the columns of the run's; None reads the run's own.
        device: as the setting; None takes the run's own.
        keep_writing: keep writing during the test split, the events of each step after its samples were scored, as a
            service that learns from its events would. The model's weights stay as they are.

    Returns:
        ``{"split", "rows", "auc", "gauc", "log_loss"}``; of other events also ``unseen_users`` and ``unseen_items``,
        the shares of the rows whose user or item is not in the training split.

    Raises:
        MetricError: the samples have one class only.
        DataError: the events cannot be read or used.
        SettingsError: ``split`` is ``"all"``, but the data are the run's own or prepared rows; or ``keep_writing`` is
            set, and the split is not the test split of the run's own data, or nothing in the model writes events.
        RunFolderError, CheckpointError, SettingsError: as in :func:`lmn_model.training.runs.loading.load_run`.
    """
    run, best = load_run(root, device), RunFolder(root).best
    vocabularies = run.vocabularies
    other = path is not None and isinstance(vocabularies, Vocabularies)
    split = split or ("all" if other else "test")
    data = run.settings.data if path is None else replace(run.settings.data, path=path)
    training = run.settings.training
    if keep_writing:
        _check_writes_on(run, split, path)
    with reproducible(training.seed, training.threads, run.device):
        if keep_writing:
            samples, metrics = _written_on(run, best)
            return {"split": split, "rows": len(samples), **metrics}
        if split != "all":
            samples = _split_of(data, split, run, best, path)
        elif other and isinstance(vocabularies, Vocabularies):
            samples = _other_events(data, run, vocabularies, best)
        else:
            raise SettingsError("split: 'all' is for a table of other events, which --path names, got no such table")
        metrics = evaluate_split(run.model, samples, training.batch_size, run.device)
    found = {"split": split, "rows": len(samples), **metrics}
    return found if split != "all" else {**found, **_unseen_shares(samples, path)}


def _split_of(data: DataSettings, name: str, run: LoadedRun, best: Path, path: str | None) -> Split:
    """A split of the run's data, or of other data that are split in the same way."""
    dataset = open_dataset(data, run.vocabularies)
    if not _warn_of_change(run, dataset, path) and name == "test":
        _write_memory(run, best, dataset, "valid")
    return dataset.splits[name]


def _check_writes_on(run: LoadedRun, split: str, path: str | None) -> None:
    if split != "test" or path is not None:
        what = f"split {split!r}" if path is None else f"path {path!r}"
        raise SettingsError(f"keep_writing is for the test split of the run's own data, got {what}")
    if not run.settings.model.writes_new_events:
        raise SettingsError("keep_writing: the model of the run has no factored memory, profiles or event embeddings")


def _written_on(run: LoadedRun, best: Path) -> tuple[Split, dict[str, float | None]]:
    """The run's test split and its metrics, if the model keeps writing during it."""
    dataset = open_dataset(run.settings.data, run.vocabularies)
    if not same_data(run.data, found := data_fingerprint(dataset)):
        raise SettingsError(
            f"keep_writing: the data of the run have changed since training ({_difference(run.data, found)})"
        )
    logits = logits_while_writing(best, run.model, run.settings.training, dataset, run.device)
    return dataset.test, click_metrics(dataset.test.labels, logits, dataset.test.groups)


def _unseen_shares(samples: Split, path: str | None) -> dict[str, float]:
    users, items = (round(float(rows.mean()), 4) for rows in samples.unseen())
    if max(users, items) > MANY_UNSEEN:
        text = "%s: training has not seen the user of %.0f %% of the rows, the item of %.0f %%"
        logger.warning(text, path, 100 * users, 100 * items)
    return {"unseen_users": users, "unseen_items": items}


def _warn_of_change(run: LoadedRun, dataset: Dataset, path: str | None) -> bool:
    """Whether the data are not those that the run was trained on; a warning says what follows from it."""
    found = data_fingerprint(dataset)
    if same_data(run.data, found):
        return False
    what = "the data of the run have changed since training" if path is None else f"{path}: not the data of the run"
    memory = (
        "; its memory holds what training wrote, and no later event" if run.settings.model.writes_new_events else ""
    )
    logger.warning(
        "%s (%s). The splits are cut anew, so rows that the model learned from may be among those scored here%s",
        what,
        _difference(run.data, found),
        memory,
    )
    return True


def _difference(trained: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """What differs between two fingerprints: numbers of rows, or values alone."""
    sizes = [
        f"{'events' if name == 'tables' else f'{name} split'}: {trained[name][0]:,} rows in training, {count:,} here"
        for name, (count, _) in found.items()
        if name not in ("numbers", "times") and trained[name][0] != count
    ]
    return "; ".join(sizes) or "as many rows, other values"


def _write_memory(run: LoadedRun, best: Path, dataset: Dataset, through: Literal["valid", "test"]) -> None:
    if run.settings.model.writes_new_events:
        write_new_events(best, run.model, run.settings.training, dataset, run.device, through)


def _other_events(data: DataSettings, run: LoadedRun, vocabularies: Vocabularies, best: Path) -> Split:
    """All samples of another table of events, after the run's own events where those come before."""
    schema = vocabularies.schema
    events = events_of_run(*load_source(data.dataset, data.path, **data.columns()), vocabularies)
    times = events.times(schema)
    own = _own_events(run.settings.data, vocabularies, str(data.path), times[0])
    # Every mistake of the table is found before anything is logged about it.
    earlier = own.events if isinstance(own, _Own) else None
    samples = load_samples(events, data.options(), vocabularies, earlier=earlier)
    contexts = samples.tables.events.ids[samples.events]
    warn_of_unseen_values(contexts, schema.context_features, vocabularies.encoder, str(data.path))
    if vocabularies.times is not None and (count := int((times <= vocabularies.times[1]).sum())):
        logger.warning(
            "%s: %d of %d rows are not later than the run's training split, which ends at %s; the model may have "
            "learned from them",
            data.path,
            count,
            len(times),
            time_in_words(vocabularies.times[1], vocabularies.clock),
        )
    if isinstance(own, _Own):
        logger.info("%s: comes after the run's own events, which are its histories", data.path)
        if not _warn_of_change(run, own.dataset, None):
            _write_memory(run, best, own.dataset, "test")
    else:
        memory = ", and the memory what training wrote" if run.settings.model.writes_new_events else ""
        logger.warning("%s: %s, so histories hold its own events alone%s", data.path, own, memory)
    return samples


class _Own(NamedTuple):
    """The data that a run was trained on."""

    events: Events
    dataset: Dataset


def _own_events(data: DataSettings, vocabularies: Vocabularies, other: str, first: int) -> _Own | str:
    """The run's own events if they end before ``first``, the first moment of ``other``; else why they do not serve."""
    not_after = "does not come after the run's own events"
    if data.path is not None and os.path.realpath(data.path) == os.path.realpath(other):
        return not_after
    try:
        table, schema = load_source(data.dataset, data.path, **data.columns())
        events = events_of_run(table, schema, vocabularies)
        if events.times(schema)[-1] >= first:
            return not_after
        return _Own(events, load_dataset(events, schema, data.options(), vocabularies=vocabularies))
    except DataError as error:
        return f"the run's own events cannot be read ({error})"
