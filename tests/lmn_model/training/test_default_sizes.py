"""Sizes that follow the data: the rule, that what is set stays, and that a run keeps what it chose."""

from __future__ import annotations

import json
import logging
import math
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tomli_w
from events_factory import make_events
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from rows_factory import write_rows
from runs_factory import before_step, tiny_settings, write_events

from lmn_model.ctr import CTRModel, MemorySettings, ModelSettings
from lmn_model.data import Dataset
from lmn_model.training import TrainingInterrupted, train
from lmn_model.training.build import open_dataset
from lmn_model.training.default_sizes import DataCounts, choose_sizes, fill_sizes, take_sizes
from lmn_model.training.evaluation.evaluate import evaluate_run
from lmn_model.training.loop import Trainer
from lmn_model.training.runs.folder import RunFolder
from lmn_model.training.runs.growth import grow_run
from lmn_model.training.settings import Settings, SettingsError

SIZES = {"epochs": 7, "batch_size": 100, "patience": 3, "sub_keys": 48}


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_events(tmp_path_factory.mktemp("events") / "events.parquet")


def _unset(events: Path, **changes: object) -> Settings:
    """Settings of a run of the factored memory that leave every size unset."""
    joint = {"memory": "factored", "top_k": "none", "key_dim": 16, "order": "time", "eval_every": "none"}
    sizes = {"epochs": "none", "batch_size": "none", "sub_keys": "none"}
    values = {name: None if value == "none" else value for name, value in {**joint, **sizes}.items()}
    return tiny_settings(events, **{**values, **changes})


@pytest.mark.parametrize(
    ("rows", "batch_size", "epochs"),
    [(1, 32, 5), (800, 32, 5), (4_000, 32, 5), (5_000, 32, 4), (8_000, 32, 3), (16_000, 64, 3), (64_000, 256, 3),
     (400_000, 1024, 3), (700_000, 1024, 2), (1_000_001, 1024, 1), (10**9, 1024, 1)],
)  # fmt: skip
def test_rows_choose_batch_and_epochs(rows: int, batch_size: int, epochs: int) -> None:
    assert choose_sizes(Settings(), DataCounts(rows, 1)) == {
        "batch_size": batch_size, "epochs": epochs, "patience": 2, "sub_keys": 32,
    }  # fmt: skip


