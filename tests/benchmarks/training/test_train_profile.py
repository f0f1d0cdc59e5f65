"""The profile of training and the comparison with FuxiCTR, rehearsed on tiny rows."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from project_root import ROOT
from rows_factory import write_rows

from benchmarks.training.against_fuxictr import (
    COMMON,
    PAIRS,
    comparison,
    measure_ours,
    measure_theirs,
    write_feature_map,
)
from benchmarks.training.profile import main, middle, table
from benchmarks.training.step_clock import EPOCH, STEP, Clock, hooked
from lmn_model.training import train
from lmn_model.training.build import open_dataset
from lmn_model.training.loop import Trainer
from lmn_model.training.settings import Settings


def _rows(folder: Path, **more: object) -> Settings:
    return Settings().override({"dataset": "rows", "path": str(write_rows(folder)), "threads": 1, **more})


@pytest.mark.slow
def test_shares_of_a_step_and_of_an_epoch_add_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    models: Sequence[str] = ("LMN + DIN 50", "LMN + DIN 50 (joint query)")
    out = tmp_path / "profile.json"
    assert main(["--rehearse", "--steps", "6", "--warm-up", "2", "--out", str(out), "--only", *models]) == 0
    data = json.loads(out.read_text())
    assert data["complete"]
    assert data["rehearsal"]
    assert [record["model"] for record in data["models"]] == list(models)
    for record in data["models"]:
        assert record["steps"] == record["profiled_steps"] == 6
        shares = record["shares_of_step"]
        assert set(shares) == set(STEP)
        assert sum(shares.values()) == pytest.approx(1, abs=0.05)
        assert min(shares.values()) > 0  # every hook was called
        assert shares["backward"] > shares["usage"]
        assert min(record["once_an_epoch_seconds"][part] for part in EPOCH) > 0
        of_steps = record["epoch_steps"] * record["step_ms"] / 1e3 / record["epoch_seconds"]
        assert of_steps + sum(record["shares_of_epoch"].values()) == pytest.approx(1, abs=0.05)
        assert 0 < record["share_of_kernel_ops"] < 1
        assert record["samples_per_second"] == pytest.approx(64 / record["step_ms"] * 1e3)
        assert record["batch_made_beside_ms"] > 0
        names = [each["name"] for each in record["kernel_ops"]]
        assert "lmn_kernels::gather_aggregate_touched_rows" in names
    assert "| backward |" in capsys.readouterr().out


def test_the_middle_of_the_training_split_counts_earlier_rows_as_seen(tmp_path: Path) -> None:
    dataset = open_dataset(_rows(tmp_path / "rows").data)
    part = middle(dataset, 50).train
    assert len(part) == 50
    assert (part.labels == dataset.train.labels[50:100]).all()
    assert (part.new_starts == dataset.train.new_starts[50:100]).all()


def test_hooks_are_taken_off_and_leave_the_result_as_it_is(tmp_path: Path) -> None:
    settings = _rows(tmp_path / "rows", epochs=1, batch_size=50, sub_keys=8)
    before = {name: vars(Trainer)[name] for name in ("_step", "_run_epoch", "_record")}
    clock = Clock(0)
    with hooked(clock):
        timed = train(settings, tmp_path / "timed")
    assert {name: vars(Trainer)[name] for name in before} == before
    assert clock.steps == 3
    assert sum(clock.seconds.values()) == pytest.approx(clock.wall, rel=0.05)
    assert timed["results"] == train(settings, tmp_path / "plain")["results"]


def test_ours_is_measured_for_every_model_that_is_compared(tmp_path: Path) -> None:
    small = {"embedding_dim": 4, "hidden": (8,), "batch_size": 16, "sub_keys": 8}
    base = _rows(tmp_path / "rows", **{**COMMON, **small})
    budget = {"steps": 3, "warm_up": 1, "ready_steps": 2, "ready_batches": 3}
    trainings = []
    for pair in PAIRS:
        found = measure_ours(base.override(pair.settings), budget)
        assert found["steps"] == 3
        assert found["seconds"] > 0
        assert found["ready_seconds"] > 0
        assert 0.5 < found["mean_loss"] < 0.9
        record = {"model": pair.name, "samples_per_second": 30.0, "ready_samples_per_second": 20.0, "epoch_seconds": 2}
        trainings.append({**record, "provider": "ours"})
        if pair.theirs:
            trainings.append({**record, "provider": "theirs", "samples_per_second": 10.0})
    lines = comparison({"trainings": trainings}).splitlines()
    assert "| DIN 50 | 30 | 10 | 3.00 (3.00 to 3.00) | 1.00 (1.00 to 1.00) | 2 | 2 |" in lines
    assert "| LMN + DIN 50 | 30 | - | - | - | 2 | - |" in lines


def test_an_error_of_the_other_process_is_shown(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"FuxiCTR's process failed:[\s\S]*No module named 'fuxictr'"):
        measure_theirs(Path(sys.executable), Settings(), tmp_path, 1, {})


def test_the_feature_map_has_the_sizes_of_our_model(tmp_path: Path) -> None:
    features = open_dataset(_rows(tmp_path / "rows").data).features
    write_feature_map(tmp_path, features)
    found = json.loads((tmp_path / "feature_map.json").read_text())
    kinds = {name: spec for each in found["features"] for name, spec in each.items()}
    assert found["labels"] == ["label"]
    assert kinds["seq_len"]["type"] == "meta"
    assert (kinds["user_id"]["source"], kinds["user_id"]["vocab_size"]) == ("user", features.user[0].size)
    assert (kinds["category"]["source"], kinds["category"]["vocab_size"]) == ("item", features.item[1].size)


def test_the_study_page_shows_the_committed_profile() -> None:
    data = json.loads((ROOT / "benchmarks" / "results" / "train_profile.json").read_text())
    assert "\n".join(table(data["models"])) in (ROOT / "docs" / "study" / "speed.md").read_text()
