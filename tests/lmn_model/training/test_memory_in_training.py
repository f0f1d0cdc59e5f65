"""The memory in ``lmn train``: usage is reported and drawn, reseeding resumes to the same digits, a run can grow."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from runs_factory import tiny_settings, write_events

from lmn_model.training import TrainingInterrupted, train
from lmn_model.training.evaluation.evaluate import evaluate_run
from lmn_model.training.loop import Trainer
from lmn_model.training.runs.checkpoint import CheckpointError, load_checkpoint
from lmn_model.training.runs.folder import RunFolder, RunFolderError
from lmn_model.training.runs.growth import grow_run
from lmn_model.training.settings import Settings, SettingsError


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_events(tmp_path_factory.mktemp("events") / "events.parquet")


@pytest.fixture(scope="module")
def controlled(events: Path) -> Settings:
    """All monitoring and maintenance of a memory is on; one slot of each head is read, so that sub-keys die."""
    return tiny_settings(events, reseed_every=5, balance_weight=0.01, top_k=1, heads=2, sub_keys=16)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, controlled: Settings) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    train(controlled, folder)
    return folder


def _results(folder: Path) -> dict[str, Any]:
    results: dict[str, Any] = json.loads((folder / "metrics.json").read_text())["results"]
    return results


def test_usage_is_in_the_metrics_the_log_and_a_picture(whole: Path) -> None:
    results = _results(whole)
    for evaluation in results["evaluations"]:
        usage = evaluation["memory"]
        assert usage["steps"] == (evaluation["step"] - 1) % 23 + 1  # the memory is emptied at each epoch
        assert 0 < usage["recent_coverage"] <= usage["coverage"] < 1
        assert 0 < usage["gini"] < 1
        assert usage["reads"] > 0
        assert len(usage["sub_keys"]) == 2
    shares = [point["memory"]["coverage"] for point in results["curve"]]
    assert shares[:23] == sorted(shares[:23])
    assert shares[23] < shares[22]
    assert (whole / "memory_usage.png").read_bytes().startswith(b"\x89PNG")
    log = (whole / "train.log").read_text()
    line = next(line for line in log.splitlines() if "memory: " in line)
    coverage = results["evaluations"][0]["memory"]["coverage"]
    assert f"memory: {100 * coverage:.3g} % of 256 slots read in this epoch, " in line
    assert re.search(r" in the last step; the 1 % of slots read most take [\d.]+ % of the reads; evenness 0\.", line)
    assert "unread sub-keys were moved" in log


def test_usage_can_be_left_out_and_changes_nothing(events: Path, tmp_path: Path) -> None:
    runs = [train(tiny_settings(events, memory_usage=on), tmp_path / str(on))["results"] for on in (True, False)]
    assert not (tmp_path / "False" / "memory_usage.png").exists()
    assert all("memory" not in each for each in [*runs[1]["evaluations"], *runs[1]["curve"]])
    for each in [*runs[0]["evaluations"], *runs[0]["curve"], runs[0]["best"]]:
        del each["memory"]
    assert runs[0] == {**runs[1], "best": runs[0]["best"]}


@pytest.mark.parametrize("step", [3, 13, 30])
def test_a_run_that_reseeds_resumes_to_the_same_digits(
    controlled: Settings, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    _stop_at(monkeypatch, step)
    with pytest.raises(TrainingInterrupted):
        train(controlled, tmp_path / "cut")
    monkeypatch.undo()
    assert train(controlled, tmp_path / "cut", resume=True)["results"] == _results(whole)


def _stop_at(monkeypatch: pytest.MonkeyPatch, last: int) -> None:
    after = Trainer._after_step

    def stopping(self: Trainer, stop: Any, bar: Any) -> bool:
        if self.state.progress.step == last:
            stop.set()
        return after(self, stop, bar)

    monkeypatch.setattr(Trainer, "_after_step", stopping)


def test_a_16_bit_table_trains_and_resumes(events: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = tiny_settings(events, value_dtype="bfloat16")
    results = train(settings, tmp_path / "whole")["results"]
    _stop_at(monkeypatch, 13)
    with pytest.raises(TrainingInterrupted):
        train(settings, tmp_path / "cut")
    monkeypatch.undo()
    assert train(settings, tmp_path / "cut", resume=True)["results"] == results
    tensors = load_checkpoint(tmp_path / "cut" / "last.safetensors").tensors
    assert tensors["model.memory.block.values"].dtype == torch.bfloat16
    assert tensors["optimizer.memory.block.values/total"].dtype == torch.float32


def test_a_grown_run_scores_the_same_and_trains_on(whole: Path, controlled: Settings, tmp_path: Path) -> None:
    grown = grow_run(whole, tmp_path / "grown", epochs=3)
    assert grown.model.memory.sub_keys == 2 * controlled.model.memory.sub_keys
    before, after = evaluate_run(whole), evaluate_run(tmp_path / "grown")
    assert after == pytest.approx(before, abs=1e-6)
    results = train(grown, tmp_path / "grown", resume=True)["results"]
    assert results["epochs"] == 3
    assert results["steps"] == 3 * 23
    assert results["evaluations"][: len(_results(whole)["evaluations"])] == _results(whole)["evaluations"]
    inactive = load_checkpoint(tmp_path / "grown" / "last.safetensors").tensors["model.memory.block.inactive"]
    assert inactive.shape == (2, 2, 32)
    assert int((~inactive[:, :, 16:]).sum()) > 0


def test_growing_what_cannot_grow_is_reported(whole: Path, events: Path, tmp_path: Path) -> None:
    train(tiny_settings(events, "din", epochs=1), tmp_path / "din")
    with pytest.raises(SettingsError, match="a run with memory = 'none' has no memory to grow"):
        grow_run(tmp_path / "din", tmp_path / "out")
    with pytest.raises(SettingsError, match="epochs must be at least the 2 of the run, got 1"):
        grow_run(whole, tmp_path / "out", epochs=1)
    with pytest.raises(RunFolderError, match="there is no run here"):
        grow_run(tmp_path, tmp_path / "out")
    with pytest.raises(RunFolderError, match="already holds a run"):
        grow_run(whole, tmp_path / "din")
    folder = RunFolder(tmp_path / "fresh")
    folder.create()
    tiny_settings(events).save(folder.settings)
    (folder.vocabularies).write_text((whole / "vocabularies.json").read_text())
    with pytest.raises(CheckpointError, match="there is no such checkpoint"):
        grow_run(folder.root, tmp_path / "out")
    assert not (tmp_path / "out").exists()