@given(st.integers(1, 10**10), st.integers(0, 10**12))
@hypothesis_settings(max_examples=200, deadline=None)
def test_the_rule_holds_for_any_table(rows: int, pairs: int) -> None:
    found = choose_sizes(Settings(), DataCounts(rows, pairs))
    batch, epochs, sub_keys = found["batch_size"], found["epochs"], found["sub_keys"]
    assert 32 <= batch <= 1024
    assert batch == 32 or 250 * batch <= rows
    assert batch == 1024 or 250 * 2 * batch > rows
    steps = math.ceil(rows / batch)
    assert 1 <= epochs <= 5
    assert epochs == 1 or rows * epochs <= 2_000_000
    assert epochs <= 3 or epochs * steps <= 750
    if rows <= 400_000:
        assert epochs >= 3
        assert epochs == 5 or (epochs + 1) * steps > 750
    assert 32 <= sub_keys <= 1024
    assert sub_keys == 1024 or sub_keys**2 >= 3 * pairs
    assert sub_keys == 32 or (sub_keys // 2) ** 2 < 3 * pairs
    assert {batch & (batch - 1), sub_keys & (sub_keys - 1)} == {0}


@pytest.mark.parametrize("name", SIZES)
def test_a_size_that_is_set_stays(name: str, events: Path) -> None:
    settings = _unset(events, **{name: SIZES[name]})
    chosen, why = fill_sizes(settings, open_dataset(settings.data))
    assert chosen.value(name) == SIZES[name]
    assert f"{name} " not in why
    assert chosen.unset() == ()
    complete = _unset(events, **SIZES, writes="samples", profile_levels=0, profile_signed=False)
    assert fill_sizes(complete, open_dataset(complete.data)) == (complete, "")


def test_writes_follow_the_times_of_the_data(events: Path, tmp_path: Path) -> None:
    settings = _unset(events, **SIZES)
    chosen, why = fill_sizes(settings, open_dataset(settings.data))
    assert (chosen.training.writes, why) == ("calendar", "chosen by the data: writes calendar for events with times")
    columns = {"item_features": None, "user_features": None, "context_features": None}
    rows = settings.override({"dataset": "rows", "path": str(write_rows(tmp_path / "rows")), **columns})
    dataset = open_dataset(rows.data)
    chosen, why = fill_sizes(rows, dataset)
    assert (chosen.training.writes, why) == ("samples", "chosen by the data: writes samples for rows without times")
    with pytest.raises(SettingsError, match="writes = 'calendar' needs events with times, and these prepared rows"):
        fill_sizes(rows.override({"writes": "calendar"}), dataset)
    without = rows.override({"memory": "none"})
    assert fill_sizes(without, dataset) == (without, "")


def test_profiles_follow_the_labels_of_an_event_table(events: Path, tmp_path: Path) -> None:
    def collaborative(settings: Settings) -> tuple[int | None, bool | None, str]:
        chosen, why = fill_sizes(settings, open_dataset(settings.data))
        return chosen.model.collaborative.profile_levels, chosen.model.collaborative.profile_signed, why

    fixed = {**SIZES, "writes": "samples"}
    assert collaborative(_unset(events, **fixed)) == (0, False, "")
    assert collaborative(_unset(events, **fixed, profile_levels=2)) == (2, False, "")
    make_events(rows=700, users=15, items=30, label=True).write_parquet(tmp_path / "labelled.parquet")
    labelled = _unset(tmp_path / "labelled.parquet", label_col="label", **fixed)
    why = "chosen by the data: profile_levels 2, profile_signed True for events with labels"
    assert collaborative(labelled) == (2, True, why)
    assert collaborative(labelled.override({"profile_signed": False}))[:2] == (2, False)
    assert collaborative(labelled.override({"profile_levels": 3}))[:2] == (3, True)
    assert collaborative(labelled.override({"profile_levels": 0}))[:2] == (0, None)
    assert collaborative(labelled.override({"memory": "none"}))[:2] == (None, None)
    assert collaborative(labelled.override({"memory": "none", "profile_levels": 3}))[:2] == (3, True)
    assert collaborative(labelled.override({"profile_rows": 64}))[:2] == (2, True)
    with pytest.raises(SettingsError, match="profile_signed needs profile_levels for memory = 'none', got True"):
        labelled.override({"memory": "none", "profile_signed": True})
    with pytest.raises(SettingsError, match="profile_rows has no effect for profile_levels = 0, got 64"):
        collaborative(_unset(events, **fixed, profile_rows=64))
    large = make_events(rows=66_000, users=15, items=30, label=True)
    large.write_parquet(tmp_path / "large.parquet")
    assert collaborative(labelled.override({"path": str(tmp_path / "large.parquet")}))[:2] == (5, True)


def test_patience_is_chosen_with_epochs_alone_and_counts_their_evaluations(events: Path) -> None:
    counts = DataCounts(1600, 1)
    assert "patience" not in choose_sizes(_unset(events, epochs=3), counts)
    assert choose_sizes(_unset(events, eval_every=20), counts)["patience"] == 2 * 3  # 50 steps, 20, 40 and the last
    assert choose_sizes(_unset(events, eval_every=25), counts)["patience"] == 2 * 2
    assert choose_sizes(_unset(events, eval_every=900), counts)["patience"] == 2


def test_limits_of_the_memory_are_those_of_its_other_settings(events: Path) -> None:
    many = DataCounts(1000, 10**9)
    assert choose_sizes(_unset(events, top_k=40), DataCounts(1000, 1))["sub_keys"] == 40
    assert "sub_keys" not in choose_sizes(_unset(events, memory="none"), many)
    joint = _unset(events, memory="joint")
    assert choose_sizes(joint, DataCounts(1000, 1))["sub_keys"] == 32 > joint.model.memory.slots_read


@pytest.mark.parametrize("kind", ["events", "labelled", "rows"])
def test_pairs_are_counted_once_each(kind: str, tmp_path: Path) -> None:
    if kind == "rows":
        settings = Settings().override({"dataset": "rows", "path": str(write_rows(tmp_path / "rows"))})
    else:
        table = make_events(rows=700, users=15, items=30, label=kind == "labelled")
        table.write_parquet(tmp_path / "events.parquet")
        settings = Settings().override({
            "dataset": "events", "path": str(tmp_path / "events.parquet"), "item_features": ("category",),
            **({"label_col": "label"} if kind == "labelled" else {}),
        })  # fmt: skip
    dataset = open_dataset(settings.data)
    assert DataCounts.of(dataset) == DataCounts(len(dataset.train), _pairs_by_hand(dataset))


def _pairs_by_hand(dataset: Dataset) -> int:
    tables = dataset.train.tables
    histories, found = tables.histories, set()
    for user, (start, end) in enumerate(zip(histories.starts[:-1], histories.starts[1:], strict=True)):
        for item in histories.items[start:end]:
            found |= {(user, feature, int(value)) for feature, value in enumerate(tables.items.ids[item])}
    return len(found)


def test_a_run_says_what_it_chose_and_keeps_it(
    events: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = _unset(events)
    with caplog.at_level(logging.INFO, logger="lmn"):
        results = train(settings, tmp_path / "run")["results"]
    rows, pairs = DataCounts.of(open_dataset(settings.data))
    assert (
        f"chosen by the data: epochs 5, batch_size 32, patience 2 for {rows:,} training rows; "
        f"sub_keys 64 for {pairs:,} pairs of a user and an item or a value of its features"
    ) in caplog.text
    run = RunFolder(tmp_path / "run").load_settings()
    assert {name: run.value(name) for name in SIZES} == {
        "epochs": 5, "batch_size": 32, "patience": 2, "sub_keys": 64,
    }  # fmt: skip
    assert results["evaluations"][-1]["step"] % 45 == 0  # 1,440 rows
    train(run, tmp_path / "set")
    assert json.loads((tmp_path / "set" / "metrics.json").read_text())["results"] == results

    before_step(monkeypatch, 60, lambda trainer: _interrupt())
    with pytest.raises(TrainingInterrupted):
        train(settings, tmp_path / "cut")
    monkeypatch.undo()
    assert train(settings, tmp_path / "cut", resume=True)["results"] == results  # with what it was opened with
    assert evaluate_run(tmp_path / "cut")["auc"] == results["test"]["auc"]


def _interrupt() -> None:
    signal.raise_signal(signal.SIGINT)


def test_a_run_that_was_opened_with_other_sizes_is_another(events: Path) -> None:
    settings = _unset(events)
    run, _ = fill_sizes(settings, open_dataset(settings.data))
    assert take_sizes(settings, run) == run
    assert take_sizes(replace(settings, training=replace(settings.training, seed=5)), run) != run
    assert take_sizes(_unset(events, sub_keys=16), run) != run
    assert take_sizes(_unset(events, epochs=5), run) != run  # no patience


@pytest.mark.parametrize("name", ["epochs", "batch_size", "sub_keys"])
def test_settings_of_a_run_hold_its_sizes(name: str, events: Path, tmp_path: Path) -> None:
    settings = tiny_settings(events).override({name: None})
    settings.save(tmp_path / "settings.toml")
    with pytest.raises(SettingsError, match=rf"settings\.toml: {name}.* must be set in the settings of a run"):
        RunFolder(tmp_path).load_settings()


def test_settings_of_a_run_that_had_no_patience_have_none(events: Path, tmp_path: Path) -> None:
    table = tiny_settings(events, sub_keys=1024, epochs=1, batch_size=1024).to_dict()
    assert "patience" not in table["training"]
    (tmp_path / "settings.toml").write_text(tomli_w.dumps(table))
    old = RunFolder(tmp_path).load_settings()
    assert old.unset() == ()
    assert old.training.patience is None


def test_what_needs_sizes_says_so(events: Path, tmp_path: Path) -> None:
    settings = _unset(events)
    dataset = open_dataset(settings.data)
    names = "batch_size, epochs, patience, sub_keys, writes, profile_levels, profile_signed"
    with pytest.raises(ValueError, match=f"Trainer: {names} must be set, got None"):
        Trainer(settings, dataset, RunFolder(tmp_path), None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="CTRModel: sub_keys must be set, got None"):
        CTRModel(dataset.features, ModelSettings())
    CTRModel(dataset.features, ModelSettings(memory=MemorySettings(kind="none")))
    with pytest.raises(ValueError, match="top_k must be at most sub_keys = 4, got 5"):
        MemorySettings(sub_keys=4, top_k=5)


@pytest.mark.parametrize("memory", ["factored", "none"])
def test_patience_looks_at_the_ends_of_epochs_where_they_empty_a_memory(
    memory: str, events: Path, tmp_path: Path
) -> None:
    settings = _unset(events, memory=memory, sub_keys=16, batch_size=64, epochs=4, eval_every=1, patience=1)
    found = train(settings, tmp_path / "run", test=False)["results"]
    scores = [each["auc"] for each in found["evaluations"]]
    worse = next(place for place in range(1, len(scores)) if scores[place] <= max(scores[:place]))
    assert found["stopped_early"]
    if memory == "none":
        assert len(scores) == worse + 1
    else:
        assert worse + 1 < 23  # within the first epoch, and training went on
        assert len(scores) % 23 == 0


def test_a_run_that_patience_ended_trains_on_when_it_has_grown(events: Path, tmp_path: Path) -> None:
    settings = _unset(events, sub_keys=8, batch_size=64, epochs=9, patience=1, learning_rate=0.1)
    first = train(settings, tmp_path / "run", test=False)["results"]
    assert first["stopped_early"]
    done = first["epochs"]
    grown = grow_run(tmp_path / "run", tmp_path / "grown", epochs=done + 2)
    assert (grown.training.epochs, grown.training.patience) == (done + 2, None)
    assert train(grown, tmp_path / "grown", resume=True, test=False)["results"]["epochs"] == done + 2


def test_a_small_table_gets_enough_steps_to_learn(tmp_path: Path) -> None:
    """One epoch of 1,024 rows makes two steps of this table; the chosen sizes learn which categories users like."""
    make_events(rows=1500, users=20, items=40).write_parquet(tmp_path / "events.parquet")
    values = {
        "dataset": "events", "path": str(tmp_path / "events.parquet"), "item_features": ("category",), "threads": 1,
        "device": "cpu", "window": "pooling", "memory": "none",
    }  # fmt: skip
    fixed = train(Settings().override({**values, "epochs": 1, "batch_size": 1024}), tmp_path / "fixed")["results"]
    chosen = train(Settings().override(values), tmp_path / "chosen")["results"]
    assert fixed["steps"] <= 3
    assert chosen["test"]["auc"] > fixed["test"]["auc"] + 0.1
    assert np.isfinite(chosen["test"]["log_loss"])
