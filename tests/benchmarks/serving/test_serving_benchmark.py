"""The benchmark of serving: a rehearsal of every point, tables and picture, the batches of a call, and mistakes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.serving import __main__ as serving
from benchmarks.serving import figure, measure, models
from benchmarks.serving.measure import QUICK, Effort
from benchmarks.serving.models import GROWN, MODELS, WITHOUT, Request, Served
from lmn_model.data.features import FIRST_KNOWN

CPU = torch.device("cpu")


def test_a_rehearsal_measures_every_point_and_is_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, picture, threads = tmp_path / "serving.json", tmp_path / "serving.png", torch.get_num_threads()
    assert serving.main(["--quick", "--device", "cpu", "--threads", "1", "--out", str(out)]) == 0
    assert torch.get_num_threads() == threads
    data = json.loads(out.read_text())
    assert data["complete"]
    assert data["rehearsal"]
    assert data["device"] == "cpu"
    assert data["threads"] == data["environment"]["threads"] == 1
    assert "commit" in data["environment"]
    assert set(data["settings"]["models"]) == {*MODELS, *GROWN}
    found = [(each["model"], each["candidates"]) for each in data["candidates"]]
    assert sorted(found) == sorted((name, count) for name in MODELS for count in (1, 8, 32, 128, 512))
    found = [(each["model"], each["slots"]) for each in data["sizes"]]
    assert found == [(name, N * N) for name in GROWN for N in QUICK.sizes]
    for each in (*data["candidates"], *data["sizes"]):
        assert each["p99_ms"] >= each["p50_ms"] > 0
        assert each["candidates_per_s"] > 0
        assert QUICK.blocks <= each["calls"] <= QUICK.calls
    shown = capsys.readouterr().out
    assert all(shown.count(f"\n| {name} | ") == 1 + (name == WITHOUT) for name in MODELS)
    assert "| candidates/s at 512 |" in shown
    assert serving.main(["--draw", "--out", str(out), "--picture", str(picture)]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(SystemExit):
        serving.main(["--draw", "--out", str(out)])
    assert "the file is of a rehearsal and needs --picture" in capsys.readouterr().err


def test_the_models_and_sizes_are_those_of_the_question() -> None:
    effort = Effort()
    assert [N * N for N in effort.sizes] == [2**10, 2**16, 2**20, 2**24]
    assert effort.sub_keys**2 == 2**20
    assert min(effort.calls, effort.enough) >= 300
    settings = {name: models.settings_of(served, 1024) for name, served in (MODELS | GROWN).items()}
    assert [name for name, each in settings.items() if each.matches] == ["LMN + DIN 50 with matches"]
    assert {name for name, each in settings.items() if each.memory.kind == "joint"} == {
        "LMN + DIN 50 (joint query)", "LMN without a window (joint query)",
    }  # fmt: skip


def test_a_request_is_of_one_user_and_no_two_are_alike() -> None:
    request = Request(Served("sim_hard", 200), 8, CPU)
    batches = [request() for _ in range(20)]
    for batch in batches:
        assert len(batch) == len(batch.item) == 8
        assert len(batch.user.unique()) == len(batch.history.unique(dim=0)) == 1
        assert batch.history.shape == (8, 200, 3)
        assert batch.found is not None
        assert batch.found.shape == (8, models.FOUND, 3)
        assert bool((batch.found[..., 2] == batch.item[:, None, 2]).all())
        assert min(int(each.min()) for each in (batch.user, batch.item, batch.history)) >= FIRST_KNOWN
    products = torch.cat([batch.item[:, 0] for batch in batches])
    assert len(products.unique()) > 0.9 * len(products)


@pytest.mark.parametrize("memory", ["factored", "joint"])
def test_no_value_of_a_memory_is_left_at_zero(memory: str) -> None:
    layer = models.make_model(Served("none", 1, memory), 8, CPU).memory_block()
    assert layer is not None
    assert bool(layer.values.any(dim=1).all())


def test_blocks_keep_to_their_calls_and_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(measure.time, "perf_counter", lambda: clock[0])

    class Model:
        def __init__(self, seconds: float) -> None:
            self.seconds = seconds

        def __call__(self, batch: object) -> None:
            clock[0] += self.seconds

    servers: Any = {name: (Model(1e-3 * name), lambda: None) for name in (1, 50, 1000)}
    effort = Effort(calls=1000, seconds=10.0, enough=300, longest=30.0, blocks=10)
    times = measure.time_in_blocks(servers, effort, CPU)
    assert len(times[1]) == 1000  # as many as are wanted
    assert len(times[50]) == 300  # 10 s are over, but a p99 is not there yet
    assert 30 <= len(times[1000]) <= 40  # it never will be
    assert times[50] == pytest.approx([50.0] * 300)


def test_tables_of_an_interrupted_run_say_what_is_missing(tmp_path: Path) -> None:
    points = [
        {"model": name, "slots": None, **measure.point([1.0] * calls, candidates)}
        for name, calls, candidates in (("a", 300, 1), ("a", 299, 8), ("b", 300, 1))
    ]
    assert figure.tables({"candidates": points}).splitlines() == [
        "| p50 / p99 in ms by candidates | 1 | 8 | candidates/s at 8 |",
        "|---|---|---|---|",
        "| a | 1 / 1 | 1 / 1* | 8,000 |",
        "| b | 1 / 1 | - | - |",
        "",
        "\\* p99 of fewer than 300 calls.",
    ]
    figure.draw({"candidates": points}, tmp_path / "part.png")
    assert (tmp_path / "part.png").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--device", "gpu", "--out", "x.json"], "--device: device must be auto, cpu, cuda or cuda:N, got 'gpu'"),
        (["--threads", "0"], "--threads must be at least 1, got 0"),
        (["--out", "missing/x.json"], "--out must be a file in a folder that is there, got missing/x.json"),
        (["--out", "."], "--out must be a file in a folder that is there, got ."),
        (["--quick"], "--quick is a rehearsal and needs --out"),
        (["--draw", "--picture", "missing/x.png"], "--picture must be a file in a folder that is there"),
        (["--draw", "--picture", "x.png", "--out", "none.json"], "--draw: none.json cannot be read: "),
        (["--draw", "--picture", "x.png", "--out", "other.json"], "must be a result file of kind 'serving', got 'cpu'"),
        (["--draw", "--picture", "x.png", "--out", "empty.json"], "--draw: empty.json holds no points"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("other.json").write_text('{"format": 1, "kind": "cpu"}')
    Path("empty.json").write_text('{"format": 1, "kind": "serving"}')
    with pytest.raises(SystemExit) as stopped:
        serving.main(arguments)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
    assert not Path("x.json").exists()
    assert not Path("x.png").exists()
