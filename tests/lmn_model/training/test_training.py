"""Training: it learns, it resumes to the same digits after any kill, and it stops cleanly when it must."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from project_root import ROOT
from runs_factory import before_step, run_python, tiny_flags, tiny_settings, write_events

from lmn_model.training import TrainingError, TrainingInterrupted, train
from lmn_model.training.build import open_dataset
from lmn_model.training.evaluation.scoring import evaluate_split, predict_logits
from lmn_model.training.loop import Trainer
from lmn_model.training.runs.checkpoint import load_checkpoint
from lmn_model.training.runs.folder import RunFolder
from lmn_model.training.runs.loading import load_run
from lmn_model.training.runs.progress import Progress
from lmn_model.training.settings import Settings


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_events(tmp_path_factory.mktemp("events") / "events.parquet")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, events: Path) -> Path:
    """A run of the memory model that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole") / "lmn"
    train(tiny_settings(events), folder)
    return folder


def _comparable(folder: Path) -> dict[str, Any]:
    results: dict[str, Any] = json.loads((folder / "metrics.json").read_text())["results"]
    return results


# A killed process cannot tidy up. The first is killed before a step, between two checkpoints; the second in the middle
# of writing one, when half of the new file is on the disk and the old one is still in place.
KILL_BEFORE_STEP = """
import os, signal, sys
from lmn_model.training import loop as trainer
step, count = trainer.Trainer._step, 0
def counted(self, batch):
    global count
    count += 1
    if count == 19:
        os.kill(os.getpid(), signal.SIGKILL)
    step(self, batch)
trainer.Trainer._step = counted
from lmn_model.cli.main import main
sys.exit(main(sys.argv[1:]))
"""
KILL_IN_CHECKPOINT = """
import os, signal, sys
replace, count = os.replace, 0
def counted(source, target):
    global count
    count += str(target).endswith("last.safetensors")
    if count == 3:
        os.truncate(source, os.path.getsize(source) // 2)
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)
os.replace = counted
from lmn_model.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("model", ["lmn", "din"])
def test_a_run_that_was_killed_resumes_to_the_same_digits(
    tmp_path: Path, events: Path, whole: Path, model: str
) -> None:
    if model == "din":
        train(tiny_settings(events, model), whole := tmp_path / "whole")
    folder = tmp_path / "killed"

    first = run_python(KILL_BEFORE_STEP, ["train", f"--out={folder}", *tiny_flags(events, model)])
    assert first.returncode == -signal.SIGKILL, first.stderr
    assert load_checkpoint(folder / "last.safetensors").metadata["progress"]["step"] == 14
    if model == "lmn":
        second = run_python(KILL_IN_CHECKPOINT, ["train", f"--resume={folder}"])
        assert second.returncode == -signal.SIGKILL, second.stderr
        assert load_checkpoint(folder / "last.safetensors").metadata["progress"]["step"] == 23
        assert list(folder.glob(".last.safetensors.*.tmp"))

    resumed = train(tiny_settings(events, model), folder, resume=True)
    assert resumed["results"] == _comparable(folder) == _comparable(whole)
    assert not list(folder.glob(".*"))
    weights = [load_checkpoint(each / "best.safetensors").tensors for each in (folder, whole)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[1])


def test_a_run_learns(tmp_path: Path, events: Path) -> None:
    fast = {"epochs": 6, "learning_rate": 0.03, "dropout": 0.0, "eval_every": None}
    results = train(tiny_settings(events, "pooling", **fast), tmp_path / "run")["results"]
    assert results["test"]["auc"] > 0.8
    assert results["test"]["gauc"] > 0.8
    assert results["evaluations"][-1]["train_loss"] < 0.75 * results["evaluations"][0]["train_loss"]
    assert results["curve"][-1]["auc"] > 0.75 > results["curve"][0]["auc"]


def test_the_folder_of_a_run_holds_what_scoring_needs(events: Path, whole: Path) -> None:
    metrics = json.loads((whole / "metrics.json").read_text())
    results = metrics["results"]
    assert results["best"]["auc"] == max(each["auc"] for each in results["evaluations"])
    assert [each["step"] for each in results["evaluations"]] == [15, 23, 30, 45, 46]
    assert len(results["curve"]) == results["steps"] == 46
    assert metrics["timing"]["samples_per_second"] > 0
    assert metrics["environment"]["threads"] == 1
    assert Settings.from_dict(metrics["settings"]) == tiny_settings(events)
    assert (whole / "learning_curves.png").read_bytes().startswith(b"\x89PNG")
    assert "best at step" in (whole / "train.log").read_text()

    run = load_run(whole)
    test = open_dataset(run.settings.data, run.vocabularies).test
    assert evaluate_split(run.model, test, 7, run.device) == pytest.approx(results["test"], abs=1e-6)


def test_equal_seeds_give_equal_results_and_leave_the_process_as_it_was(tmp_path: Path, events: Path) -> None:
    torch.use_deterministic_algorithms(True, warn_only=True)
    threads = torch.get_num_threads()
    handler, generator = signal.getsignal(signal.SIGINT), torch.get_rng_state()
    settings = tiny_settings(events, epochs=1)
    dataset = open_dataset(settings.data)
    runs = [train(settings, tmp_path / name, dataset=dataset)["results"] for name in "ab"]
    other = train(tiny_settings(events, epochs=1, seed=1), tmp_path / "c", dataset=dataset)["results"]
    assert runs[0] == runs[1]
    assert runs[0]["evaluations"] != other["evaluations"]
    assert torch.get_num_threads() == threads
    assert torch.is_deterministic_algorithms_warn_only_enabled()
    assert signal.getsignal(signal.SIGINT) is handler
    assert torch.equal(torch.get_rng_state(), generator)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_the_run_continues_to_the_same_result(
    tmp_path: Path, events: Path, whole: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    settings = tiny_settings(events)
    before_step(monkeypatch, 12, lambda trainer: signal.raise_signal(number))
    with pytest.raises(TrainingInterrupted, match=r"stopped after step 12; continue with: lmn train --resume .*cut"):
        train(settings, tmp_path / "cut")
    assert json.loads((tmp_path / "cut" / "metrics.json").read_text())["status"] == "interrupted"
    assert (tmp_path / "cut" / "learning_curves.png").read_bytes().startswith(b"\x89PNG")
    assert train(settings, tmp_path / "cut", resume=True)["results"] == _comparable(whole)


def test_a_signal_during_an_evaluation_waits_for_the_next_step(
    tmp_path: Path, events: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate = Trainer._evaluate

    def interrupted(self: Trainer) -> None:
        signal.raise_signal(signal.SIGINT)
        evaluate(self)

    monkeypatch.setattr(Trainer, "_evaluate", interrupted)
    with pytest.raises(TrainingInterrupted, match="stopped after step 16"):
        train(tiny_settings(events, "pooling"), tmp_path / "run")
    assert load_checkpoint(tmp_path / "run" / "last.safetensors").metadata["progress"]["step"] == 16


def test_ctrl_c_on_the_command_ends_with_130_and_says_how_to_go_on(tmp_path: Path, events: Path) -> None:
    flags = tiny_flags(events, epochs=1000)
    command = [sys.executable, "-m", "lmn_model.cli.main", "train", f"--out={tmp_path / 'run'}", *flags]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("epoch 1 "):
                process.send_signal(signal.SIGINT)
                break
        rest = process.stderr.read()
        assert process.wait(timeout=60) == 130
    assert f"continue with: lmn train --resume {tmp_path / 'run'}" in rest
    assert "Traceback" not in rest
    saved = load_checkpoint(tmp_path / "run" / "last.safetensors").metadata["progress"]["step"]
    assert f"stopped after step {saved};" in rest
    assert saved >= 15  # the first evaluation


def test_a_second_resume_of_a_finished_run_changes_nothing(tmp_path: Path, events: Path) -> None:
    settings = tiny_settings(events, "pooling", epochs=1)
    first = train(settings, tmp_path / "run")
    content = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    assert train(settings, tmp_path / "run", resume=True) == first
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} == content


def test_patience_ends_the_run_and_the_best_model_is_the_one_tested(tmp_path: Path, events: Path) -> None:
    settings = tiny_settings(events, "pooling", epochs=50, eval_every=None, patience=2, learning_rate=0.1)
    results = train(settings, tmp_path / "run")["results"]
    scores = [each["auc"] for each in results["evaluations"]]
    assert results["stopped_early"]
    assert results["epochs"] < 50
    assert scores.index(max(scores)) == len(scores) - 3
    assert results["best"]["auc"] == max(scores)


def test_a_loss_that_overflows_stops_and_keeps_the_last_good_state(tmp_path: Path, events: Path) -> None:
    with pytest.raises(
        TrainingError, match=r"the loss became NaN or infinite .* step 2; the last good state is kept in"
    ):
        train(tiny_settings(events, learning_rate=1e30, checkpoint_steps=1), tmp_path / "run")
    state = load_checkpoint(tmp_path / "run" / "last.safetensors")
    assert state.metadata["progress"]["step"] == 1
    assert all(torch.isfinite(value).all() for value in state.tensors.values() if value.is_floating_point())


def test_weights_that_overflow_are_never_saved(tmp_path: Path, events: Path) -> None:
    with pytest.raises(
        TrainingError, match=r"the weight '.*' became NaN or infinite .* step 1; no state was saved yet"
    ):
        train(tiny_settings(events, learning_rate=1e39, checkpoint_steps=1), tmp_path / "run")
    assert not (tmp_path / "run" / "last.safetensors").exists()


def test_a_finished_run_goes_on_to_what_it_was_not_asked_before(tmp_path: Path, events: Path) -> None:
    settings = tiny_settings(events, epochs=1)
    assert train(settings, tmp_path / "run", test=False)["results"]["test"] is None
    assert train(settings, tmp_path / "run", test=False, resume=True)["results"]["test"] is None
    tested = train(settings, tmp_path / "run", resume=True)["results"]
    assert tested == train(settings, tmp_path / "whole")["results"]
    longer = tiny_settings(events, epochs=2)
    longer.save(tmp_path / "run" / "settings.toml")
    assert train(longer, tmp_path / "run", resume=True)["results"] == train(longer, tmp_path / "two")["results"]


def test_predict_logits_keeps_order_and_mode(tmp_path: Path, events: Path) -> None:
    settings = tiny_settings(events, "din")
    dataset = open_dataset(settings.data)
    trainer = Trainer(settings, dataset, RunFolder(tmp_path), torch.device("cpu"))
    model = trainer.state.model.train()
    logits = predict_logits(model, dataset.valid, 7, torch.device("cpu"))
    assert model.training
    again = predict_logits(model.eval(), dataset.valid, 1000, torch.device("cpu"))
    assert torch.allclose(torch.from_numpy(logits), torch.from_numpy(again), atol=1e-6)
    assert not model.training


def test_clip_norm_bounds_the_step(tmp_path: Path, events: Path) -> None:
    results = [
        train(tiny_settings(events, epochs=1, clip_norm=clip), tmp_path / str(clip))["results"]
        for clip in (1e-9, 1e9, None)
    ]
    assert results[1]["evaluations"] == results[2]["evaluations"]
    assert results[0]["evaluations"] != results[2]["evaluations"]


def test_progress_keeps_the_first_of_equal_evaluations() -> None:
    progress = Progress()
    found = [progress.add_evaluation({"auc": score}, patience=2) for score in (0.5, 0.7, 0.7, 0.6)]
    assert found == [True, True, False, False]
    assert (progress.best, progress.stopped) == (1, True)
    assert Progress.from_dict(json.loads(json.dumps(progress.to_dict()))) == progress
