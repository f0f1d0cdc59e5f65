"""Training under hooks and under torch's profiler."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

from torch.profiler import ProfilerActivity, profile

from benchmarks.training.step_clock import EPOCH, Clock, hooked
from lmn_model.data import Dataset
from lmn_model.training import loop, schedule
from lmn_model.training.settings import Settings
from lmn_model.training.train_run import train

TOP = 15
"""Operators that are listed."""


def train_timed(settings: Settings, dataset: Dataset, clock: Clock) -> None:
    """Train under ``clock``; the run folder is deleted."""
    with tempfile.TemporaryDirectory() as folder, hooked(clock):
        train(settings, Path(folder) / "run", dataset=dataset)


def profile_operators(settings: Settings, dataset: Dataset, warm_up: int) -> dict[str, Any]:
    """Train under torch's profiler: shares of the ops of ``lmn_kernels`` and the row optimiser, slowest operators."""
    profiler = profile(activities=[ProfilerActivity.CPU])
    clock = Clock(warm_up, profiler.start)
    record = loop.Trainer._record

    def stop_and_record(trainer: loop.Trainer, *arguments: Any) -> None:
        profiler.stop()
        record(trainer, *arguments)

    with (
        mock.patch.object(schedule, "CURVE_POINTS", 1),  # after the last step, before the work of an epoch
        mock.patch.object(loop.Trainer, "_record", stop_and_record),
    ):
        train_timed(settings, dataset, clock)
    step_us = 1e6 * (clock.wall - sum(clock.seconds.get(part, 0.0) for part in EPOCH)) / clock.steps
    averages = profiler.key_averages()
    ops = [event for event in averages if event.key.startswith("lmn_kernels::")]
    rows = 1e6 * clock.seconds.get("rows", 0.0) / clock.steps
    nodes = [event for event in averages if event.key.startswith("autograd::engine::evaluate_function: ")]

    def listed(events: list[Any], field: str) -> list[dict[str, Any]]:
        events = sorted(events, key=lambda event: getattr(event, field), reverse=True)[:TOP]
        return [
            {
                "name": event.key.removeprefix("autograd::engine::evaluate_function: "),
                "us_a_step": round(getattr(event, field) / clock.steps, 1),
                "calls_a_step": round(event.count / clock.steps, 2),
                "share": round(getattr(event, field) / clock.steps / step_us, 4),
            }
            for event in events
        ]

    return {
        "profiled_steps": clock.steps,
        "profiled_step_ms": step_us / 1e3,
        "share_of_kernel_ops": sum(event.cpu_time_total for event in ops) / clock.steps / step_us,
        "share_of_row_optimizer": rows / step_us,
        "kernel_ops": listed(ops, "cpu_time_total"),
        "backward_nodes": listed(nodes, "cpu_time_total"),
        "operators": listed([event for event in averages if "::" in event.key], "self_cpu_time_total"),
    }
