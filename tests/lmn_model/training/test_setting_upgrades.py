"""Settings under the names of earlier releases: in files, as flags, and in the checkpoints of old runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tomli_w
from runs_factory import tiny_flags, tiny_settings, write_events

from lmn_model.cli.main import main
from lmn_model.training.evaluation.evaluate import evaluate_run
from lmn_model.training.runs.checkpoint import open_checkpoint, save_checkpoint
from lmn_model.training.runs.folder import RunFolder
from lmn_model.training.setting_upgrades import upgrade, upgrade_names, upgrade_paths
from lmn_model.training.settings import Settings, SettingsError
from lmn_model.training.train_run import train

CASES = [
    ({"interest": "pooling"}, {"window": "pooling", "memory": "none"}),
    ({"interest": "din", "query": "joint"}, {"window": "din", "memory": "none"}),
    ({"interest": "sim_soft"}, {"window": "sim_soft", "memory": "none"}),
    ({"interest": "mimn"}, {"window": "mimn", "memory": "none"}),
    ({"interest": "lmn"}, {"window": "din", "memory": "factored"}),
    ({"interest": "lmn", "query": "joint"}, {"window": "din", "memory": "joint"}),
    ({"interest": "lmn_only", "query": "factored"}, {"window": "none", "memory": "factored"}),
    ({"query": "joint"}, {"memory": "joint"}),
    ({"window": 7}, {"window_size": 7}),
]
EARLIER = {"interest": ("model", "interest"), "query": ("model", "memory", "query"), "window": ("data", "window")}


def nested(values: dict[str, Any]) -> dict[str, Any]:
    table: dict[str, Any] = {"data": {}, "model": {"memory": {}}}
    for name, value in values.items():
        *sections, key = EARLIER[name]
        section = table
        for each in sections:
            section = section[each]
        section[key] = value
    return table


@pytest.mark.parametrize(("earlier", "today"), CASES)
def test_files_flags_and_checkpoints_of_earlier_releases(
    earlier: dict[str, Any], today: dict[str, Any], tmp_path: Path
) -> None:
    expected = Settings().override(today)
    (tmp_path / "s.toml").write_text(tomli_w.dumps(nested(earlier)))
    assert Settings.load(tmp_path / "s.toml") == expected
    assert Settings().override(earlier) == expected
    recorded = {".".join(EARLIER[name]): value for name, value in earlier.items()}
    assert {**Settings().decisive(), **upgrade_paths(recorded, "c")} == expected.decisive()


def test_todays_names_stay_as_they_are() -> None:
    table = Settings().override({"window": "mimn", "memory": "joint", "window_size": 3}).to_dict()
    assert upgrade(table, "s") == table
    values = {"window": "none", "memory": "joint", "window_size": 3, "epochs": 2}
    assert upgrade_names(values, "factored", "s") == values


def test_an_earlier_interest_keeps_the_kind_of_memory() -> None:
    joint = Settings().override({"memory": "joint"})
    assert joint.override({"interest": "lmn_only"}) == joint.override({"window": "none"})
    without = joint.override({"interest": "din"})
    assert without.model.memory.kind == "none"
    assert without.override({"interest": "lmn"}).model.memory.kind == "factored"


def test_the_table_that_is_upgraded_stays_as_it_is() -> None:
    table = nested({"interest": "lmn", "query": "joint", "window": 3})
    upgrade(table, "s")
    assert table == nested({"interest": "lmn", "query": "joint", "window": 3})


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"model": {"interest": "dinn"}}, r"s: interest must be one of pooling, din, .*, got 'dinn'"),
        ({"model": {"interest": ["din"]}}, r"s: interest must be one of pooling, din, .*, got \['din'\]"),
        ({"model": {"memory": {"query": "both"}}}, "s: query must be one of joint, factored, got 'both'"),
        (
            {"model": {"interest": "lmn", "window": "din"}},
            "s: interest was replaced by window and memory; leave it out, window is set too",
        ),
        (
            {"model": {"memory": {"query": "joint", "kind": "joint"}}},
            "s: query was replaced by memory; leave it out, memory is set too",
        ),
        ({"data": {"window": 3, "window_size": 3}}, "s: window was replaced by window_size; leave it out"),
        ({"data": {"window": "din"}}, r"there is no setting 'window' in section \[data\]; did you mean 'window_size'"),
        ({"data": 3, "model": {"interest": "lmn"}}, "s: data must be a section, got 3"),
        ({"model": {"interest": "lmn", "memory": 3}}, "s: model.memory must be a section, got 3"),
    ],
)
def test_mistakes_in_earlier_settings(table: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        Settings.from_dict(table, "s")


def test_a_query_without_a_memory_is_refused() -> None:
    with pytest.raises(SettingsError, match="query = 'joint' has no effect for memory = 'none'"):
        Settings().override({"memory": "none"}).override({"query": "joint"})


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--window=50"], "argument --window: the value must be one of 'none', 'pooling', "),
        (["--window=50"], "got '50'; did you mean --window-size 50?"),
        (["--interest=lmn", "--memory=joint"], "interest was replaced by window and memory; leave it out, memory is"),
        (["--query=joint", "--memory=joint"], "query was replaced by memory; leave it out, memory is set too"),
        (["--interest=attention"], "command line: interest must be one of pooling, "),
        (["--window-size=0"], "window_size must be at least 1, got 0"),
    ],
)
def test_mistakes_in_flags_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], message: str
) -> None:
    assert main(["train", f"--path={tmp_path / 'events.parquet'}", *flags]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error


def test_earlier_flags_train_the_same_run_and_are_not_documented(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    events = write_events(tmp_path / "events.parquet", 300)
    flags = [each for each in tiny_flags(events, epochs=1) if not each.startswith(("--window=", "--memory="))]
    assert main(["train", f"--out={tmp_path / 'run'}", "--interest=lmn", "--query=joint", *flags]) == 0
    assert RunFolder(tmp_path / "run").load_settings() == tiny_settings(events, epochs=1)
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(["train", "--help-all"])
    shown = capsys.readouterr().out
    assert "--interest" not in shown
    assert "--query" not in shown


@pytest.mark.parametrize(("model", "interest"), [("lmn", "lmn"), ("din", "din")])
def test_a_run_of_an_earlier_release_is_evaluated_and_resumed(tmp_path: Path, model: str, interest: str) -> None:
    settings = tiny_settings(write_events(tmp_path / "events.parquet", 300), model, epochs=1)
    uncut = train(settings.override({"epochs": 2}), tmp_path / "uncut")["results"]
    trained = train(settings, tmp_path / "run")["results"]
    folder = RunFolder(tmp_path / "run")

    def to_earlier(flat: dict[str, Any]) -> dict[str, Any]:
        return {
            **{name: value for name, value in flat.items() if name not in ("model.window", "model.memory.kind")},
            "model.interest": interest,
            "model.memory.query": "joint",
            "data.window": flat["data.window_size"],
        }

    for path in (folder.best, folder.last):
        with open_checkpoint(path) as file:
            tensors = {name: file.read(name) for name in file.tensors}
            metadata = dict(file.metadata)
        metadata["settings"] = to_earlier(metadata["settings"])
        del metadata["settings"]["data.window_size"]
        save_checkpoint(path, tensors, metadata)
    table = settings.override({"epochs": 2}).to_dict()
    table["data"]["window"] = table["data"].pop("window_size")
    del table["model"]["window"]
    table["model"]["interest"] = interest
    table["model"]["memory"].pop("kind")
    table["model"]["memory"]["query"] = "joint"
    folder.settings.write_text(tomli_w.dumps(table))

    found = evaluate_run(folder.root)
    assert {name: found[name] for name in trained["test"]} == trained["test"]
    assert train(folder.load_settings(), folder.root, resume=True)["results"]["test"] == uncut["test"]
