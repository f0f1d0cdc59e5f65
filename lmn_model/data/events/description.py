"""What a data set holds, for a log and for ``metrics.json``, and what its metrics must be read with."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from lmn_model.data.clocks import Clock, format_time, time_in_words
from lmn_model.data.events.kinds import list_like
from lmn_model.data.events.vocabularies import Vocabularies
from lmn_model.data.features import FIRST_KNOWN, UNSEEN
from lmn_model.data.splits import Split
from lmn_model.wording import shown, shown_names

logger = logging.getLogger("lmn")

MANY_UNSEEN = 0.2
"""A split in which more than this share of the rows is of unseen users or items is warned of."""
UNEVEN_UNSEEN = 0.02
"""So far may the shares of unseen items among positives and sampled negatives differ."""


def describe(splits: Mapping[str, Split], event_count: int, clock: Clock | None) -> dict[str, object]:
    """Counts: users, items, events, and for each split rows, positives, users, moments, unseen users and items.

    ``unseen_items`` is the share of the positives, and of the negatives, whose item has no id from training,
    ``unseen_users`` the share of the users. Prepared rows, whose ``clock`` is None, know neither moments nor which ids
    training has seen.
    """
    tables = next(iter(splits.values())).tables
    return {
        "users": len(tables.users.ids),
        "items": len(tables.items.ids) - 1,
        "events": event_count,
        **{name: _describe(split, clock) for name, split in splits.items()},
    }


def _describe(split: Split, clock: Clock | None) -> dict[str, object]:
    counts: dict[str, object] = {
        "rows": len(split),
        "positives": int(split.labels.sum(dtype=np.float64)),
        "users": len(np.unique(split.users)),
    }
    if clock is None:
        return counts
    users, items = split.unseen()
    return {
        **counts,
        "unseen_users": round(len(np.unique(split.users[users])) / len(np.unique(split.users)), 4),
        "unseen_items": {
            "positives": round(float(items[split.labels == 1].mean()), 4),
            "negatives": round(float(items[split.labels == 0].mean()), 4),
        },
        "first": format_time(int(split.timestamps.min()), clock),
        "last": format_time(int(split.timestamps.max()), clock),
    }


def summarise(splits: Mapping[str, Split], clock: Clock | None) -> str:
    """The splits in one line: rows, users, and what training has not seen."""
    return " | ".join(_summary(name, split, clock) for name, split in splits.items())


def _summary(name: str, split: Split, clock: Clock | None) -> str:
    users = np.unique(split.users)
    positive = 100 * float(split.labels.mean(dtype=np.float64))
    text = f"{name} {len(split):,} rows, {len(users):,} users, {positive:.1f} % positive"
    if clock is None:
        return text
    if name == "train":
        first, last = (time_in_words(int(moment), clock) for moment in (split.timestamps.min(), split.timestamps.max()))
        return f"{text}, from {first} to {last}"
    unseen = split.unseen()
    shares = (
        _share(np.unique(rows[new]), np.unique(rows))
        for rows, new in zip((split.users, split.items), unseen, strict=True)
    )
    return f"{text}, " + ", ".join(
        f"{share} of {what} new" for share, what in zip(shares, ("users", "items"), strict=True)
    )


def _share(part: np.ndarray, whole: np.ndarray) -> str:
    share = 100 * len(part) / max(len(whole), 1)
    return "under 1 %" if 0 < share < 1 else f"{share:.0f} %"


def describe_columns(vocabularies: Vocabularies) -> str:
    """The kind of each column, with the number of values of the categorical ones."""
    features = vocabularies.features
    sizes = {each.name: each.size - FIRST_KNOWN for each in (*features.user, *features.item, *features.context)}
    schema = vocabularies.schema
    parts = [f"{shown(schema.user)} {sizes[schema.user]:,} users", f"{shown(schema.item)} {sizes[schema.item]:,} items"]
    for name in schema.features:
        numeric = vocabularies.kinds[name] == "numeric"
        measure = "numeric, marked where it is missing" if vocabularies.encoder.indicators else "numeric"
        parts.append(f"{shown(name)} {measure if numeric else f'categorical, {sizes[name]:,} values'}")
    return "; ".join(parts)


def warn_of(splits: Mapping[str, Split], vocabularies: Vocabularies) -> list[str]:
    """What a reader of the metrics must know of the data, a sentence each."""
    found = _warn_of_columns(vocabularies)
    for name, split in splits.items():
        empty = float((split.history_ends <= split.tables.histories.starts[split.users]).mean())
        if empty > 0.95:
            found.append(
                f"{name} split: {_percent(empty)} of the rows have an empty history, so no model sees what the user "
                "did before; is the user column right?"
            )
        if name != "train":
            found += _warn_of_unseen(name, split, sampled=vocabularies.schema.label is None)
    return found


def _warn_of_unseen(name: str, split: Split, sampled: bool) -> list[str]:
    users, items = split.unseen()
    found = []
    if (share := float(users.mean())) > MANY_UNSEEN:
        found.append(
            f"{name} split: {_percent(share)} of the rows are of users that training has not seen. A model knows them "
            "by their features and history window alone; a memory is never written for them and reads zeros. Compare "
            "its metrics with the baseline"
        )
    positives, negatives = (float(items[split.labels == label].mean()) for label in (1, 0))
    if sampled and (gap := abs(positives - negatives)) > UNEVEN_UNSEEN:
        found.append(
            f"{name} split: training has not seen the items of {_percent(positives)} of the positives and of "
            f"{_percent(negatives)} of the sampled negatives. To know only whether an item is new moves AUC from 0.5 "
            f"to {0.5 - gap / 2:.3f} or {0.5 + gap / 2:.3f}, so read AUC with care, and compare seeds; a 0/1 label "
            "column has no such bias"
        )
    elif (share := float(items.mean())) > MANY_UNSEEN:
        found.append(
            f"{name} split: {_percent(share)} of the rows are of items that training has not seen; a model knows them "
            "by their features alone"
        )
    return found


def _warn_of_columns(vocabularies: Vocabularies) -> list[str]:
    found = []
    for name in vocabularies.schema.features:
        if vocabularies.kinds[name] == "numeric":
            continue
        values = vocabularies.encoder.vocabularies[name].values
        if (several := list_like(values)) is not None:
            separator, share = several
            found.append(
                f"column {shown(name)}: {_percent(share)} of its {len(values):,} values hold {separator!r}. Each "
                "combination is one category; to use its parts, split it into columns of one value each"
            )
    return found


def warn_of_unseen_values(
    ids: NDArray[np.int64], columns: Sequence[str], vocabularies: Vocabularies, table: str
) -> None:
    """Log which categorical columns of a table hold mostly values that training has not seen.

    That is what another notation looks like: ``1`` for ``01``, or ``true`` of one file format for ``True`` of another.

    Args:
        ids: int64 [R, F], of the categorical ones of ``columns``.
        columns: names of columns of the table.
        vocabularies: of the run.
        table: what the message calls the table.
    """
    names = [name for name in columns if name in vocabularies.encoder.vocabularies]
    for name, column in zip(names, ids.T, strict=True):
        share = float((column == UNSEEN).mean()) if len(column) else 0.0
        if share > MANY_UNSEEN:
            known = vocabularies.encoder.vocabularies[name].values.drop_nulls().head(3).to_list()
            logger.warning(
                "%s: column %s: training has not seen the value of %s of the rows; it knows values such as %s",
                table,
                shown(name),
                _percent(share),
                shown_names(known),
            )


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.01 or share == 0 else "under 1 %"
