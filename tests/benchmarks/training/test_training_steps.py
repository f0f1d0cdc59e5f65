"""The benchmarks of a training step and of large tables, rehearsed at tiny shapes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.kernels.problems import Case, make_problems
from benchmarks.kernels.shapes import tiny
from benchmarks.report.tables import large_table, training_table
from benchmarks.result_files import load
from benchmarks.training import large_tables, layer_step


@pytest.mark.slow
def test_a_rehearsal_of_the_training_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert layer_step.main(["--out", str(tmp_path / "training.json"), "--rehearse", "--threads", "1"]) == 0
    data = load(tmp_path / "training.json")
    assert [row["provider"] for row in data["steps"] if row["what"] == "step"] == [
        "row_adagrad", "row_adam", "torch", "torch_fused", "torch_sparse", "row_adagrad", "row_adam"
    ]  # fmt: skip
    assert len(training_table([data]).splitlines()) == 2 + len(data["peaks"]) == 9
    values = {row["provider"]: row["shape"]["N"] ** 2 * row["shape"]["D"] * 4 for row in data["peaks"]}
    state = {row["provider"]: row["state_bytes"] for row in data["peaks"]}
    assert values["torch"] * 3 <= state["torch"] <= values["torch"] * 3 + 8
    assert values["row_adagrad"] < state["row_adagrad"] < values["row_adagrad"] * 1.1
    assert all(row["peak_bytes"] > 2**26 for row in data["peaks"])
    assert "RowAdam, step without router, 2^24 slots over 2^20" in capsys.readouterr().out


def test_the_training_providers_compute_the_same_step() -> None:
    """With plain gradient descent in place of their optimisers all providers move keys and values alike."""
    problem = make_problems(Case("layer", tiny(layer_step.STEP)), 1)[0]
    ends = {}
    for provider in layer_step.PROVIDERS:
        own = replace(problem, tensors={name: tensor.clone() for name, tensor in problem.tensors.items()})
        trainer = layer_step.Trainer(provider, own)
        trainer.optimizers = [torch.optim.SGD([trainer.keys, trainer.values], lr=0.5)]
        for _ in range(2):
            trainer.step(own)
        ends[provider] = (trainer.keys.detach(), trainer.values.detach())
    for provider, end in ends.items():
        for ours, theirs in zip(end, ends["torch"], strict=True):
            torch.testing.assert_close(ours, theirs, msg=lambda text, provider=provider: f"{provider}: {text}")
    assert not torch.equal(ends["torch"][1], problem.tensors["values"])


@pytest.mark.slow
def test_a_rehearsal_of_large_tables(tmp_path: Path) -> None:
    assert large_tables.main(["--out", str(tmp_path / "large.json"), "--rehearse", "--threads", "1"]) == 0
    data = load(tmp_path / "large.json")
    assert [row["slots"] for row in data["tables"]] == [64**2, 128**2]
    for row in data["tables"]:
        assert row["file_bytes"] > row["held_bytes"] >= row["slots"] * 64 * 4
        assert min(row["save_peak_bytes"], row["load_peak_bytes"]) > row["held_bytes"]
    assert len(large_table([data]).splitlines()) == 2 + 2
    assert [path.name for path in tmp_path.iterdir()] == ["large.json"]
