"""What training refuses to start, to resume or to load, in one line that gives the reason."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from runs_factory import before_step, tiny_settings, write_events

from lmn_model.data import DataOptions, Schema, load_dataset
from lmn_model.training import TrainingInterrupted, train
from lmn_model.training.build import choose_device, open_dataset
from lmn_model.training.loop import Trainer
from lmn_model.training.runs.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from lmn_model.training.runs.fingerprint import data_fingerprint
from lmn_model.training.runs.folder import RunFolder, RunFolderError
from lmn_model.training.runs.loading import load_run
from lmn_model.training.settings import SettingsError


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_events(tmp_path_factory.mktemp("events") / "events.parquet")


def test_a_folder_that_holds_a_run_is_not_overwritten(tmp_path: Path, events: Path) -> None:
    settings = tiny_settings(events, "pooling", epochs=1)
    train(settings, tmp_path / "run")
    with pytest.raises(RunFolderError, match=r"already holds a run; continue it \(lmn train --resume .*\) or choose"):
        train(settings, tmp_path / "run")
    with pytest.raises(RunFolderError, match=r"run: the settings differ from those of the run"):
        train(tiny_settings(events, "pooling", epochs=2), tmp_path / "run", resume=True)
    with pytest.raises(RunFolderError, match=r"there is no run here \(no settings\.toml\)"):
        train(settings, tmp_path / "other", resume=True)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "metrics.json").write_text("{}")
    with pytest.raises(RunFolderError, match=r"notes already holds metrics\.json"):
        train(settings, tmp_path / "notes")


def test_a_folder_that_cannot_be_written_is_reported_before_the_data_are_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match="the run folder cannot be made: Not a directory"):
        train(tiny_settings(tmp_path / "missing.parquet"), tmp_path / "file" / "run")


def test_a_setting_that_is_younger_than_a_checkpoint_had_its_default(
    tmp_path: Path, events: Path, monkeypatch: Any
) -> None:
    settings = tiny_settings(events)
    with monkeypatch.context() as patch:
        before_step(patch, 3, lambda trainer: signal.raise_signal(signal.SIGINT))
        with pytest.raises(TrainingInterrupted):
            train(settings, tmp_path / "run")
    saved = load_checkpoint(tmp_path / "run" / "last.safetensors")
    del saved.metadata["settings"]["model.matches"]
    save_checkpoint(tmp_path / "run" / "last.safetensors", saved.tensors, saved.metadata)
    other = tiny_settings(events, matches=True)
    other.save(tmp_path / "run" / "settings.toml")
    with pytest.raises(CheckpointError, match=r"was started with: model\.matches$"):
        train(other, tmp_path / "run", resume=True)
    settings.save(tmp_path / "run" / "settings.toml")
    assert train(settings, tmp_path / "run", resume=True)["status"] == "finished"


def test_resume_refuses_other_data_and_another_model(tmp_path: Path, events: Path, monkeypatch: Any) -> None:
    settings = tiny_settings(events)
    before_step(monkeypatch, 3, lambda trainer: signal.raise_signal(signal.SIGINT))
    with pytest.raises(TrainingInterrupted):
        train(settings, tmp_path / "run")
    with pytest.raises(
        CheckpointError, match=r"last\.safetensors: the data differ from those that the run was started"
    ):
        train(settings, tmp_path / "run", resume=True, dataset=open_dataset(tiny_settings(events, negatives=2).data))
    other = tiny_settings(events, embedding_dim=6)
    other.save(tmp_path / "run" / "settings.toml")
    with pytest.raises(
        CheckpointError, match=r"the settings differ from those that the run was started with: model\.embedding_dim$"
    ):
        train(other, tmp_path / "run", resume=True)


def test_resume_refuses_edited_settings_and_takes_those_that_decide_nothing(
    tmp_path: Path, events: Path, monkeypatch: Any
) -> None:
    before_step(monkeypatch, 3, lambda trainer: signal.raise_signal(signal.SIGINT))
    with pytest.raises(TrainingInterrupted):
        train(tiny_settings(events, "pooling"), tmp_path / "run")
    for change in ({"batch_size": 32}, {"memory_optimizer": "sparse_adam"}, {"seed": 1}, {"window_size": 4}):
        edited = tiny_settings(events, "pooling", **change)
        edited.save(tmp_path / "run" / "settings.toml")
        with pytest.raises(CheckpointError, match=rf"the settings differ .*: .*\.{next(iter(change))}$"):
            train(edited, tmp_path / "run", resume=True)
    longer = tiny_settings(events, "pooling", epochs=3, patience=9, checkpoint_minutes=1.0)
    longer.save(tmp_path / "run" / "settings.toml")
    assert train(longer, tmp_path / "run", resume=True)["results"]["epochs"] == 3


def test_a_second_process_in_the_folder_is_refused(tmp_path: Path, events: Path) -> None:
    settings = tiny_settings(events, "pooling", epochs=1)
    folder = RunFolder(tmp_path / "run")
    folder.make()
    with folder.locked(), pytest.raises(RunFolderError, match=r"another process is running in .*run"):
        train(settings, folder.root)
    assert list(folder.root.iterdir()) == []
    train(settings, folder.root)


def test_a_best_model_of_another_kind_is_reported(tmp_path: Path, events: Path, monkeypatch: Any) -> None:
    settings = tiny_settings(events, "pooling", epochs=1)
    evaluate = Trainer._evaluate

    def replaced(self: Trainer) -> None:
        evaluate(self)
        self.state.save(self.folder.best, self.identity)

    monkeypatch.setattr(Trainer, "_evaluate", replaced)
    with pytest.raises(CheckpointError, match=r"best\.safetensors: holds no evaluation"):
        train(settings, tmp_path / "run")


def test_the_fingerprint_covers_histories_and_features(events: Path) -> None:
    frame = pl.read_parquet(events).with_columns(bought=pl.int_range(pl.len()).mod(3).cast(pl.Int8))
    frame = frame.with_columns(bought=pl.when(pl.col("bought") < 2).then("bought"))
    schema = Schema(item_features=("category",), label="bought")
    options = DataOptions(history="all")
    found = [
        data_fingerprint(load_dataset(each, schema, options))
        for each in (
            frame,
            frame.with_columns(
                pl.when(pl.col("bought").is_null())
                .then(pl.col("item_id").replace({1001: 1002, 1002: 1001}))
                .otherwise("item_id")
                .alias("item_id")
            ),
            frame.with_columns(category=pl.col("category").reverse()),
        )
    ]
    assert all(each["train"] == found[0]["train"] for each in found)
    assert len({json.dumps(each) for each in found}) == 3


def test_the_fingerprint_covers_items(events: Path) -> None:
    frame = pl.read_parquet(events)
    swapped = frame.with_columns(
        pl.col("item_id").replace({1001: 1002, 1002: 1001}), pl.col("category").shuffle(seed=1)
    )
    schema = Schema(item_features=("category",))
    assert data_fingerprint(load_dataset(frame, schema)) != data_fingerprint(load_dataset(swapped, schema))


def test_resume_refuses_a_checkpoint_without_a_state(tmp_path: Path, events: Path) -> None:
    settings = tiny_settings(events, "pooling")
    settings.save(tmp_path / "settings.toml")
    save_checkpoint(tmp_path / "last.safetensors", {"model.x": torch.zeros(1)}, {"kind": "model"})
    with pytest.raises(CheckpointError, match="holds no state of a training run"):
        train(settings, tmp_path, resume=True)


def test_load_run_before_the_first_evaluation_and_from_a_damaged_record(tmp_path: Path, events: Path) -> None:
    settings = tiny_settings(events, "pooling")
    settings.save(tmp_path / "settings.toml")
    open_dataset(settings.data).vocabularies.save(tmp_path)
    with pytest.raises(CheckpointError, match=r"best\.safetensors: there is no such checkpoint"):
        load_run(tmp_path)
    (tmp_path / "metrics.json").write_text("{")
    with pytest.raises(RunFolderError, match=r"metrics\.json: not a JSON file"):
        RunFolder(tmp_path).load_metrics()
    (tmp_path / "metrics.json").write_text("{}")
    with pytest.raises(RunFolderError, match=r"metrics\.json: damaged: it holds no 'status' of a run"):
        RunFolder(tmp_path).load_metrics()
    (tmp_path / "metrics.json").write_text("[]")
    with pytest.raises(RunFolderError, match=r"metrics\.json: must hold a JSON object, got list"):
        RunFolder(tmp_path).load_metrics()


def test_choose_device_names_what_is_not_there() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    for name in ("gpu", "meta"):
        with pytest.raises(SettingsError, match=f"device must be auto, cpu, cuda or cuda:N, got '{name}'"):
            choose_device(name)
    with pytest.raises(SettingsError, match=r"device 'cuda:99' is not there: torch sees \d+ CUDA devices"):
        choose_device("cuda:99")
