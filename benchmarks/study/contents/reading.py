"""Open the memory of a finished run, read it for every pair of a user and a category, and count the true events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.study.contents.queries import IntArray, item_keys, read_familiarity, slot_norms, user_keys
from benchmarks.study.written_run import WrittenRun, events_before, refuse_unfinished, written_run
from lmn_model.data import DataError, RowFeatures, Vocabularies, load_vocabularies
from lmn_model.data.features import FIRST_KNOWN, FIRST_OPEN, PADDING
from lmn_model.modules.factored_memory import FactoredMemoryNetwork
from lmn_model.setting_types import SettingsError
from lmn_model.training.runs.folder import RunFolder
from lmn_model.training.settings import Settings
from lmn_model.wording import did_you_mean

MAX_PAIRS = 20_000_000
"""Of more pairs of user and category a random sample of users is read."""


@dataclass(frozen=True, eq=False)
class Contents:
    """The memory of a run at the start of the test split, and the true events before it.

    Args:
        feature: name of the item feature; its values are called categories here.
        user: name of the user's id.
        norms: float32 ``[N, N]``, root mean square of each value row; that of a bound code is 1.
        category_names: C names of the categories with an event; the id as text where the run has no names.
        named: whether the run has names.
        users: ``[U]`` ids of the users with an event.
        user_names: U of them.
        users_in_all: how many there are; more than U if a sample of them is read, see :data:`MAX_PAIRS`.
        counts: int32 ``[U, C]``, true events.
        shown: how many of them were written to the memory.
        familiarity: float32 ``[U, C]``, what the memory returns.
        category_keys: ``[C]``, the best sub-key of each category on axis 0.
        user_keys: ``[U]``, the best sub-key of each user on axis 1.
        members: for each item feature ``[N]``, how many of its ids have a sub-key of axis 0 as their best.
    """

    feature: str
    user: str
    norms: NDArray[np.float32]
    category_names: list[str]
    named: bool
    users: IntArray
    user_names: list[str]
    users_in_all: int
    counts: IntArray
    shown: int
    familiarity: NDArray[np.float32]
    category_keys: IntArray
    user_keys: IntArray
    members: dict[str, IntArray]


def read_contents(
    root: Path | str, feature: str | None = None, *, path: str | None = None, device: str | None = None
) -> Contents:
    """Open a finished run, write the events up to the test split, and read its memory for every pair.

    True events are all before the test split begins. Prepared rows have no common clock; there they are those before
    the user's last sample of the training and validation splits, which are the ones that were written.

    Args:
        root: the run folder.
        feature: item feature; None takes the last with "category" in its name, or the last.
        path: where the data are, if they were moved.
        device: as the setting; None takes the run's own.

    Raises:
        RunFolderError: no run is here, or it is not finished.
        SettingsError: the run has no memory, or one with a joint query or an ablation, or no such item feature.
        DataError: the data cannot be read, or are not those of the run.
        CheckpointError: as in :func:`lmn_model.training.runs.loading.load_run`.
    """
    folder = RunFolder(root)
    _check_run(folder, folder.load_settings())
    vocabularies = load_vocabularies(folder.root)
    features = vocabularies.features
    place = _place(feature, [each.name for each in features.item])
    with written_run(root, path, device) as run:
        network = run.model.memory
        if not isinstance(network, FactoredMemoryNetwork):
            raise TypeError(f"{folder}: the memory must be a FactoredMemoryNetwork, got {type(network).__name__}")
        on = network.offsets.device
        users, categories, counts, shown, users_in_all = _true_events(run, place)
        user_ids, category_ids = (torch.from_numpy(ids).to(on) for ids in (users, categories))
        members = {}
        for other, each in enumerate(features.item):
            keys = item_keys(network, other, torch.arange(_first_id(vocabularies), each.size, device=on))
            members[each.name] = np.bincount(keys, minlength=network.block.keys.shape[2])
        return Contents(
            feature=features.item[place].name,
            user=features.user[0].name,
            norms=slot_norms(network),
            category_names=_names(vocabularies, features.item[place].name, categories),
            named=isinstance(vocabularies, Vocabularies),
            users=users,
            user_names=_names(vocabularies, features.user[0].name, users),
            users_in_all=users_in_all,
            counts=counts,
            shown=shown,
            familiarity=read_familiarity(network, place, category_ids, user_ids),
            category_keys=item_keys(network, place, category_ids),
            user_keys=user_keys(network, user_ids),
            members=members,
        )


def _check_run(folder: RunFolder, settings: Settings) -> None:
    """Raise unless the run is finished and its memory has slots that stand for an item and a user."""
    if not settings.model.has_memory:
        raise SettingsError(f"{folder}: a run with memory = 'none' has no memory")
    if not settings.model.writes_new_events:
        raise SettingsError(
            f"{folder}: the memory has a joint query, whose slots stand for no item and no user; "
            "contents needs memory = 'factored'"
        )
    refuse_unfinished(folder)


def _place(feature: str | None, names: Sequence[str]) -> int:
    if feature is None:
        named = [place for place, name in enumerate(names) if "category" in name.casefold()]
        return named[-1] if named else len(names) - 1
    if feature not in names:
        raise SettingsError(
            f"--feature: there is no item feature {feature!r}{did_you_mean(feature, names)} "
            f"(there are {', '.join(names)})"
        )
    return list(names).index(feature)


def _true_events(run: WrittenRun, place: int) -> tuple[IntArray, IntArray, IntArray, int, int]:
    """Events before the test split: ids of users and of categories, counts int32 [U, C], how many of these events were
    written, and how many users there are, read or not.
    """
    test, tables = run.test, run.test.tables
    histories, starts = tables.histories, tables.histories.starts[:-1]
    if test.seen is None or test.after is None:
        raise ValueError("the test split must follow the earlier splits, got none")
    first = _first_id(run.vocabularies)
    items, of = events_before(test)
    positions = np.arange(len(of)) - np.searchsorted(of, of) + starts[of]  # `of` ascends
    if test.writes(run.settings.training.writes) == "calendar":
        was_written = histories.times[positions] <= test.after
    else:
        was_written = positions < test.seen[of]
    users, categories = tables.users.ids[of, 0], tables.items.ids[items, place]
    known = (users >= first) & (users < FIRST_OPEN) & (categories >= first) & (categories < FIRST_OPEN)
    if not known.any():
        raise DataError("no event before the test split is of a user and a category that training has an id for")
    user_ids, category_ids = np.unique(users[known]), np.unique(categories[known])
    users_in_all = len(user_ids)
    if users_in_all * len(category_ids) > MAX_PAIRS:
        count = min(max(2, MAX_PAIRS // len(category_ids)), users_in_all)
        user_ids = np.sort(np.random.default_rng(0).choice(user_ids, count, replace=False))
        known &= np.isin(users, user_ids)
    counts = np.zeros((len(user_ids), len(category_ids)), dtype=np.int32)
    rows, columns = np.searchsorted(user_ids, users[known]), np.searchsorted(category_ids, categories[known])
    np.add.at(counts, (rows, columns), 1)
    return user_ids, category_ids, counts, int(was_written[known].sum()), users_in_all


def _first_id(vocabularies: Vocabularies | RowFeatures) -> int:
    """The first id that stands for one value; prepared rows have no id for unseen values."""
    return PADDING + 1 if isinstance(vocabularies, RowFeatures) else FIRST_KNOWN


def _names(vocabularies: Vocabularies | RowFeatures, column: str, ids: IntArray) -> list[str]:
    if isinstance(vocabularies, RowFeatures):
        return [str(each) for each in ids]
    values = vocabularies.encoder.vocabularies[column].values.to_list()
    return ["(none)" if values[each - FIRST_KNOWN] is None else str(values[each - FIRST_KNOWN]) for each in ids]
