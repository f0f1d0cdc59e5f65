"""A data set: three splits of samples, and the ids and features that they share.

:mod:`lmn_model.data.events` and :mod:`lmn_model.data.rows` build it, with the limits and the checks below.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lmn_model.data.description import describe, summarise
from lmn_model.data.features import FeatureSpec
from lmn_model.data.options import DataOptions
from lmn_model.data.schema import DataError
from lmn_model.data.splits import Split

if TYPE_CHECKING:
    from lmn_model.data.events.vocabularies import Vocabularies
    from lmn_model.data.rows.features import RowFeatures

SPLITS = ("train", "valid", "test")


@dataclass(frozen=True, eq=False)
class Dataset:
    """Samples to train, validate and test on.

    Args:
        vocabularies: ids, scales and the features of users and items; of prepared rows the features alone.
        train: the earliest samples, to learn from.
        valid: samples to choose settings and the best step by.
        test: the latest samples, to report metrics on.
        event_count: events of the table.
    """

    vocabularies: Vocabularies | RowFeatures
    train: Split
    valid: Split
    test: Split
    event_count: int

    @property
    def features(self) -> FeatureSpec:
        """Names, order and sizes of the features, for a model."""
        return self.vocabularies.features

    @property
    def splits(self) -> Mapping[str, Split]:
        """The three splits by name."""
        return {name: getattr(self, name) for name in SPLITS}

    def describe(self) -> dict[str, object]:
        """Counts for ``metrics.json``; see :func:`lmn_model.data.description.describe`."""
        return describe(self.splits, self.event_count, self.vocabularies.clock, self.features.unseen is not None)

    def summary(self) -> str:
        """Counts of the splits in one line, for a log."""
        return summarise(self.splits, self.vocabularies.clock, self.features.unseen is not None)

    def warnings(self) -> list[str]:
        """Properties of the data that distort metrics, one sentence each; none is found in prepared rows."""
        return self.vocabularies.warnings(self.splits)


def capped(rows: NDArray[np.intp], options: DataOptions, split: int) -> NDArray[np.intp]:
    """At most ``max_train_rows`` of ``rows`` for split 0, else ``max_eval_rows``, drawn uniformly, in their order."""
    limit = options.max_train_rows if split == 0 else options.max_eval_rows
    if limit is None or limit >= len(rows):
        return rows
    return np.sort(np.random.default_rng([options.seed, split, 0]).choice(rows, limit, replace=False))


def refuse_one_class(labels: NDArray[np.float32], name: str) -> None:
    """Raise DataError if all labels of the split called ``name`` are 0, or all are 1."""
    positives = int(labels.sum())
    if positives in (0, len(labels)):
        only = int(positives > 0)
        raise DataError(f"{name}: all {len(labels)} labels are {only}; a split needs both classes")
