"""The benchmark of serving: a rehearsal of every point, its picture, and mistakes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks import serving


def test_a_rehearsal_measures_every_point_and_is_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    threads = torch.get_num_threads()
    try:
        assert serving.main(["--quick", "--device", "cpu", "--out", str(tmp_path / "serving.json")]) == 0
    finally:
        torch.set_num_threads(threads)
    data = json.loads((tmp_path / "serving.json").read_text())
    assert data["complete"]
    assert [(each["model"], each["candidates"]) for each in data["candidates"]] == [
        (name, count) for name in serving.MODELS for count in serving.CANDIDATES
    ]
    assert [(each["model"], each["slots"]) for each in data["sizes"]] == [
        (name, size**2) for name in serving.GROWN for size in (16, 32)
    ]
    for each in (*data["candidates"], *data["sizes"]):
        assert each["p99_ms"] >= each["p50_ms"] > 0
        assert each["calls"] >= 20
    assert "| DIN 200 | " in capsys.readouterr().out
    picture = tmp_path / "serving.png"
    assert serving.main(["--draw", "--out", str(tmp_path / "serving.json"), "--picture", str(picture)]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_requests_are_of_one_user_each_and_differ() -> None:
    batches = serving.make_batches(8, 50, True, torch.device("cpu"), count=4)
    assert all(len(batch.user.unique()) == 1 and len(batch.history.unique(dim=0)) == 1 for batch in batches)
    assert len({batch.item.sum().item() for batch in batches}) > 1
    assert all(batch.found is not None and batch.found.shape == (8, serving.FOUND, 3) for batch in batches)
    model = serving.make_model("lmn_only", 1, torch.device("cpu"), sub_keys=8)
    assert model.memory is not None
    assert bool(model.memory.memory.values.any(dim=1).all())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--device", "gpu"], "--device: "),
        (["--threads", "0"], "--threads must be at least 1, got 0"),
        (["--draw", "--out", "missing.json"], "--draw: missing.json: "),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        serving.main(arguments)
    assert message in capsys.readouterr().err
