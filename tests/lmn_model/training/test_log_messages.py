"""The log of a training: sentences with units in the log, a bar on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from project_root import ROOT
from runs_factory import before_step, tiny_flags, tiny_settings, write_events

from lmn_model.cli.main import main
from lmn_model.training import TrainingInterrupted, train
from lmn_model.training.loop import Trainer
from lmn_model.training.reporting import log_messages
from lmn_model.training.reporting.log_messages import duration, metrics_in_words, parameters_in_words, usage_in_words


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_events(tmp_path_factory.mktemp("events") / "events.parquet")


def test_the_log_is_sentences_with_the_figures_of_the_metrics(
    events: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", f"--out={tmp_path / 'run'}", *tiny_flags(events, epochs=1)]) == 0
    log = capsys.readouterr().err
    results = json.loads((tmp_path / "run" / "metrics.json").read_text())["results"]
    total = results["parameters"]["total"]
    assert re.search(rf"^model: {total:,} parameters \(.*tower .*\); the memory has 64 slots$", log, re.MULTILINE)
    assert re.search(r"^data: train .* of users new", log, re.MULTILINE)
    first = results["evaluations"][0]
    assert (
        f"epoch 1 of 1, step 15: training loss {first['train_loss']:.4f}, memory loss {first['memory_loss']:.4f}; "
        f"validation AUC {first['auc']:.4f}, GAUC {first['gauc']:.4f}, log loss {first['log_loss']:.4f} (best so far)"
    ) in log
    assert f"best at step {results['best']['step']} by validation AUC; test split: AUC " in log
    for word in ("{", "_loss", "kl_to_uniform", "gini", "part", "nats"):
        assert word not in log


def test_without_a_terminal_lines_say_how_far_it_is(
    events: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_messages, "REPORT_SECONDS", 0.0)
    settings = tiny_flags(events, "pooling", epochs=2)
    assert main(["train", f"--out={tmp_path / 'run'}", *settings]) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("step ")]
    assert len(lines) == 46
    assert re.fullmatch(
        r"step 1 of 23 in epoch 1 of 2 \(4 %\): [\d,]+ samples/s, loss 0\.\d{4}, about \d+ s left", lines[0]
    )
    assert lines[-1].startswith("step 23 of 23 in epoch 2 of 2 (100 %)")
    assert lines[-1].endswith("about 0 s left")
    assert (tmp_path / "run" / "train.log").read_text().count(" INFO step ") == 46


@pytest.mark.skipif(sys.platform != "linux", reason="opens a pseudo-terminal as Linux has it")
def test_on_a_terminal_there_is_a_bar(events: Path, tmp_path: Path) -> None:
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    flags = tiny_flags(events, "pooling", epochs=1)
    command = [sys.executable, "-m", "lmn_model.cli.main", "train", f"--out={tmp_path / 'run'}", *flags]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=theirs) as process:
        os.close(theirs)
        shown = b""
        try:
            while read := os.read(ours, 4096):
                shown += read
        except OSError:  # the other end is closed
            pass
        assert process.wait() == 0
    assert b"epoch 1/1" in shown
    assert b" samples/s" in shown


def test_ctrl_c_in_the_last_step_or_the_test_stops_and_resumes(
    events: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = tiny_settings(events, epochs=1)
    uncut = train(settings, tmp_path / "whole")["results"]
    with monkeypatch.context() as patch:
        before_step(patch, 23, lambda trainer: signal.raise_signal(signal.SIGINT))
        with pytest.raises(TrainingInterrupted, match="stopped after step 23; continue with: lmn train --resume"):
            train(settings, tmp_path / "run")
    test = Trainer._test

    def interrupted(self: Trainer) -> object:
        signal.raise_signal(signal.SIGINT)
        return test(self)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_test", interrupted)
        with pytest.raises(TrainingInterrupted, match="stopped before the test was over; continue with: lmn train"):
            train(settings, tmp_path / "run", resume=True)
    resumed = train(settings, tmp_path / "run", resume=True)["results"]
    assert (resumed["best"], resumed["test"]) == (uncut["best"], uncut["test"])


def test_figures_have_units() -> None:
    assert [duration(each) for each in (0, 99.4, 100, 5_940, 12_000)] == [
        "0 s",
        "99 s",
        "2 min",
        "99 min",
        "3 h 20 min",
    ]
    assert metrics_in_words({"auc": 0.5, "gauc": None, "log_loss": 0.25, "step": 3}) == "AUC 0.5000, log loss 0.2500"
    counts = {"embeddings": 1000, "interest": 0, "memory": 64, "tower": 6, "total": 1070}
    assert parameters_in_words(counts, None) == "1,070 parameters (embeddings 1,000, memory 64, tower 6)"
    usage = {"coverage": 0.12345, "recent_coverage": 0.00004, "gini": 0.4, "top_1_percent": 0.5}
    assert usage_in_words(usage, 1_048_576, 1200) == (
        "12.3 % of 1,048,576 slots read in this epoch, 0.004 % in the last 1,200 steps; the 1 % of slots read most "
        "take 50 % of the reads; evenness 0.60 (1: all slots alike)"
    )
    nothing = {"coverage": 0.0, "recent_coverage": 0.0, "gini": None, "top_1_percent": None}
    assert usage_in_words(nothing, 64, 1) == "0 % of 64 slots read in this epoch, 0 % in the last step"
