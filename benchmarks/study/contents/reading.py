"""What a factored memory answers about every pair of a user and a category, and what truly happened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lmn_kernels import gather_aggregate
from lmn_model.data import DataError, Dataset, RowFeatures, Vocabularies
from lmn_model.data.features import FIRST_KNOWN, PADDING
from lmn_model.modules.factored_memory import FactoredMemoryNetwork
from lmn_model.setting_types import SettingsError
from lmn_model.training.build import open_dataset
from lmn_model.training.evaluation.new_events import write_new_events
from lmn_model.training.reproducible import reproducible
from lmn_model.training.runs.checkpoint import open_checkpoint
from lmn_model.training.runs.fingerprint import data_fingerprint, same_data
from lmn_model.training.runs.folder import RunFolder, RunFolderError
from lmn_model.training.runs.loading import load_run
from lmn_model.wording import did_you_mean

MOST_PAIRS = 20_000_000
"""Of more pairs of user and category a draw of users is looked at."""
_ROWS = 1 << 16
FloatArray = NDArray[np.floating[Any]]
IntArray = NDArray[np.integer[Any]]


@dataclass(frozen=True, eq=False)
class Contents:
    """The memory of a run as it is when the test part begins, and the truth.

    Args:
        feature: name of the item feature; its values are called categories here.
        user: name of the user's id.
        dataset: name of the data set of the run.
        lengths: float32 ``[N, N]``, root mean square of each value row; a bound code has length 1.
        categories: ``[C]`` ids of the categories with an event before the test part.
        category_names: C of them; the id as text where the run kept no names.
        named: whether the run kept names.
        users: ``[U]`` ids of the users with an event before the test part.
        user_names: U of them.
        users_in_all: how many there are, U or more; of more than MOST_PAIRS pairs a draw of users is looked at.
        counts: int32 ``[U, C]``, events before the test part.
        shown: how many of them the memory was shown.
        projections: float32 ``[U, C]``, what the memory answers.
        category_keys: ``[C]``, the best sub-key of each category on axis 0.
        user_keys: ``[U]``, the best sub-key of each user on axis 1.
        members: for each item feature ``[N]``, how many of its ids have a sub-key of axis 0 as their best.
    """

    feature: str
    user: str
    dataset: str
    lengths: NDArray[np.float32]
    categories: IntArray
    category_names: list[str]
    named: bool
    users: IntArray
    user_names: list[str]
    users_in_all: int
    counts: IntArray
    shown: int
    projections: NDArray[np.float32]
    category_keys: IntArray
    user_keys: IntArray
    members: dict[str, IntArray]


def read_contents(
    root: Path | str, feature: str | None = None, *, path: str | None = None, device: str | None = None
) -> Contents:
    """Open a finished run, let its memory catch up, and ask it about every pair of user and category.

    The truth is every event before the test part begins. Prepared rows have no common clock; there it is every event
    before the user's last sample of the training and validation parts, which is what the memory was shown.

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
    settings = folder.load_settings()
    if not settings.model.has_memory:
        raise SettingsError(f"{folder}: a run with memory = 'none' has no memory to look into")
    if not settings.model.writes_new_events:
        raise SettingsError(
            f"{folder}: the memory has a joint query, whose slots stand for no item and no user; "
            "contents needs memory = 'factored'"
        )
    metrics = folder.load_metrics()
    if metrics is None or metrics["status"] != "finished":
        raise RunFolderError(f"{folder}: the run is not finished; lmn train --resume {folder} finishes it")
    settings, model, vocabularies, on, _ = load_run(root, device)
    place = _place(feature, [each.name for each in vocabularies.features.item])
    data = settings.data if path is None else settings.override({"path": path}).data
    network = model.memory
    if not isinstance(network, FactoredMemoryNetwork):
        raise TypeError(f"{folder}: the memory must be a FactoredMemoryNetwork, got {type(network).__name__}")
    with reproducible(settings.training.seed, settings.training.threads, on):
        dataset = open_dataset(data, vocabularies)
        with open_checkpoint(folder.best) as file:
            trained_on = file.metadata.get("data")
        if trained_on is not None and not same_data(trained_on, data_fingerprint(dataset)):
            raise DataError(f"{path or data.path or data.dataset}: these are not the data that {folder} was trained on")
        write_new_events(folder.best, model, settings.training, dataset, on)
        model.eval()
        users, categories, counts, shown, users_in_all = _truth(dataset, place)
        features = vocabularies.features
        user_ids, category_ids = (torch.from_numpy(ids).to(on) for ids in (users, categories))
        values = network.block.values.detach()
        N = network.block.keys.shape[2]
        lengths = torch.cat([some.float().square().mean(-1).sqrt().cpu() for some in values.split(_ROWS)])
        return Contents(
            feature=features.item[place].name,
            user=features.user[0].name,
            dataset=settings.data.dataset,
            lengths=lengths.view(N, N).numpy(),
            categories=categories,
            category_names=_names(vocabularies, features.item[place].name, categories),
            named=isinstance(vocabularies, Vocabularies),
            users=users,
            user_names=_names(vocabularies, features.user[0].name, users),
            users_in_all=users_in_all,
            counts=counts,
            shown=shown,
            projections=project(network, place, category_ids, user_ids),
            category_keys=_item_keys(network, place, category_ids),
            user_keys=_user_keys(network, user_ids),
            members={
                each.name: np.bincount(
                    _item_keys(network, other, torch.arange(_first_id(vocabularies), each.size, device=on)), minlength=N
                )
                for other, each in enumerate(features.item)
            },
        )


