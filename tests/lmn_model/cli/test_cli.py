"""The command line as a user meets it: what works, and one clear line with exit code 2 for every mistake."""

from __future__ import annotations

import json
import resource
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from events_factory import make_events
from runs_factory import run_python, tiny_flags, tiny_settings, write_events

from lmn_model.cli import commands
from lmn_model.cli.main import main
from lmn_model.training.build import open_dataset
from lmn_model.training.evaluation.metrics import probabilities
from lmn_model.training.evaluation.scoring import predict_logits
from lmn_model.training.runs.folder import RunFolder
from lmn_model.training.runs.loading import load_run

HAND_MADE = ["--dataset=events", "--user-col=who", "--item-col=what", "--time-col=when", "--item-features=cat"]
SMALL = ["--embedding-dim=4", "--hidden=8", "--batch-size=32", "--threads=1", "--device=cpu"]
SMALL += ["--window=pooling", "--memory=none"]


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_events(tmp_path_factory.mktemp("events") / "events.parquet", rows=600)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, events: Path) -> Path:
    """A finished run of a small memory model, made through the command."""
    folder = tmp_path_factory.mktemp("runs") / "mine"
    assert main(["train", f"--out={folder}", *tiny_flags(events, epochs=1)]) == 0
    return folder


def _hand_made(path: Path, **columns: list[object]) -> Path:
    """A CSV as a user would write it: other column names, ISO times, a label."""
    rows = 120
    table: dict[str, list[object]] = {
        "who": [f"user {row % 6}" for row in range(rows)],
        "what": [f"item-{row * 7 % 11:03d}" for row in range(rows)],
        "when": [f"2024-03-{1 + row // 10:02d} 08:{row % 10:02d}:00" for row in range(rows)],
        "bought": [row * 7 % 3 % 2 for row in range(rows)],
        "cat": ["food" if row % 11 < 5 else "other" for row in range(rows)],
        "weight": [row / 7 for row in range(rows)],
    }
    pl.DataFrame({**table, **columns}).write_csv(path)
    return path


def _error(capsys: pytest.CaptureFixture[str], arguments: list[str], code: int = 2) -> str:
    """Run the command, check that it fails with one line, and give that line."""
    capsys.readouterr()
    assert main(arguments) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert len(lines) == 1, captured.err
    assert lines[0].startswith("lmn: error: ")
    return lines[0].removeprefix("lmn: error: ")


def test_a_csv_made_by_hand_trains_evaluates_and_predicts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = _hand_made(tmp_path / "mine.csv")
    out = tmp_path / "runs" / "mine"
    assert main(["train", f"--path={table}", "--label-col=bought", f"--out={out}", *HAND_MADE, *SMALL]) == 0
    trained = json.loads(capsys.readouterr().out)
    assert trained["run"] == str(out)

    assert main(["evaluate", f"--run={out}"]) == 0
    evaluated = json.loads(capsys.readouterr().out)
    assert evaluated == {"split": "test", "rows": evaluated["rows"], **trained["test"]}
    assert main(["evaluate", f"--run={out}", "--split=valid", f"--path={table}"]) == 0
    assert json.loads(capsys.readouterr().out)["split"] == "valid"

    pairs = tmp_path / "pairs.csv"
    pairs.write_text("note,what,who\nfirst,item-003,user 1\nunknown,new item,new user\nsecond,item-001,user 5\n")
    assert main(["predict", f"--run={out}", f"--pairs={pairs}", f"--out={tmp_path / 'scored.csv'}"]) == 0
    scored = pl.read_csv(tmp_path / "scored.csv")
    assert scored.columns == ["note", "what", "who", "probability"]
    assert scored["note"].to_list() == ["first", "unknown", "second"]
    assert ((scored["probability"] > 0) & (scored["probability"] < 1)).all()
    logged = capsys.readouterr().err
    assert "33.3 % of the pairs have a user that training has no id for" in logged
    assert "33.3 % of the pairs have an item that training has no id for" in logged


def test_predictions_equal_those_of_the_evaluation(run: Path, events: Path, tmp_path: Path) -> None:
    # The pairs are the newest events: with their times, histories are those of the test split.
    pairs = make_events(rows=600, users=20, items=40).tail(40).drop("category", "segment")
    pairs.write_parquet(tmp_path / "pairs.parquet")
    out = tmp_path / "out.parquet"
    assert main(["predict", f"--run={run}", f"--pairs={tmp_path / 'pairs.parquet'}", f"--out={out}"]) == 0
    scored = pl.read_parquet(out)
    assert scored.drop("probability").equals(pairs)

    loaded = load_run(run)
    test = open_dataset(loaded.settings.data, loaded.vocabularies).test
    positives = probabilities(predict_logits(loaded.model, test, 64, loaded.device))[test.labels == 1]
    np.testing.assert_allclose(np.sort(scored["probability"].to_numpy()), np.sort(positives[-40:]), atol=1e-6)


