"""What a stranger reads: help in groups, the beginner's first, and hints for arguments that were nearly right."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from runs_factory import write_events

from benchmarks.study.__main__ import STUDY
from benchmarks.study.__main__ import main as study_main
from lmn_model.cli.lmn import LMN
from lmn_model.cli.main import main
from lmn_model.cli.program import Program
from lmn_model.setting_types import declared_settings
from lmn_model.training.runs.folder import RunFolder
from lmn_model.training.settings import Settings

SMALL = ["--epochs=1", "--hidden=8", "--batch-size=64", "--threads=1", "--device=cpu"]
SMALL += ["--window=pooling", "--memory=none"]


MAIN = {LMN.name: main, STUDY.name: study_main}


def _help(capsys: pytest.CaptureFixture[str], *arguments: str, program: Program = LMN) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit, match="0"):
        MAIN[program.name]([*arguments])
    return capsys.readouterr().out


def _error(capsys: pytest.CaptureFixture[str], *arguments: str, program: Program = LMN) -> str:
    capsys.readouterr()
    assert MAIN[program.name]([*arguments]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("lmn: error: ")
    return captured.err.strip()


def test_help_of_training_shows_a_beginners_flags_first(capsys: pytest.CaptureFixture[str]) -> None:
    text = _help(capsys, "train", "--help")
    titles = re.findall(r"^([a-z].*):$", text, flags=re.MULTILINE)
    assert titles == ["data", "columns of your table", "model", "training", "run", "help", "example"]
    for flag in ("--path FILE", "--user-features COLUMN[,COLUMN...]", "--hidden INT[,INT...]", "--learning-rate FLOAT"):
        assert flag in text
    assert "--window-size INT newest events of the user's history in the window (default: 50)" in " ".join(text.split())
    assert "--stochastic-rounding" not in text
    assert "VALUE" not in text


def test_help_all_lists_every_setting_once_with_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    text = _help(capsys, "train", "--help-all")
    flags = re.findall(r"^  (--[\w-]+)", text, flags=re.MULTILINE)
    others = ["--rows", "--out", "--resume", "--config", "--help-all"]
    assert sorted(flags) == sorted([*(each.flag for each in declared_settings(Settings)), *others])
    words = " ".join(text.split())
    assert "advanced: training: in a settings file: section [training]" in words
    assert "--order {time,shuffle}" in words
    assert "--marginals [{true,false}]" in words
    for each in declared_settings(Settings):
        if each.default is not None:
            default = {True: "true", False: "false"}.get(each.default, each.default)  # type: ignore[call-overload]
            shown = ",".join(map(str, default)) if isinstance(default, tuple) else str(default)
            help_of_flag = words.partition(f" {each.flag} ")[2].partition(" --")[0]
            assert f"(default: {shown})" in words if each.name == "dataset" else help_of_flag, each.name


COMMANDS = [pytest.param(each, name, id=f"{each.name} {name}") for each in (LMN, STUDY) for name in each.commands]


@pytest.mark.parametrize(("program", "command"), COMMANDS)
def test_every_command_has_an_example_that_parses(
    capsys: pytest.CaptureFixture[str], program: Program, command: str
) -> None:
    text = _help(capsys, "help", command, program=program)
    assert text == _help(capsys, command, "-h", program=program)
    assert text.isascii()
    assert max(map(len, text.splitlines())) <= 80
    example = text.partition("example:\n")[2].replace("\\\n", " ")
    first = example.splitlines()[0].removeprefix(f"  {program.name} ").split()
    assert first[0] == command
    # An unknown flag is named before anything else is looked at: there is none but the one added.
    assert "unknown argument '--nonsense'" in _error(capsys, *first, "--nonsense", program=program)


@pytest.mark.parametrize("program", [LMN, STUDY], ids=lambda program: program.name)
def test_the_first_help_names_the_commands(capsys: pytest.CaptureFixture[str], program: Program) -> None:
    text = _help(capsys, "--help", program=program)
    assert text == _help(capsys, "help", program=program)
    assert max(map(len, text.splitlines())) <= 80
    for name in program.commands:
        assert re.search(rf"^  {name} +[a-z]", text, flags=re.MULTILINE)
    assert re.fullmatch(r"lmn \d+\.\d+\S*\n", _help(capsys, "--version"))


@pytest.mark.parametrize("columns", ["20", "40", "200"])
def test_help_fits_narrow_and_wide_terminals(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert "samples" in _help(capsys, "train", "--help-all")


def test_help_is_plain_ascii(capsys: pytest.CaptureFixture[str]) -> None:
    assert _help(capsys, "train", "--help-all").isascii()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("train --hidden 200 80", "unexpected argument '80'; separate widths with commas: --hidden 200,80"),
        ("train --hidden 200, 80, 40 --epochs 2", "separate widths with commas: --hidden 200,80,40"),
        ("train --item-features brand color", "separate names with commas: --item-features brand,color"),
        ("train extra", "unexpected argument 'extra'"),
        ("train purchases.csv", "unexpected argument 'purchases.csv'; did you mean --path purchases.csv?"),
        ("train --batch_size 3", "unknown argument '--batch_size'; did you mean '--batch-size'?"),
        ("evaluate --rum x", "unknown argument '--rum'; did you mean '--run'?"),
        ("trian --path x.csv", "'trian' is no command; did you mean 'train'?"),
        ("--path x.csv", "unknown argument '--path' before a command"),
        ("help trian", "'trian' is no command; did you mean 'train'?"),
        ("grow --run x --out y --epochs 0", "argument --epochs: the value must be at least 1, got 0"),
        ("grow --run x --out y --epochs many", "argument --epochs: the value must be an integer, got 'many'"),
        ("evaluate", "the following arguments are required: --run (see lmn evaluate --help)"),
        ("", "the following arguments are required: COMMAND, one of train, evaluate, "),
    ],
)
def test_arguments_that_are_nearly_right(capsys: pytest.CaptureFixture[str], arguments: str, message: str) -> None:
    assert message in _error(capsys, *arguments.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("contents x --out y --threshold high", "argument --threshold: the value must be a number, got 'high'"),
        ("run x.toml --jobs -1", "argument --jobs: the value must be at least 0, got -1"),
    ],
)
def test_arguments_of_the_study(capsys: pytest.CaptureFixture[str], arguments: str, message: str) -> None:
    assert message in _error(capsys, *arguments.split(), program=STUDY)


def test_a_path_needs_no_dataset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = write_events(tmp_path / "events.csv", rows=300)
    assert main(["train", f"--path={table}", f"--out={tmp_path / 'a'}", *SMALL]) == 0
    assert RunFolder(tmp_path / "a").load_settings().data.dataset == "events"
    (tmp_path / "s.toml").write_text(f'[data]\npath = "{table}"\n')
    assert main(["train", f"--config={tmp_path / 's.toml'}", f"--out={tmp_path / 'b'}", *SMALL]) == 0
    # One that is named wins, by a flag or in the file.
    named = _error(capsys, "train", f"--path={table}", "--dataset=rows", f"--out={tmp_path / 'c'}")
    assert "no such folder" in named
    (tmp_path / "s.toml").write_text('[data]\ndataset = "kuairand"\n')
    named = _error(capsys, "train", f"--config={tmp_path / 's.toml'}", f"--path={table}", f"--out={tmp_path / 'c'}")
    assert "impressions.parquet" in named
    (tmp_path / "rows").mkdir()
    for name in ("train.parquet", "item_info.parquet"):
        (tmp_path / "rows" / name).write_text("")
    found = _error(capsys, "train", f"--path={tmp_path / 'rows'}", f"--out={tmp_path / 'd'}")
    assert "item_info.parquet" in found


def test_a_flag_that_is_true_needs_no_value(tmp_path: Path) -> None:
    table = write_events(tmp_path / "events.csv", rows=300)
    assert main(["train", f"--path={table}", f"--out={tmp_path / 'a'}", "--matches", *SMALL]) == 0
    assert RunFolder(tmp_path / "a").load_settings().model.matches


def test_former_commands_and_flags_name_what_has_their_place(capsys: pytest.CaptureFixture[str]) -> None:
    assert _error(capsys, "demo") == "lmn: error: 'demo' is not a command of lmn any more; in a checkout: make demo"
    assert "python -m benchmarks.study run FILE" in _error(capsys, "study", "x.toml")
    assert "'--target' is not a setting any more; only the study has it" in _error(capsys, "train", "--target=pair")
