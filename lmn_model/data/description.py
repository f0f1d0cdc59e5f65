"""What a data set holds, in numbers for ``metrics.json`` and in words for a log."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from lmn_model.data.clocks import Clock, format_time, time_in_words
from lmn_model.data.splits import Split


def describe(
    splits: Mapping[str, Split], event_count: int, clock: Clock | None, shows_unseen: bool
) -> dict[str, object]:
    """Counts: users, items, events, and for each split rows, positives, users, moments, unseen users and items.

    ``unseen_items`` is the share of the positives, and of the negatives, whose item has no id from training,
    ``unseen_users`` the share of the users.

    Args:
        splits: the samples.
        event_count: events of the table.
        clock: of the moments; None for prepared rows without times, which have no moments.
        shows_unseen: whether ids show if training has seen them; those of prepared rows do not.
    """
    tables = next(iter(splits.values())).tables
    return {
        "users": len(tables.users.ids),
        "items": len(tables.items.ids) - 1,
        "events": event_count,
        **{name: _describe(split, clock, shows_unseen) for name, split in splits.items()},
    }


def _describe(split: Split, clock: Clock | None, shows_unseen: bool) -> dict[str, object]:
    counts: dict[str, object] = {
        "rows": len(split),
        "positives": int(split.labels.sum(dtype=np.float64)),
        "users": len(np.unique(split.users)),
    }
    if shows_unseen:
        users, items = split.unseen()
        counts["unseen_users"] = round(_distinct_share(split.users, users), 4)
        counts["unseen_items"] = {
            "positives": round(float(items[split.labels == 1].mean()), 4),
            "negatives": round(float(items[split.labels == 0].mean()), 4),
        }
    if clock is not None:
        counts["first"] = format_time(int(split.timestamps.min()), clock)
        counts["last"] = format_time(int(split.timestamps.max()), clock)
    return counts


def summarise(splits: Mapping[str, Split], clock: Clock | None, shows_unseen: bool) -> str:
    """The splits in one line: rows, users, and the shares of users and items that training has not seen."""
    return " | ".join(_summary(name, split, clock, shows_unseen) for name, split in splits.items())


def _summary(name: str, split: Split, clock: Clock | None, shows_unseen: bool) -> str:
    positive = 100 * float(split.labels.mean(dtype=np.float64))
    text = f"{name} {len(split):,} rows, {len(np.unique(split.users)):,} users, {positive:.1f} % positive"
    if clock is not None and name == "train":
        first, last = (time_in_words(int(moment), clock) for moment in (split.timestamps.min(), split.timestamps.max()))
        text = f"{text}, from {first} to {last}"
    if name == "train" or not shows_unseen:
        return text
    users, items = split.unseen()
    new_users, new_items = _distinct_share(split.users, users), _distinct_share(split.items, items)
    return f"{text}, {percent(new_users)} of users new, {percent(new_items)} of items new"


def _distinct_share(rows: NDArray[np.int32], mask: NDArray[np.bool_]) -> float:
    """The share of the distinct ``rows`` that ``mask`` marks; 0 if there is no row."""
    return len(np.unique(rows[mask])) / max(len(np.unique(rows)), 1)


def percent(share: float) -> str:
    """A share in whole percent; ``"under 1 %"`` if that is neither 0 nor 1."""
    return f"{100 * share:.0f} %" if share >= 0.01 or share == 0 else "under 1 %"