def test_predict_does_not_overwrite_without_force(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs, out = tmp_path / "pairs.csv", tmp_path / "out.csv"
    pairs.write_text("user_id,item_id,hour,price\nu1,1001,3,2.5\n")
    out.write_text("precious")
    command = ["predict", f"--run={run}", f"--pairs={pairs}", f"--out={out}"]
    assert "out.csv exists; --force replaces it" in _error(capsys, command)
    assert out.read_text() == "precious"
    assert main([*command, "--force"]) == 0
    assert "probability" in out.read_text()


def test_settings_come_from_file_and_flags(events: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_settings(events, "pooling", epochs=7).save(tmp_path / "s.toml")
    assert main(["train", f"--config={tmp_path / 's.toml'}", "--epochs=1", f"--out={tmp_path / 'run'}"]) == 0
    assert RunFolder(tmp_path / "run").load_settings() == tiny_settings(events, "pooling", epochs=1)
    again = _error(capsys, ["train", f"--config={tmp_path / 's.toml'}", f"--out={tmp_path / 'run'}"])
    assert again.endswith(
        f"already holds a run; continue it (lmn train --resume {tmp_path / 'run'}) or choose another --out"
    )
    assert "no other setting goes with it" in _error(capsys, ["train", f"--resume={tmp_path / 'run'}", "--epochs=2"])
    assert main(["train", f"--resume={tmp_path / 'run'}"]) == 0


@pytest.mark.parametrize(
    ("changes", "flags", "message"),
    [
        ({}, ["--item-col=item"], "no column 'item'; the columns are 'who', 'what', 'when', 'bought', 'cat', 'weight'"),
        ({"when": [None] * 120}, [], "'when'"),
        ({"when": ["soon"] * 120}, [], "'when'"),
        ({"bought": [2] * 120}, ["--label-col=bought"], "'bought'"),
        ({"bought": [1] * 120}, ["--label-col=bought"], "class"),
        ({"weight": [float("nan")] + [1.5] * 119}, ["--context-features=weight"], "'weight'"),
        ({"who": ["x", None] * 60}, [], "'who'"),
        ({}, ["--test-fraction=2"], "test_fraction must be between 0 and 1, got 2"),
        ({}, ["--item-features=cat,what"], "'what' is named twice"),
    ],
)
def test_a_table_that_cannot_be_used_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, list[object]], flags: list[str], message: str
) -> None:
    table = _hand_made(tmp_path / "mine.csv", **changes)
    found = _error(capsys, ["train", f"--path={table}", f"--out={tmp_path / 'run'}", *HAND_MADE, *SMALL, *flags])
    assert message in found
    assert not (tmp_path / "run" / "settings.toml").exists()


def test_files_that_are_not_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty.csv").write_text("who,what,when,cat\n")
    (tmp_path / "a.parquet").write_text("no parquet")
    (tmp_path / "a.xlsx").write_text("")
    base = ["train", f"--out={tmp_path / 'run'}", *HAND_MADE, *SMALL]
    assert "none.csv: no such file" in _error(capsys, [*base, f"--path={tmp_path / 'none.csv'}"])
    assert "empty" in _error(capsys, [*base, f"--path={tmp_path / 'empty.csv'}"])
    assert "a.parquet" in _error(capsys, [*base, f"--path={tmp_path / 'a.parquet'}"])
    assert "a.xlsx: a table must be one of" in _error(capsys, [*base, f"--path={tmp_path / 'a.xlsx'}"])
    assert "path must name" in _error(capsys, base)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--bach-size=3"], "unknown argument '--bach-size'; did you mean '--batch-size'?"),
        (["train", "--batch-size=many"], "argument --batch-size: the value must be an integer or none, got 'many'"),
        (["train", "--batch-size=0"], "command line: batch_size must be at least 1, got 0"),
        (["train", "--order=random"], "the value must be one of 'time', 'shuffle', got 'random'"),
        (["train", "--seed=99999999999999999999"], "seed must be at most 9223372036854775807, got 9999"),
        (["train", "--threads=99999999999999"], "threads must be at most 4096, got 99999999999999"),
        (["train", "--config=none.toml"], "none.toml: the settings cannot be read: No such file or directory"),
        (["train", "--resume=none"], "none: there is no run here"),
        (["train", "--device=tpu9"], "device must be auto, cpu, cuda or cuda:N, got 'tpu9'"),
        (["evaluate"], "the following arguments are required: --run"),
        (["evaluate", "--run=none"], "none: there is no run here"),
        (
            ["predict", "--run=none", "--pairs=p.csv", "--out=o.txt"],
            "o.txt: the suffix must be one of .csv, .tsv, .parquet",
        ),
        (["predict", "--run=none", "--pairs=p.csv", "--out=no/o.csv"], "no/o.csv: there is no folder no"),
        (["sell"], "invalid choice: 'sell'"),
        ([], "the following arguments are required: COMMAND"),
    ],
)
def test_wrong_arguments_are_one_line(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in _error(capsys, arguments)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_extra_is_one_line() -> None:
    code = "import sys; sys.modules['polars'] = None; from lmn_model.cli.main import main; sys.exit(main(['train']))"
    done = run_python(code)
    assert done.returncode == 2
    assert done.stderr == "lmn: error: polars is not installed; pip install 'lmn-kernels[train]'\n"


def test_an_unknown_setting_in_a_file_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "s.toml").write_text("[model]\nwindoww = 'din'\n")
    found = _error(capsys, ["train", f"--config={tmp_path / 's.toml'}", f"--out={tmp_path / 'run'}"])
    assert "s.toml: there is no setting 'windoww' in section [model]; did you mean 'window'?" in found


