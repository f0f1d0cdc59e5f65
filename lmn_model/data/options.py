"""How samples are made of events: the window, the splits, the negatives and the limits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lmn_model.data.schema import DataError


@dataclass(frozen=True)
class DataOptions:
    """How samples are made of events.

    Args:
        window: T, events of the history in a batch.
        valid_fraction: share of the samples, in the order of time, in the validation split.
        test_fraction: share in the test split, which comes last.
        valid_from: first moment of the validation split, ISO text or an integer; replaces the fractions, together with
            ``test_from``.
        test_from: first moment of the test split.
        negatives: sampled negatives for each positive where the table has no labels.
        max_train_rows: at most this many events become samples of the training split, drawn uniformly; their negatives
            come on top. Ids, popularity and histories still rest on all events.
        max_eval_rows: the same for the validation split and the test split, each. By ``writes="samples"`` a memory is
            written between them with the histories of the validation samples, so with fewer events.
        min_item_count: items with fewer events in the training split are as items that it does not hold.
        history: which events enter histories where the table has labels: ``"positive"`` for label 1, or ``"all"``.
            Events without a label always do.
        seed: of the draws of negatives and of rows; the draws of each split are independent.
        search_by: name of a categorical item feature, such as the category or the item id itself: batches then hold the
            newest events of the whole history with the candidate's value of it. None disables the search.
        search_window: S, the number of these events.
        user_rates: where the table has labels, give samples two numeric features of the user's labels before them: how
            many, and their rate.

    Raises:
        DataError: if an option is out of range, or one of ``valid_from`` and ``test_from`` is given alone.
    """

    window: int = 50
    valid_fraction: float = 0.1
    test_fraction: float = 0.1
    valid_from: str | int | None = None
    test_from: str | int | None = None
    negatives: int = 1
    max_train_rows: int | None = None
    max_eval_rows: int | None = None
    min_item_count: int = 1
    history: Literal["positive", "all"] = "positive"
    seed: int = 0
    search_by: str | None = None
    search_window: int = 50
    user_rates: bool = True

    def __post_init__(self) -> None:
        counts = ("window", "negatives", "max_train_rows", "max_eval_rows", "min_item_count", "search_window")
        for name, lowest in {**dict.fromkeys(counts, 1), "seed": 0}.items():
            value = getattr(self, name)
            if value is not None and value < lowest:
                raise DataError(f"{name} must be at least {lowest}, got {value}")
        for name in ("valid_fraction", "test_fraction"):
            if not 0 < getattr(self, name) < 1:
                raise DataError(f"{name} must be between 0 and 1, got {getattr(self, name)}")
        if self.valid_fraction + self.test_fraction >= 1:
            both = self.valid_fraction + self.test_fraction
            raise DataError(f"valid_fraction and test_fraction must leave rows for training, got {both:g} in all")
        if (self.valid_from is None) != (self.test_from is None):
            raise DataError("valid_from and test_from must be given together")
        if self.history not in ("positive", "all"):
            raise DataError(f"history must be 'positive' or 'all', got {self.history!r}")