@torch.no_grad()
def project(network: FactoredMemoryNetwork, place: int, categories: Tensor, users: Tensor) -> NDArray[np.float32]:
    """The projection of the memory's answer on the bound code, of every pair: float32 ``[U, C]``.

    Args:
        network: the memory.
        place: which item feature.
        categories: ``[C]`` ids of it.
        users: ``[U]`` ids.
    """
    C = len(categories)
    item_codes = network.item_codes[categories + network.offsets[place]]  # [C, D]
    found = []
    for some in users.split(max(1, _ROWS // C)):
        item = categories.new_zeros(len(some) * C, len(network.offsets))  # [R, F], other features are not looked at
        item[:, place] = categories.repeat(len(some))
        slots, weights = network.pair_slots(item, some.repeat_interleave(C))
        answer = gather_aggregate(
            network.block.values,
            slots[:, place].contiguous(),
            weights[:, place].contiguous(),
            backend=network.block.backend,
        )
        bound = item_codes * network.user_codes[some].unsqueeze(1)  # [R / C, C, D]
        found.append((answer.to(bound.dtype).view_as(bound) * bound).mean(-1).float().cpu())
    return torch.cat(found).numpy()


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


def _truth(dataset: Dataset, place: int) -> tuple[IntArray, IntArray, IntArray, int, int]:
    """What happened before the test part: ids of users and categories, counts int32 [U, C], how many events of these
    the memory was shown, and how many users there are, drawn or not.
    """
    tables = dataset.train.tables
    histories, starts = tables.histories, tables.histories.starts[:-1]
    seen = dataset.test.following(dataset.valid.following(dataset.train)).seen
    if seen is None:
        raise ValueError("seen of the test part must tell what the parts before it have seen, got None")
    ends = seen = seen[: len(starts)]
    if not isinstance(dataset.vocabularies, RowFeatures):
        ends = histories.ends(np.arange(len(starts)), np.full(len(starts), dataset.test.timestamps.min()))
    first = _first_id(dataset.vocabularies)
    items, of = histories.between(starts, ends)
    was_shown = np.arange(len(of)) - np.searchsorted(of, of) + starts[of] < seen[of]  # `of` ascends
    users, categories = tables.users.ids[of, 0], tables.items.ids[items, place]
    known = (users >= first) & (categories >= first)
    if not known.any():
        raise DataError("no event before the test part is of a user and a category that training has an id for")
    user_ids, category_ids = np.unique(users[known]), np.unique(categories[known])
    users_in_all = len(user_ids)
    if users_in_all * len(category_ids) > MOST_PAIRS:
        most = max(2, MOST_PAIRS // len(category_ids))
        user_ids = np.sort(np.random.default_rng(0).choice(user_ids, min(most, len(user_ids)), replace=False))
        known &= np.isin(users, user_ids)
    shape = (len(user_ids), len(category_ids))
    pairs = np.searchsorted(user_ids, users[known]) * shape[1] + np.searchsorted(category_ids, categories[known])
    counts = np.bincount(pairs, minlength=shape[0] * shape[1]).astype(np.int32)
    return user_ids, category_ids, counts.reshape(shape), int(was_shown[known].sum()), users_in_all


def _first_id(vocabularies: Vocabularies | RowFeatures) -> int:
    """The first id that stands for one value; prepared rows have no id for what training has not seen."""
    return PADDING + 1 if isinstance(vocabularies, RowFeatures) else FIRST_KNOWN


def _names(vocabularies: Vocabularies | RowFeatures, column: str, ids: IntArray) -> list[str]:
    if isinstance(vocabularies, RowFeatures):
        return [str(each) for each in ids]
    values = vocabularies.encoder.vocabularies[column].values.to_list()
    return ["(none)" if values[each - FIRST_KNOWN] is None else str(values[each - FIRST_KNOWN]) for each in ids]


def _item_keys(network: FactoredMemoryNetwork, place: int, ids: Tensor) -> IntArray:
    """The best sub-key on axis 0: that of a pair's best slot, whoever the user is."""
    item = ids.new_zeros(len(ids), len(network.offsets))
    item[:, place] = ids
    slots = network.pair_slots(item, torch.zeros_like(ids)).slots[:, place, 0]
    return np.asarray(slots.div(network.block.keys.shape[2], rounding_mode="floor").cpu().numpy())


def _user_keys(network: FactoredMemoryNetwork, ids: Tensor) -> IntArray:
    item = ids.new_zeros(len(ids), len(network.offsets))
    return np.asarray((network.pair_slots(item, ids).slots[:, 0, 0] % network.block.keys.shape[2]).cpu().numpy())
