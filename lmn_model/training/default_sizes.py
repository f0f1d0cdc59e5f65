"""Settings that follow the data where they are not set: passes, rows of a step, patience, what a memory has and writes.

A fixed batch gives a small table too few steps to learn from, a fixed memory fills a disk with slots that nothing is
written to, and a memory is written by the calendar only where there are times. So ``lmn train`` chooses these settings
once, when a run opens, and saves them with the run; a setting that is given always stays as it is.
docs/guides/default_sizes.md has the rule and what it was measured against.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from lmn_model.data import Dataset
from lmn_model.training.settings import Settings, SettingsError

EPOCH_STEPS = 250
"""Steps of an epoch that the batch size aims at."""
MIN_BATCH, MAX_BATCH = 32, 1024
MIN_EPOCHS, MAX_EPOCHS = 3, 5
STEPS_IN_ALL = 750
"""Steps that up to ``MAX_EPOCHS`` epochs make in a table which ``MIN_EPOCHS`` give fewer."""
ROWS_IN_ALL = 2_000_000
"""Training rows of all epochs together, beyond which there are fewer, at least one."""
PATIENCE_EPOCHS = 2
SLOTS_PER_PAIR = 3
"""Slots for each pair of a user and a value of an item feature."""
MIN_SUB_KEYS, MAX_SUB_KEYS = 32, 1024
PROFILE_LEVELS = {0: 2, 50_000: 5}
"""Levels of profiles by the training rows from which they are chosen."""
_BY_EVENTS = ("writes", "profile_levels", "profile_signed")
"""Chosen by what the events have, the others by their counts."""


class DataCounts(NamedTuple):
    """What the choice depends on.

    Attributes:
        train_rows: samples of the training split.
        pairs: different pairs of a user and a value of an item feature in the histories, items themselves among the
            values.
    """

    train_rows: int
    pairs: int

    @classmethod
    def of(cls, dataset: Dataset) -> DataCounts:
        """The counts of ``dataset``; sorts its events once for each item feature."""
        tables = dataset.train.tables
        histories = tables.histories
        users = np.repeat(np.arange(len(histories.starts) - 1), np.diff(histories.starts))  # [E]
        pairs = 0
        for ids in tables.items.ids.T:  # of each feature
            distinct, values = np.unique(ids, return_inverse=True)
            pairs += len(np.unique(users * len(distinct) + values[histories.items]))
        return cls(len(dataset.train), pairs)


def choose_sizes(settings: Settings, counts: DataCounts) -> dict[str, int]:
    """Values for what ``settings`` leave unset, by name; a pure function of the arguments.

    ``batch_size`` is the power of two that makes 250 steps of an epoch or a few more, from 32 to 1,024. ``epochs`` is
    as many as make 750 steps, from 3 to 5, but of no more than two million rows, and at least 1. ``patience`` is two
    epochs. ``sub_keys`` is the power of two whose square has three slots or more for each pair of a user and a value,
    from 32 to 1,024, and at least ``top_k``.
    """
    names = settings.unset()  # what a memory writes depends on more than counts: see fill_sizes
    found: dict[str, int] = {}
    rows, training = max(1, counts.train_rows), settings.training
    batch_size = training.batch_size
    if batch_size is None:
        batch_size = found["batch_size"] = min(max(_power_below(rows // EPOCH_STEPS), MIN_BATCH), MAX_BATCH)
    steps = -(-rows // batch_size)
    if "epochs" in names:
        epochs = min(max(STEPS_IN_ALL // steps, MIN_EPOCHS), MAX_EPOCHS)
        found["epochs"] = max(min(epochs, ROWS_IN_ALL // rows), 1)
    if "patience" in names:
        evaluations = 1 if training.eval_every is None else -(-steps // training.eval_every)
        found["patience"] = PATIENCE_EPOCHS * evaluations
    if "sub_keys" in names:
        sub_keys = MIN_SUB_KEYS
        while sub_keys < MAX_SUB_KEYS and sub_keys**2 < SLOTS_PER_PAIR * counts.pairs:
            sub_keys *= 2
        found["sub_keys"] = max(sub_keys, settings.model.memory.slots_read)
    return found


def fill_sizes(settings: Settings, dataset: Dataset) -> tuple[Settings, str]:
    """``settings`` with what they leave unset chosen by ``dataset``, and a sentence that says what and why.

    The sentence is empty if nothing was left unset that the data turn on.

    Raises:
        SettingsError: ``writes`` is ``"calendar"`` and the data have no times, or ``profile_signed`` is set for events
            without labels.
    """
    _check_writes(settings, dataset)
    names = settings.unset()
    if not names:
        return settings, ""
    chosen, reasons = settings, {}
    if set(names) - set(_BY_EVENTS):
        counts = DataCounts.of(dataset)
        chosen = settings.override(choose_sizes(settings, counts), source="default sizes")
        reasons = {
            f"{counts.train_rows:,} training rows": ("epochs", "batch_size", "patience"),
            f"{counts.pairs:,} pairs of a user and an item or a value of its features": ("sub_keys",),
        }
    if "writes" in names:
        chosen = chosen.override({"writes": dataset.train.writes()}, source="default sizes")
        times = "events with times" if chosen.training.writes == "calendar" else "rows without times"
        reasons[times] = ("writes",)
    if "profile_levels" in names or "profile_signed" in names:
        of_labels, reason = _profiles(chosen, dataset)
        chosen = chosen.override({name: of_labels[name] for name in of_labels if name in names}, source="default sizes")
        if reason and chosen.model.collaborative.profile_levels:
            reasons[reason] = tuple(of_labels)
    parts = []
    for reason, group in reasons.items():
        values = [f"{name} {chosen.value(name)}" for name in group if name in names]
        if values:
            parts.append(f"{', '.join(values)} for {reason}")
    return chosen, f"chosen by the data: {'; '.join(parts)}" if parts else ""


def _profiles(settings: Settings, dataset: Dataset) -> tuple[dict[str, int | bool], str]:
    """Levels of profiles and whether they are signed, and why if they are."""
    schema = getattr(dataset.vocabularies, "schema", None)  # prepared rows have none; their labels may be drawn or real
    labelled = schema is not None and schema.label is not None
    levels = settings.model.collaborative.profile_levels
    if levels is None:
        found = [levels for rows, levels in PROFILE_LEVELS.items() if len(dataset.train) >= rows]
        levels = found[-1] if labelled else 0
    on = labelled and levels > 0
    return {"profile_levels": levels, "profile_signed": on}, "events with labels" if on else ""


def _check_writes(settings: Settings, dataset: Dataset) -> None:
    schema = getattr(dataset.vocabularies, "schema", None)  # prepared rows have none; their labels may be drawn or real
    if settings.model.writes_feedback and schema is not None and schema.label is None:
        raise SettingsError(
            "profile_signed must be false for events without labels, whose zeros are drawn at random, got true"
        )
    if settings.model.writes_new_events:
        try:
            dataset.train.writes(settings.training.writes)
        except ValueError as error:
            raise SettingsError(str(error)) from error


def take_sizes(settings: Settings, run: Settings) -> Settings:
    """``settings`` with what they leave unset as ``run`` has it: equal to ``run`` if that was opened with them."""
    return settings.override({name: run.value(name) for name in settings.unset()}, source="settings of the run")


def _power_below(value: int) -> int:
    """The largest power of two that is at most ``value``, at least 1."""
    return 1 << max(0, value.bit_length() - 1)
