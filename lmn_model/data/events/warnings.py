"""Properties of event data that distort metrics, and values that training has not seen."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from lmn_model.data.description import percent
from lmn_model.data.events.encoder import Encoder
from lmn_model.data.features import is_unseen
from lmn_model.data.splits import Split
from lmn_model.wording import shown, shown_names

logger = logging.getLogger("lmn")

MANY_UNSEEN = 0.2
"""A larger share of rows with unseen users or items in a split is worth a warning."""
UNEVEN_UNSEEN = 0.02
"""So is a larger difference between the shares of unseen items among positives and sampled negatives."""
MISSING_TEXTS = ("nan", "none", "null", "na", "<na>")
"""How tools write a missing value as text, in lower case."""
MANY_EMPTY = 0.95
"""So is a larger share of rows with an empty history."""


def column_warnings(encoder: Encoder, columns: Sequence[str]) -> list[str]:
    """A sentence for each categorical one of ``columns`` whose values are lists."""
    found = []
    for name in columns:
        values = encoder.vocabularies[name].values if name in encoder.vocabularies else pl.Series()
        if (several := _list_like(values)) is not None:
            separator, share = several
            found.append(
                f"column {shown(name)}: {percent(share)} of its {len(values):,} values hold {separator!r}. Each "
                "combination is one category; to use its parts, split it into columns of one value each"
            )
    return found


def id_warnings(encoder: Encoder, columns: Sequence[str]) -> list[str]:
    """A sentence for each column of ids, one of which is the text of a missing value."""
    found = []
    for name in columns:
        values = encoder.vocabularies[name].values
        if missing := values.filter(values.str.to_lowercase().is_in(MISSING_TEXTS)).to_list():
            found.append(
                f"column {shown(name)}: {shown(missing[0])} is an id, and all its events are of one user or item; if "
                "it stands for a missing value, leave these rows out"
            )
    return found


def _list_like(values: pl.Series, separators: str = "|;,") -> tuple[str, float] | None:
    """The separator that many of the distinct text values hold and the share that does; None if there is none."""
    if len(values) < 10:
        return None
    for each in separators:
        share = float(values.str.contains(each, literal=True).fill_null(False).mean())  # type: ignore[arg-type]
        parts = values.drop_nulls().str.split(each).explode().n_unique()
        if share >= 0.2 and parts < len(values):
            return each, share
    return None


def split_warnings(splits: Mapping[str, Split], *, sampled_negatives: bool) -> list[str]:
    """A sentence for each split with many empty histories, and with many or uneven unseen users or items."""
    found = []
    for name, split in splits.items():
        empty = float((split.history_ends <= split.tables.histories.starts[split.users]).mean())
        if empty > MANY_EMPTY:
            found.append(
                f"{name} split: {percent(empty)} of the rows have an empty history, so no model sees what the user "
                "did before; is the user column right?"
            )
        if name != "train":
            found += _unseen_warnings(name, split, sampled_negatives)
    return found


def _unseen_warnings(name: str, split: Split, sampled_negatives: bool) -> list[str]:
    users, items = split.unseen()
    found = []
    if (share := float(users.mean())) > MANY_UNSEEN:
        found.append(
            f"{name} split: {percent(share)} of the rows are of users that training has not seen. A model has only "
            "their features and history window; a memory has nothing of them until it writes their events. Compare its "
            "metrics with the baseline"
        )
    positives, negatives = (float(items[split.labels == label].mean()) for label in (1, 0))
    if sampled_negatives and (gap := abs(positives - negatives)) > UNEVEN_UNSEEN:
        found.append(
            f"{name} split: training has not seen the items of {percent(positives)} of the positives and of "
            f"{percent(negatives)} of the sampled negatives. Whether an item is new is enough to move AUC from 0.5 "
            f"to {0.5 - gap / 2:.3f} or {0.5 + gap / 2:.3f}, so read AUC with care, and compare seeds; a 0/1 label "
            "column has no such bias"
        )
    elif (share := float(items.mean())) > MANY_UNSEEN:
        found.append(
            f"{name} split: {percent(share)} of the rows are of items that training has not seen; a model has only "
            "their features until a memory writes their events"
        )
    return found


def warn_of_unseen_values(ids: NDArray[np.int64], columns: Sequence[str], encoder: Encoder, table: str) -> None:
    """Log the categorical columns of a table in which training has not seen most values.

    A change of notation shows so: ``1`` for ``01``, or ``true`` of one file format for ``True`` of another.

    Args:
        ids: int64 [R, F], of the categorical ones of ``columns``.
        columns: names of columns of the table.
        encoder: of the run.
        table: name of the table in the message.
    """
    names = [name for name in columns if name in encoder.vocabularies]
    for name, column in zip(names, ids.T, strict=True):
        share = float(is_unseen(column).mean()) if len(column) else 0.0
        if share > MANY_UNSEEN:
            known = encoder.vocabularies[name].values.drop_nulls().head(3).to_list()
            logger.warning(
                "%s: column %s: training has not seen the value of %s of the rows; it has seen values such as %s",
                table,
                shown(name),
                percent(share),
                shown_names(known),
            )
