"""The command that measures on a GPU, rehearsed on tiny shapes without one, and the report on what it wrote."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import gpu
from benchmarks.kernels.correctness import WrongResult
from benchmarks.kernels.graphs import measure_replay
from benchmarks.kernels.measure import Session, describe_failure
from benchmarks.kernels.problems import OPS, SLOTS, Case, Problem
from benchmarks.kernels.profiling import profile_counters
from benchmarks.kernels.provider import Bound
from benchmarks.kernels.providers import all_providers
from benchmarks.kernels.shapes import Shape
from benchmarks.kernels.timing import Effort, Stopwatch
from benchmarks.report import __main__ as report
from benchmarks.report.plots import draw_plots
from benchmarks.result_files import ResultFile, load
from benchmarks.targets import find, judge_targets

TINY = Shape("tiny", B=24, H=2, C=8, N=20, K=6, D=12)


def rehearse_gpu(folder: Path, *only: str) -> tuple[int, dict[str, Any]]:
    providers = "lmn,lmn_dense,torch,torch_sparse,pkm,fbgemm"
    arguments = ["--out", str(folder), "--device", "cpu", "--dry-run", "--providers", providers]
    status = gpu.main([*arguments, *(f"--only={text}" for text in only)])
    return status, load(folder / "gpu.json")


@pytest.fixture(scope="module")
def rehearsal(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("gpu")
    status, data = rehearse_gpu(
        folder, "replay", "captured", "training step", "determinism", "profile", "scaling with N", "lmn_1m", "wide"
    )
    assert status == 0
    return folder, data


@pytest.mark.slow
def test_a_rehearsal_of_the_gpu_command_writes_all_sections(rehearsal: tuple[Path, dict[str, Any]]) -> None:
    folder, data = rehearsal
    assert data["complete"]
    assert data["rehearsal"]
    assert set(data["environment"]) >= {"commit", "dirty", "source", "packages", "cpu", "threads"}
    assert data["ceilings"][0]["bytes_per_s"] > 0
    timed = [row for row in data["times"] if row["status"] == "ok"]
    assert {row["op"] for row in timed} == set(OPS)
    assert {row["pass"] for row in timed} == {"forward", "backward", "both"}
    assert {row["slots"] for row in timed} == set(SLOTS)
    assert all(row["share"] > 0 and row["errors"] for row in timed)
    assert all(row["peak_bytes"] > 0 for row in timed if row["pass"] != "backward")
    assert {row["provider"] for row in data["replay"]} == {"lmn", "torch"}
    assert [row["status"] for row in data["capture"]] == ["ok"] * 4
    steps = {(row["what"], row["status"], row["compared"]) for row in data["training"]}
    assert steps == {(what, "ok", "equal") for what in ("replayed", "eager")}
    assert all(row["status"] == "ok" and row["differing"] == 0 for row in data["determinism"])
    assert data["profile"][0]["share"] > 0
    assert "forward + backward" in (folder / "profile.txt").read_text()
    whys = {each["why"] for each in data["skipped"]}
    assert "not in --only" in whys
    assert any("compile: layer lmn_1m" in each["what"] for each in data["skipped"])
    assert "failed" not in data


@pytest.mark.slow
def test_every_target_of_the_gpu_is_judged_from_its_file(rehearsal: tuple[Path, dict[str, Any]]) -> None:
    judged = judge_targets([rehearsal[1]], "gpu")
    unjudged = [target.what for target in judged if target.met is None]
    assert unjudged == [
        "layer forward + backward, lmn_1m, bf16, times faster than `torch.compile`",
        "layer forward + backward, lmn_1m, fp32, times faster than `torch.compile`",
        "serve_256, kernels launched",
    ]


def test_an_interrupted_run_keeps_its_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measure, calls = gpu.measure_case, []

    def interrupted(*arguments: Any) -> None:
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        measure(*arguments)

    monkeypatch.setattr(gpu, "measure_case", interrupted)
    with pytest.raises(KeyboardInterrupt):
        rehearse_gpu(tmp_path)
    data = load(tmp_path / "gpu.json")
    assert not data["complete"]
    assert [(row["provider"], row["pass"]) for row in data["times"]] == [
        (provider, pass_) for pass_ in ("forward", "both") for provider in ("lmn", "torch")
    ]


def test_a_failing_item_is_written_down_and_the_next_one_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("the clock is broken\nsecond line")

    monkeypatch.setattr(gpu, "measure_replay", fail)
    status, data = rehearse_gpu(tmp_path, "replay of layer serve_256", "determinism")
    assert status == 1
    assert [each["reason"] for each in data["failed"]] == ["RuntimeError: the clock is broken"]
    assert len(data["determinism"]) == 2
    assert "the clock is broken" in capsys.readouterr().out


def test_hardware_counters_are_written_or_their_absence_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs))
    with ResultFile(tmp_path / "gpu.json", "gpu", "cpu") as file:
        session = Session(file, Stopwatch("cpu"), Effort())
        case = Case("layer", TINY, "bf16")
        profile_counters(session, case, "_some_kernel", tmp_path, 20)
        for script in ('echo "$@"', "echo refused; exit 3", "exec /usr/bin/tail -f /dev/null"):
            (programs / "ncu").write_text(f"#!/bin/sh\n{script}\n")
            (programs / "ncu").chmod(0o755)
            profile_counters(session, case, "void at::native::(anonymous namespace)::sum<float>(int)", tmp_path, 1)
            if script.startswith("echo "):
                shown = (tmp_path / "ncu.txt").read_text()
                assert "--clock-control none" in shown or "refused" in shown
                assert "--kernel-name sum " in shown or "refused" in shown
    whys = [each["why"] for each in file.data["skipped"]]
    assert whys == ["ncu is not on the PATH", "ncu ended with 3; see ncu.txt", "ncu took more than 1 s"]


def test_a_wrong_provider_gets_a_reason_and_no_figure() -> None:
    assert describe_failure(WrongResult("off")) == {"status": "wrong", "reason": "WrongResult: off"}
    assert describe_failure(torch.OutOfMemoryError("big"))["status"] == "out of memory"
    assert describe_failure(NotImplementedError("no"))["status"] == "unsupported"
    assert describe_failure(ValueError(""))["reason"] == "ValueError: no message"


def test_a_replay_that_differs_gets_a_reason_and_no_figure(tmp_path: Path) -> None:
    plain = all_providers()["torch"]

    def unsteady(problem: Problem) -> Bound:
        bound, calls = plain.ops["layer"](problem), itertools.count()

        def run() -> tuple[torch.Tensor, torch.Tensor | None]:
            output, slots = bound.run()
            return output * (1 + 1e-6 * next(calls)), slots

        return replace(bound, run=run)

    with ResultFile(tmp_path / "gpu.json", "gpu", "cpu") as file:
        providers = {"torch": replace(plain, ops={"layer": unsteady})}
        effort = Effort(0.0, 0.0, 1, 1)
        session = Session(file, Stopwatch("cpu"), effort, provider_names=("torch",), providers=providers)
        measure_replay(session, Case("layer", TINY), ("torch",))
    (row,) = file.data["replay"]
    assert row["status"] == "wrong"
    assert "differs from an eager call" in row["reason"]
    assert "p50_ms" not in row


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--device", "cpu"], "rehearsals"),
        (["--device", "cpu", "--dry-run", "--providers", "lmn,mine"], "got mine"),
    ],
)
def test_the_gpu_command_says_what_is_wrong(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        gpu.main(["--out", str(tmp_path), *arguments])
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_the_report_shows_every_section_losses_and_reasons(
    rehearsal: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    data = {**rehearsal[1], "file": "gpu.json"}
    suite = {**data, "kind": "suite", "file": "suite.json"}
    suite["times"] = [row for row in data["times"] if "sweep" not in row]
    measured = {**data, "kind": "cpu", "file": "cpu.json"}
    broken = {"provider": "pkm", "status": "wrong", "reason": "WrongResult: off"}
    case = next(row for row in data["times"] if row["op"] == "layer")
    suite["times"] = [*suite["times"], {**{key: case[key] for key in ("op", "shape", "dtype", "slots")}, **broken}]
    page = report.render(report.PAGE.read_text(encoding="utf-8"), [data, suite, measured])
    assert page.count(report.NOT_MEASURED) == 3  # the audit, the training step on a CPU, large tables
    lost = sum(row["provider"] == "torch" and row["status"] == "ok" for row in find([data], "gpu"))
    assert f"of {lost} rows." in page
    assert "wrong: WrongResult: off: pkm: layer lmn_1m" in page
    assert "| captured step |" in page
    plots = draw_plots([data, suite, measured], tmp_path)
    assert [path.name for path in plots] == ["cpu_scaling.svg", "suite_times.svg", "gpu_scaling.svg", "gpu_times.svg"]
    assert all(f"(results/{path.name})" in page for path in plots)
    first = plots[0].read_bytes()
    draw_plots([measured], tmp_path)
    assert plots[0].read_bytes() == first


def test_the_report_refuses_rehearsals_twins_and_strangers(tmp_path: Path) -> None:
    path, data = tmp_path / "gpu.json", {"format": 2, "kind": "gpu", "rehearsal": True}
    path.write_text(json.dumps(data))
    with pytest.raises(ValueError, match="is a rehearsal"):
        report.read_results(tmp_path)
    path.write_text(json.dumps({**data, "rehearsal": False}))
    (tmp_path / "other.json").write_text(path.read_text())
    with pytest.raises(ValueError, match="another file of kind 'gpu'"):
        report.read_results(tmp_path)
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(ValueError, match=r"other.json must be a result file of format 1 or 2, got format None"):
        report.read_results(tmp_path)
    with pytest.raises(ValueError, match="the page must have the sections"):
        report.render("no sections", [])
