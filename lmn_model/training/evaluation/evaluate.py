"""Metrics of a finished run: on its own validation or test split, or on other data."""

from __future__ import annotations

import logging
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
from lmn_model.data.events.columns import Events
from lmn_model.data.events.description import MANY_UNSEEN, warn_of_unseen_values
from lmn_model.data.events.times import time_in_words
from lmn_model.training.build import open_dataset
from lmn_model.training.evaluation.new_events import write_new_events
from lmn_model.training.evaluation.scoring import evaluate_split
from lmn_model.training.reproducible import reproducible
from lmn_model.training.runs.fingerprint import data_fingerprint, same_data
from lmn_model.training.runs.folder import RunFolder
from lmn_model.training.runs.loading import LoadedRun, load_run
from lmn_model.training.settings import DataSettings, SettingsError

logger = logging.getLogger("lmn")

Part = Literal["valid", "test", "all"]


def evaluate_run(
    root: Path | str, part: Part | None = None, *, path: str | None = None, device: str | None = None
) -> dict[str, Any]:
    """Metrics of a run's best model on a split of its data, or on other data.

    On the test split of the run's own data a memory first writes the events since the step of the best model, see
    :func:`lmn_model.training.evaluation.new_events.write_new_events`. All rows of other events are scored. If these
    events come after the run's own data, and those can still be read, histories and memory hold the run's events.

    Args:
        root: the run folder.
        part: which split; None takes the test split of the run's own data and of prepared rows, and all of other
            events.
        path: other events or rows with the columns of the run's; None reads the run's own.
        device: as the setting; None takes the run's own.

    Returns:
        ``{"split", "rows", "auc", "gauc", "log_loss"}``; of other events also ``unseen_users`` and ``unseen_items``,
        the shares of the rows whose user or item training has not seen.

    Raises:
        MetricError: the samples have one class only.
        DataError: the events cannot be read or used.
        SettingsError: ``part`` is ``"all"``, but the data are the run's own or prepared rows.
        RunFolderError, CheckpointError, SettingsError: as in :func:`lmn_model.training.evaluation.load_run`.
    """
    run = load_run(root, device)
    rows = not isinstance(run.vocabularies, Vocabularies)
    part = part or ("test" if path is None or rows else "all")
    if part == "all" and (path is None or rows):
        raise SettingsError("split: 'all' is for a table of other events, which --path names, got no such table")
    training = run.settings.training
    with reproducible(training.seed, training.threads, run.device):
        if part == "all":
            split = _other_events(root, run, replace(run.settings.data, path=path))
        else:
            split = _own_split(root, run, part, path)
        metrics = evaluate_split(run.model, split, training.batch_size, run.device)
    found = {"split": part, "rows": len(split), **metrics}
    if part == "all":
        unseen = zip(("unseen_users", "unseen_items"), split.unseen(), strict=True)
        shares = {name: round(float(rows.mean()), 4) for name, rows in unseen}
        if max(shares.values()) > MANY_UNSEEN:
            logger.warning("%s: training has not seen the user of %.0f %% of the rows, the item of %.0f %%", path, *(
                100 * share for share in shares.values()))  # fmt: skip
        found.update(shares)
    return found


def _own_split(root: Path | str, run: LoadedRun, part: Literal["valid", "test"], path: str | None) -> Split:
    """A split of the run's data, or of others that are cut in the same way."""
    data = run.settings.data if path is None else replace(run.settings.data, path=path)
    dataset = open_dataset(data, run.vocabularies)
    same = not _warn_of_change(run, dataset, path)
    if part == "test" and same:
        _write_memory(root, run, dataset)
    split: Split = getattr(dataset, part)
    return split


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
        if name != "numbers" and trained[name][0] != count
    ]
    return "; ".join(sizes) or "as many rows, other values"


def _write_memory(
    root: Path | str, run: LoadedRun, dataset: Dataset, through: Literal["valid", "test"] = "valid"
) -> None:
    if run.settings.model.writes_new_events:
        write_new_events(RunFolder(root).best, run.model, run.settings.training, dataset, run.device, through)


def _other_events(root: Path | str, run: LoadedRun, data: DataSettings) -> Split:
    """All samples of another table of events."""
    vocabularies, options = run.vocabularies, data.options()
    if not isinstance(vocabularies, Vocabularies):
        raise DataError("split 'all': the run was trained on prepared rows")
    events = events_of_run(*load_source(data.dataset, data.path, **data.columns()), vocabularies)
    times = events.times(vocabularies.schema)
    own = _own_events(run)
    follows = isinstance(own, _Own) and own.events.times(vocabularies.schema)[-1] < times[0]
    # Every mistake of the table is found before anything is said of it.
    split = load_samples(events, options, vocabularies, earlier=own.events if follows else None)  # type: ignore[union-attr]
    warn_of_unseen_values(
        split.tables.events.ids[split.events], vocabularies.schema.context_features, vocabularies, str(data.path)
    )
    if vocabularies.times is not None and (count := int((times <= vocabularies.times[1]).sum())):
        logger.warning(
            "%s: %d of %d rows are not later than the run's training split, which ends at %s; the model may have "
            "learned from them",
            data.path,
            count,
            len(times),
            time_in_words(vocabularies.times[1], vocabularies.clock),
        )
    if isinstance(own, _Own) and follows:
        logger.info("%s: comes after the run's own events, which are its histories", data.path)
        if not _warn_of_change(run, own.dataset, None):
            _write_memory(root, run, own.dataset, "test")
        return split
    memory = ", and the memory what training wrote" if run.settings.model.writes_new_events else ""
    why = "does not come after the run's own events" if isinstance(own, _Own) else f"{own}"
    logger.warning("%s: %s, so histories hold its own events alone%s", data.path, why, memory)
    return split


class _Own(NamedTuple):
    """The data that a run was trained on."""

    events: Events
    dataset: Dataset


def _own_events(run: LoadedRun) -> _Own | str:
    """The data that the run was trained on, or why they cannot be read."""
    data, vocabularies = run.settings.data, run.vocabularies
    try:
        table, schema = load_source(data.dataset, data.path, **data.columns())
        dataset = load_dataset(table, schema, data.options(), vocabularies=vocabularies)  # type: ignore[arg-type]
        return _Own(events_of_run(table, schema, vocabularies), dataset)  # type: ignore[arg-type]
    except DataError as error:
        return f"the run's own events cannot be read ({error})"
