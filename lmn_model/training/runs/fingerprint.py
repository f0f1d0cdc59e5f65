"""Fingerprints of data sets, by which a run recognises the data that it was trained on."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from lmn_model.data import Dataset


def data_fingerprint(dataset: Dataset) -> dict[str, Any]:
    """The identity of a data set: of each split the rows and a CRC-32 of its labels, users, items and times.

    ``tables`` is of the histories and categorical features of all events, which the samples alone do not show;
    ``numbers`` is of their numeric features, and ``times`` of the times of the histories, if there are any.
    """
    parts: dict[str, Any] = {}
    for name, split in dataset.splits.items():
        parts[name] = [len(split), _checksum(split.labels, split.groups, split.items, split.timestamps)]
    tables = dataset.train.tables
    ids = (tables.histories.items, tables.users.ids, tables.items.ids, tables.events.ids)
    parts["tables"] = [dataset.event_count, _checksum(*ids)]
    numeric = (tables.users.numbers, tables.items.numbers, tables.events.numbers)
    if any(each.shape[1] for each in numeric):
        parts["numbers"] = [dataset.event_count, _checksum(*numeric)]
    if tables.histories.common_clock:
        parts["times"] = [dataset.event_count, _checksum(tables.histories.times)]
    return parts


def same_data(trained: Mapping[str, Any], found: Mapping[str, Any]) -> bool:
    """Whether two fingerprints are of the same data; a checksum that an older run did not store is not compared."""
    return {**found, **trained} == found


def _checksum(*columns: npt.NDArray[Any]) -> int:
    checksum = 0
    for column in columns:
        checksum = zlib.crc32(np.ascontiguousarray(column), checksum)
    return checksum
