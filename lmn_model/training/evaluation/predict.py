"""Probabilities for pairs of user and item in a file, written beside the columns they came with."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
import polars as pl
from numpy.typing import NDArray

from lmn_model.data import RowFeatures, Split, Table, load_source, prepare_pairs, read_table
from lmn_model.data.tables.text_records import append_column, separator_of
from lmn_model.files import replacing
from lmn_model.training.evaluation.metrics import probabilities
from lmn_model.training.evaluation.scoring import predict_logits
from lmn_model.training.reproducible import reproducible
from lmn_model.training.runs.loading import load_run
from lmn_model.wording import reason_of

logger = logging.getLogger("lmn")

PROBABILITY = "probability"
SUFFIXES = (".csv", ".tsv", ".parquet")


class PredictionError(ValueError):
    """The predictions cannot be made or written; the message names the file or the run."""


def predict_pairs(
    run: Path | str,
    pairs: Path | str,
    out: Path | str,
    *,
    path: str | None = None,
    force: bool = False,
    device: str | None = None,
) -> int:
    """Score every pair of a table with the best model of a run and write the table with one more column.

    Args:
        run: the run folder.
        pairs: CSV, TSV or parquet with the user and item columns of the run, its context features, and if known a time
            and features of users and items that the run has no events of.
        out: ``.csv``, ``.tsv`` or ``.parquet`` to write, replaced as a whole. The rows keep their order and all their
            columns, byte for byte from one text file to another; the new column is ``probability``, float64.
        path: events for the histories, if others than those of the training.
        force: replace ``out`` if it exists.
        device: as the setting; None takes the run's own.

    Returns:
        Number of rows written.

    Raises:
        PredictionError: the run is one on prepared rows; ``out`` exists, has another suffix or cannot be written; or
            the pairs have the column already.
        RunFolderError, CheckpointError, SettingsError, DataError: as in ``load_run`` and ``prepare_pairs``.
    """
    target = Path(out)
    _check_target(target, force)
    settings, model, vocabularies, on, _ = load_run(run, device)
    if isinstance(vocabularies, RowFeatures):
        raise PredictionError(
            f"{run}: the run was trained on prepared rows, which have ids only; predict needs a run on events"
        )
    schema = vocabularies.schema
    table = read_table(
        pairs,
        (schema.user, schema.item, *schema.context_features),
        optional=(schema.timestamp, *schema.user_features, *schema.item_features),
    )
    if PROBABILITY in (table.header or ()):
        raise PredictionError(f"{pairs}: has a column {PROBABILITY!r} already; rename it first")
    data = settings.data if path is None else replace(settings.data, path=path)
    events, _ = load_source(data.dataset, data.path, **data.columns())
    split = prepare_pairs(
        table,
        events,
        schema,
        vocabularies,
        data.window_size,
        history=data.history,
        search_by=data.search_by,
        search_window=data.search_window,
    )
    _log_unseen(split)
    with reproducible(settings.training.seed, settings.training.threads, on):
        chances = probabilities(predict_logits(model, split, settings.training.batch_size, on))
    if count := int((~np.isfinite(chances)).sum()):
        raise PredictionError(
            f"{pairs}: {count} of {len(chances)} pairs have no finite probability; nothing is written"
        )
    try:
        with replacing(target) as temporary, temporary.open("wb") as file:
            _write(file, target.suffix, table, pairs, chances)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise PredictionError(f"{target}: cannot be written: {reason_of(error)}") from error
    return len(chances)


def _write(file: BinaryIO, suffix: str, table: Table, pairs: Path | str, chances: NDArray[np.float64]) -> None:
    """Write the whole table of the pairs and their probabilities."""
    separator = "\t" if suffix == ".tsv" else ","
    source = table.text_file
    if suffix != ".parquet" and source is not None and separator_of(source) == separator:
        append_column(file, source, PROBABILITY, [repr(chance) for chance in chances.tolist()])
        return
    scored = read_table(pairs).frame.with_columns(pl.Series(PROBABILITY, chances))
    if suffix == ".parquet":
        scored.write_parquet(file)
    else:
        scored.write_csv(file, separator=separator)


def _log_unseen(split: Split) -> None:
    users, items = split.unseen()
    for what, unseen in (("a user", users), ("an item", items)):
        if unseen.any():
            logger.warning("%.1f %% of the pairs have %s that training has no id for", 100 * unseen.mean(), what)


def _check_target(target: Path, force: bool) -> None:
    if target.suffix not in SUFFIXES:
        raise PredictionError(f"{target}: the suffix must be one of {', '.join(SUFFIXES)}")
    if not target.parent.is_dir():
        raise PredictionError(f"{target}: there is no folder {target.parent}")
    if target.exists() and not force:
        raise PredictionError(f"{target} exists; --force replaces it")
