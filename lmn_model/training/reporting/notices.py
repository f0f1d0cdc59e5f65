"""Notices about settings and data that are logged before the first step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from lmn_model.ctr import MemorySettings
from lmn_model.data import Dataset, Vocabularies
from lmn_model.training.settings import Settings

_OF_MEMORY = (
    "memory_learning_rate",
    "memory_optimizer",
    "stochastic_rounding",
    "reseed_every",
    "memory_usage",
    "writes",
)
"""Settings of ``[training]`` that concern the memory."""


def columns_in_words(dataset: Dataset) -> str | None:
    """The kind of each column; None for prepared rows, whose columns are all ids."""
    vocabularies = dataset.vocabularies
    return f"columns: {vocabularies.summary()}" if isinstance(vocabularies, Vocabularies) else None


def without_times(settings: Settings, dataset: Dataset) -> list[str]:
    """What a factored memory cannot promise on prepared rows without times: one sentence, or none."""
    if not settings.model.writes_new_events or dataset.train.tables.histories.common_clock:
        return []
    return [
        "these prepared rows have no times, so within a split the order of two users' samples is approximate: when a "
        "sample is scored, the memory may already hold later events of other users; columns timestamp and "
        "full_time_seq give the order"
    ]


def without_effect(settings: Settings, dataset: Dataset) -> list[str]:
    """A sentence for each setting that is not at its default and changes nothing in this run."""
    return [f"{name} = {value!r} has no effect: {why}" for name, value, why in _without_effect(settings, dataset)]


def _without_effect(settings: Settings, dataset: Dataset) -> Iterator[tuple[str, Any, str]]:
    data, vocabularies = settings.data, dataset.vocabularies
    if isinstance(vocabularies, Vocabularies):
        if vocabularies.schema.label is not None:
            yield from _changed(data, ("negatives",), "the events have labels, so no negatives are sampled")
        else:
            yield from _changed(data, ("history",), "without labels all events enter histories")
    if settings.model.window != "sim_hard":
        why = f"window = {settings.model.window!r} does not search the history"
        yield from _changed(data, ("search_by", "search_window"), why)
    if settings.model.has_memory and not settings.model.writes_new_events:
        why = f"memory = {settings.model.memory.kind!r} writes positions of the window in each step"
        yield from _changed(settings.training, ("writes",), why)
    if not settings.model.has_memory:
        why, collaborative = "memory = 'none'", settings.model.collaborative
        rows = ("memory_optimizer", "stochastic_rounding") if collaborative.event_dim else ()
        used = {*rows, "writes"} if collaborative.is_on else set()
        yield from _changed(settings.training, tuple(name for name in _OF_MEMORY if name not in used), why)
        names = (
            {each.name for each in fields(MemorySettings)} - {"kind"} - ({"backend"} if collaborative.is_on else set())
        )
        yield from _changed(settings.model.memory, tuple(names), why)
    if not settings.model.collaborative.profile_levels:
        yield from _changed(settings.model.collaborative, ("profile_dim",), "profile_levels = 0")
    if not settings.model.collaborative.event_dim:
        yield from _changed(settings.model.collaborative, ("event_negatives",), "event_dim = 0")
        yield from _changed(settings.training, ("event_learning_rate",), "event_dim = 0")


def _changed(section: Any, names: tuple[str, ...], why: str) -> Iterator[tuple[str, Any, str]]:
    for each in fields(section):
        value = getattr(section, each.name)
        if each.name in names and value != each.default:
            yield each.name, value, why
