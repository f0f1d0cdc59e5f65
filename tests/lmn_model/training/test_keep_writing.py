"""Writing on during the test split: each step reads what came before it, and no more; weights stay."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from events_factory import make_events
from runs_factory import tiny_settings

from lmn_model.cli.main import main
from lmn_model.training import train
from lmn_model.training.build import open_dataset
from lmn_model.training.evaluation import new_events
from lmn_model.training.evaluation.evaluate import evaluate_run
from lmn_model.training.evaluation.new_events import logits_while_writing, write_new_events
from lmn_model.training.evaluation.scoring import predict_logits
from lmn_model.training.runs.folder import RunFolder
from lmn_model.training.runs.loading import LoadedRun, load_run
from lmn_model.training.settings import Settings, SettingsError


def settings_of(path: Path, **changes: object) -> Settings:
    values = {
        "order": "time", "memory": "factored", "top_k": 1, "key_dim": 16, "code_dim": 8, "label_col": "label",
        "profile_levels": 2, "profile_dim": 8, "event_dim": 8, "event_sub_keys": 8, "event_top_k": 2,
        "batch_size": 16, "epochs": 1, "eval_every": None,
    }  # fmt: skip
    return tiny_settings(path, **{**values, **changes})


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tables") / "events.parquet"
    make_events(rows=900, users=20, items=40, label=True).write_parquet(path)
    return path


@pytest.fixture(scope="module")
def run(events: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs") / "run"
    train(settings_of(events), root)
    return root


def scored(root: Path) -> tuple[LoadedRun, np.ndarray]:
    run = load_run(root)
    dataset = open_dataset(run.settings.data, run.vocabularies)
    return run, logits_while_writing(RunFolder(root).best, run.model, run.settings.training, dataset, run.device)


def test_the_first_step_reads_what_a_frozen_memory_does_and_later_ones_more(run: Path) -> None:
    loaded, logits = scored(run)
    frozen = load_run(run)
    dataset = open_dataset(frozen.settings.data, frozen.vocabularies)
    write_new_events(RunFolder(run).best, frozen.model, frozen.settings.training, dataset, frozen.device)
    stale = predict_logits(frozen.model, dataset.test, 16, frozen.device)
    assert (logits[:16] == stale[:16]).all()
    assert (logits[16:] != stale[16:]).any()
    for (name, after), before in zip(loaded.model.named_parameters(), frozen.model.parameters(), strict=True):
        written = name.startswith("collaborative.") or name == "memory.block.values"
        assert torch.equal(after, before) != written, name


def test_later_events_of_the_test_split_reach_no_earlier_sample(run: Path, events: Path, tmp_path: Path) -> None:
    table = pl.read_parquet(events)
    dataset = open_dataset(settings_of(events).data)
    moment = int(dataset.test.timestamps[len(dataset.test) // 2])
    late = table["timestamp"].dt.cast_time_unit("us").to_physical().to_numpy() >= moment
    rows = table.filter(pl.Series(late))
    order = np.random.default_rng(0).permutation(len(rows)).tolist()
    changed = pl.concat(
        [table.filter(pl.Series(~late)), rows.with_columns(rows.select("item_id", "category", "label")[order])]
    )
    changed.write_parquet(tmp_path / "changed.parquet")
    loaded = load_run(run)
    logits = []
    for path in (events, tmp_path / "changed.parquet"):
        loaded = load_run(run)
        other = open_dataset(settings_of(path).data, loaded.vocabularies)
        best = RunFolder(run).best
        logits.append(logits_while_writing(best, loaded.model, loaded.settings.training, other, loaded.device))
    before = dataset.test.timestamps < moment
    assert before.sum() > 20
    assert (logits[0][before] == logits[1][before]).all()
    assert (logits[0][~before] != logits[1][~before]).any()


def test_a_training_reports_it_for_labels_and_writes_them_in_small_steps(
    events: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = json.loads(RunFolder(run).metrics.read_text())["results"]
    again = evaluate_run(run, keep_writing=True)
    assert results["test_while_writing"] == {name: again[name] for name in ("auc", "gauc", "log_loss")}
    unsigned = train(settings_of(events, profile_signed=False), tmp_path / "unsigned")["results"]
    assert unsigned["test"] is not None
    assert "test_while_writing" not in unsigned
    _, logits = scored(run)
    monkeypatch.setattr(new_events, "FEEDBACK_STEP", 4)  # labels alone: events are still written 16 samples at a time
    _, sooner = scored(run)
    assert (sooner[:4] == logits[:4]).all()
    assert (sooner[4:16] != logits[4:16]).any()


def test_the_command_reports_it(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "--run", str(run), "--keep-writing"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == evaluate_run(run, keep_writing=True)
    assert found["rows"] == evaluate_run(run)["rows"]
    assert found["auc"] != evaluate_run(run)["auc"]


def test_what_it_does_not_go_with(run: Path, events: Path, tmp_path: Path) -> None:
    with pytest.raises(
        SettingsError, match="keep_writing is for the test split of the run's own data, got split 'valid'"
    ):
        evaluate_run(run, "valid", keep_writing=True)
    with pytest.raises(SettingsError, match="keep_writing is for the test split of the run's own data, got path"):
        evaluate_run(run, path=str(events), keep_writing=True)
    train(
        settings_of(events, memory="none", top_k=None, code_dim=64, profile_levels=0, event_dim=0, event_sub_keys=0),
        tmp_path / "din",
    )
    with pytest.raises(SettingsError, match="has no factored memory, profiles or event embeddings"):
        evaluate_run(tmp_path / "din", keep_writing=True)
