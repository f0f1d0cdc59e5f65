"""Runs with profiles and embeddings of events: resumed, evaluated and predicted alike, and blind to the future."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from events_factory import make_events
from runs_factory import stop_after, tiny_settings

from lmn_model.training import TrainingInterrupted, train
from lmn_model.training.evaluation.evaluate import evaluate_run
from lmn_model.training.evaluation.predict import predict_pairs
from lmn_model.training.settings import Settings, SettingsError

CASES = {
    "signed": {"memory": "factored", "top_k": 1, "key_dim": 16, "code_dim": 8, "profile_signed": True},
    "none": {"memory": "none", "top_k": None, "key_dim": 16},
    "joint": {"memory": "joint"},
    "factored": {"memory": "factored", "top_k": 1, "key_dim": 16, "code_dim": 8},
}


def settings_of(path: Path, memory: str = "factored", **changes: Any) -> Settings:
    values = {"order": "time", "profile_levels": 2, "profile_dim": 8, "event_dim": 8, "event_negatives": 3}
    values |= {"event_sub_keys": 12, "event_top_k": 4}
    return tiny_settings(path, **{**CASES[memory], **values, **changes})


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tables") / "events.parquet"
    make_events(rows=900, users=20, items=40, label=True).write_parquet(path)
    return path


@pytest.mark.parametrize("memory", list(CASES))
def test_a_run_resumes_to_the_same_digits_and_is_evaluated_as_it_was(
    events: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory: str
) -> None:
    settings = settings_of(events, memory, label_col="label")
    uncut = train(settings, tmp_path / "uncut")["results"]
    stop_after(monkeypatch, 8)
    with pytest.raises(TrainingInterrupted):
        train(settings, tmp_path / "cut")
    monkeypatch.undo()
    assert train(settings, tmp_path / "cut", resume=True)["results"] == uncut
    found = evaluate_run(tmp_path / "uncut")
    assert {name: found[name] for name in uncut["test"]} == uncut["test"]


def test_pairs_are_predicted_with_what_was_written(events: Path, tmp_path: Path) -> None:
    train(settings_of(events, label_col="label"), tmp_path / "run")
    table = pl.read_parquet(events)
    pairs = table.tail(30).drop("label", "timestamp")
    pairs.write_csv(tmp_path / "pairs.csv")
    predict_pairs(tmp_path / "run", tmp_path / "pairs.csv", tmp_path / "scores.csv")
    scores = pl.read_csv(tmp_path / "scores.csv")["probability"]
    assert len(scores) == 30
    assert scores.is_between(0, 1).all()
    assert scores.n_unique() > 10


@pytest.mark.parametrize("signed", [False, True])
def test_the_future_of_all_users_reaches_no_sample(tmp_path: Path, signed: bool) -> None:
    """Everything at and after a moment is shuffled over items and labels; the losses before it are equal to the bit."""
    table = make_events(rows=1500, users=20, items=40, label=True)
    moment = 700
    times = table["timestamp"].to_list()
    while times[moment] == times[moment - 1]:  # events of one moment stay together
        moment += 1
    rng = np.random.default_rng(0)
    late = table[moment:1150]  # within the training split, so that ids and scales stay the same
    order = rng.permutation(len(late))
    items = late.select("item_id", "category", "label")[order.tolist()]
    changed = pl.concat([table[:moment], late.with_columns(items), table[1150:]])
    assert not changed.equals(table)
    curves = []
    for name, each in (("before", table), ("after", changed)):
        each.write_parquet(tmp_path / f"{name}.parquet")
        settings = settings_of(
            tmp_path / f"{name}.parquet", label_col="label", epochs=1, batch_size=20, eval_every=None, dropout=0.0,
            context_features=("hour",), history="all", profile_signed=signed,
        )  # fmt: skip
        curves.append(train(settings, tmp_path / name)["results"]["curve"])
    first, second = ([point for point in curve if point["step"] * 20 <= moment] for curve in curves)
    assert len(first) >= 10
    assert [point["loss"] for point in first] == [point["loss"] for point in second]
    assert [point["loss"] for point in curves[0]] != [point["loss"] for point in curves[1]]


def test_profiles_tell_a_new_user_what_similar_users_choose(tmp_path: Path) -> None:
    """Profiles and embeddings of events raise the AUC of users with few events, which nothing else stores."""
    make_events(rows=6000, users=300, items=80, seed=2).write_parquet(tmp_path / "events.parquet")
    found = {}
    for name, changes in {
        "with": {"profile_dim": 32, "event_dim": 32},
        "without": {"profile_levels": 0, "profile_dim": 64, "event_dim": 0, "event_sub_keys": 0},
    }.items():
        settings = settings_of(
            tmp_path / "events.parquet", "none", **changes, epochs=1, eval_every=None, window="none", dropout=0.0,
            user_features=(), context_features=(), item_features=("category",),
        )  # fmt: skip
        found[name] = train(settings, tmp_path / name)["results"]["test"]["auc"]
    assert found["with"] > found["without"] + 0.05


def test_profiles_need_samples_in_the_order_of_time(events: Path) -> None:
    with pytest.raises(
        SettingsError, match=r"order must be 'time' for .*profiles and embeddings of events, got 'shuffle'"
    ):
        settings_of(events, "none", order="shuffle")
    off = {"profile_levels": 0, "profile_dim": 64, "event_dim": 0, "event_sub_keys": 0}
    settings = settings_of(events, "none", order="shuffle", **off)
    assert replace(settings).training.order == "shuffle"
