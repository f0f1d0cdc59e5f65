"""Small tables and settings for tests of training and of the command line."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from events_factory import make_events
from project_root import ROOT

from lmn_model.training.loop import Trainer
from lmn_model.training.settings import Settings


def write_events(path: Path, rows: int = 900) -> Path:
    """A parquet or CSV file of synthetic events, by the suffix of ``path``."""
    events = make_events(rows=rows, users=20, items=40)
    if path.suffix == ".csv":
        events.write_csv(path)
    else:
        events.write_parquet(path)
    return path


def tiny_values(events: Path, model: str = "lmn") -> dict[str, object]:
    """Settings of a training that takes a second: 23 steps an epoch, dropout, and a memory of 64 slots.

    Args:
        events: table of events.
        model: ``"lmn"``, DIN with a joint memory, or the name of a window model, without a memory.
    """
    return {
        "dataset": "events",
        "path": str(events),
        "item_features": ("category",),
        "user_features": ("segment",),
        "context_features": ("hour", "price"),
        "window": "din" if model == "lmn" else model,
        "window_size": 5,
        "memory": "joint" if model == "lmn" else "none",
        "embedding_dim": 4,
        "hidden": (8,),
        "dropout": 0.1,
        "sub_keys": 8,
        "top_k": 4,
        "key_dim": 4,
        "epochs": 2,
        "batch_size": 64,
        "order": "shuffle",
        "learning_rate": 0.01,
        "memory_learning_rate": 0.01,
        "threads": 1,
        "device": "cpu",
        "eval_every": 15,
        "checkpoint_steps": 7,
    }


def tiny_settings(events: Path, model: str = "lmn", **changes: object) -> Settings:
    """The settings of :func:`tiny_values` with ``changes`` by name."""
    return Settings().override({**tiny_values(events, model), **changes})


def tiny_flags(events: Path, model: str = "lmn", **changes: object) -> list[str]:
    """The flags of the command line that mean :func:`tiny_settings`."""
    values = {**tiny_values(events, model), **changes}
    texts = {name: ",".join(map(str, each)) if isinstance(each, tuple) else str(each) for name, each in values.items()}
    return [f"--{name.replace('_', '-')}={text}" for name, text in texts.items()]


def run_python(code: str, arguments: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    """Run ``code`` in a fresh interpreter from the root of the repository."""
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


def stop_after(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Stop a training, as Ctrl-C does, once it has made this number of steps."""
    after = Trainer._after_step

    def stopping(self: Trainer, stop: Any, report: Any) -> bool:
        if self.state.progress.step == number:
            stop.set()
        return after(self, stop, report)

    monkeypatch.setattr(Trainer, "_after_step", stopping)


def before_step(monkeypatch: pytest.MonkeyPatch, number: int, act: Callable[[Trainer], None]) -> None:
    """Call ``act`` once, before the training step with this number."""
    step, count = Trainer._step, [0]

    def counted(self: Trainer, batch: Any) -> None:
        count[0] += 1
        if count[0] == number:
            act(self)
        step(self, batch)

    monkeypatch.setattr(Trainer, "_step", counted)