def test_a_model_setting_out_of_range_is_one_line(
    tmp_path: Path, events: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = ["train", f"--out={tmp_path / 'run'}"]
    assert "argument --window: the value must be one of" in _error(capsys, [*base, *tiny_flags(events, "attention")])
    assert "top_k" in _error(capsys, [*base, *tiny_flags(events, top_k=9)])
    huge = [{"sub_keys": 10**7}, {"sub_keys": 10**12}, {"embedding_dim": 10**12}, {"key_dim": 10**18}]
    for change in huge:
        assert "model: it cannot be built with these sizes" in _error(capsys, [*base, *tiny_flags(events, **change)])
    assert not (tmp_path / "run" / "settings.toml").exists()


def test_kernels_that_cannot_run_on_the_device_are_one_line(
    tmp_path: Path, events: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    found = _error(capsys, ["train", f"--out={tmp_path / 'run'}", *tiny_flags(events, backend="triton")])
    assert "backend: memory: backend='triton' needs" in found
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "error",
    [MemoryError("Unable to allocate 8 GiB"), RuntimeError("x DefaultCPUAllocator: can't allocate memory: 8 GiB\nat")],
)
def test_no_memory_left_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(commands, "evaluate_run", fail)
    assert "out of memory; try a smaller --batch-size" in _error(capsys, ["evaluate", "--run=x"])


def test_broken_checkpoints_are_one_line(
    run: Path, events: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    content = (copy / "best.safetensors").read_bytes()
    evaluate = ["evaluate", f"--run={copy}"]

    (copy / "best.safetensors").write_bytes(content[: len(content) // 2])
    assert "best.safetensors: not a whole checkpoint, truncated or damaged" in _error(capsys, evaluate)
    (copy / "best.safetensors").unlink()
    assert "best.safetensors: there is no such checkpoint" in _error(capsys, evaluate)
    (copy / "best.safetensors").write_bytes(content)
    for name, value in (("embedding_dim", 6), ("metric", "cosine")):
        tiny_settings(events, epochs=1, **{name: value}).save(copy / "settings.toml")
        found = _error(capsys, evaluate)
        assert "best.safetensors: the settings differ from those that the run was started with: model." in found
        assert found.endswith(name)
    (copy / "vocabularies.json").write_text("{")
    assert "vocabularies.json" in _error(capsys, evaluate)


def test_pairs_that_cannot_be_scored_are_one_line(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs, out = tmp_path / "pairs.csv", tmp_path / "out.csv"
    command = ["predict", f"--run={run}", f"--pairs={pairs}", f"--out={out}"]
    assert "pairs.csv: no such file" in _error(capsys, command)
    pairs.write_text("user_id,item_id,price\nu1,1001,2.5\n")
    assert "no column 'hour'" in _error(capsys, command)
    pairs.write_text("user_id,item_id,hour,price,probability\nu1,1001,3,2.5,0.1\n")
    assert "pairs.csv: has a column 'probability' already" in _error(capsys, command)
    pairs.write_text("user_id,item_id,hour,price\nu1,1001,3,2.5\nu1,1001,3,1e39\n")
    assert "column 'price': 1e+39 in standard units" in _error(capsys, command)
    assert not out.exists()


def test_a_run_folder_that_cannot_be_written_is_one_line(
    tmp_path: Path, events: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    base = ["train", *tiny_flags(events)]
    message = "the run folder cannot be made: Not a directory"
    assert message in _error(capsys, [*base, f"--out={tmp_path / 'file' / 'run'}"])
    # procfs refuses new files to root as well, whom the mode of a read-only folder does not stop.
    assert "the run folder cannot be" in _error(capsys, [*base, "--out=/proc/lmn-run"])
    assert "the run folder cannot be written" in _error(capsys, [*base, "--out=/proc/self"])


def test_a_disk_that_fills_up_stops_with_one_line_and_keeps_what_is_there(
    tmp_path: Path, events: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # A limit on the size of files fails in write(), as a full disk does; the probe fits, the first checkpoint does not.
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (12_000, hard))
    try:
        capsys.readouterr()
        code = main(["train", *tiny_flags(events, epochs=1), f"--out={tmp_path / 'run'}"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    error = capsys.readouterr().err
    assert code == 2
    assert "Traceback" not in error
    assert error.splitlines()[-1].startswith(
        f"lmn: error: {tmp_path / 'run' / 'last.safetensors'}: the checkpoint cannot"
    )
    assert not (tmp_path / "run" / "last.safetensors").exists()
    assert main(["train", f"--resume={tmp_path / 'run'}"]) == 0
