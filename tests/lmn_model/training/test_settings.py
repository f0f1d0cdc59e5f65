"""Settings: TOML and flags follow the declaration; an unknown name or a wrong type is an error."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
import tomli_w

from lmn_model.setting_types import build, convert, declared_settings, override, parse, setting
from lmn_model.training.settings import Settings, SettingsError


@dataclass(frozen=True)
class Inner:
    ratio: float = setting(0.5, "a ratio")
    kind: Literal["a", "b"] = "a"


@dataclass(frozen=True)
class Outer:
    inner: Inner = field(default_factory=Inner)
    names: tuple[str, ...] | None = None
    sizes: tuple[int, ...] = (1, 2)
    flag: bool = False
    when: int | str | None = None

    def __post_init__(self) -> None:
        if 13 in self.sizes:
            raise ValueError("sizes must not hold 13")


def test_defaults_survive_a_round_trip(tmp_path: Path) -> None:
    Settings().save(tmp_path / "settings.toml")
    assert Settings.load(tmp_path / "settings.toml") == Settings()


def test_changed_settings_survive_a_round_trip(tmp_path: Path) -> None:
    settings = Settings().override(
        {"dataset": "events", "path": "a b.csv", "item_features": ("x", "y"), "hidden": (8, 4), "clip_norm": 1}
    )
    settings.save(tmp_path / "settings.toml")
    loaded = Settings.load(tmp_path / "settings.toml")
    assert loaded == settings
    assert loaded.training.clip_norm == 1.0
    assert loaded.model.hidden == (8, 4)


def test_names_are_unique_across_sections_and_none_is_only_ever_a_default() -> None:
    declared = list(declared_settings(Settings))
    assert [name for name, count in Counter(each.name for each in declared).items() if count > 1] == []
    # TOML has no null: a setting that may be None must be None by default, or leaving it out would change it.
    optional = [each for each in declared if type(None) in getattr(each.kind, "__args__", ())]
    assert [each.name for each in optional if each.default is not None] == []


def test_a_file_overrides_defaults_and_a_flag_overrides_the_file(tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text("[training]\nbatch_size = 64\nlearning_rate = 1\n")
    settings = Settings.load(tmp_path / "s.toml").override({"batch_size": 32})
    assert (settings.training.batch_size, settings.training.learning_rate) == (32, 1.0)
    assert settings.training.epochs == Settings().training.epochs


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"trainin": {}}, r"s\.toml: there is no section \[trainin\]; did you mean 'training'\?"),
        (
            {"training": {"bach_size": 1}},
            r"no setting 'bach_size' in section \[training\]; did you mean 'batch_size'\?",
        ),
        ({"training": {"zzz": 1}}, r"there is no setting 'zzz' in section \[training\]$"),
        ({"training": 3}, r"s\.toml: training must be a section, got 3"),
        ({"training": {"epochs": "2"}}, r"s\.toml: training\.epochs must be an integer or none, got '2'"),
        ({"training": {"epochs": True}}, r"training\.epochs must be an integer or none, got True"),
        ({"training": {"epochs": 1.0}}, r"training\.epochs must be an integer or none, got 1\.0"),
        ({"training": {"epochs": 0}}, r"s\.toml: epochs must be at least 1, got 0"),
        ({"training": {"learning_rate": float("nan")}}, r"learning_rate must be greater than 0, got nan"),
        ({"training": {"order": "random"}}, r"training\.order must be one of 'time', 'shuffle', got 'random'"),
        ({"data": {"item_features": "brand"}}, r"data\.item_features must be a list of a text or none, got 'brand'"),
        ({"data": {"test_fraction": 1.5}}, r"s\.toml: test_fraction must be between 0 and 1, got 1\.5"),
        ({"model": {"hidden": [8, 0.5]}}, r"model\.hidden must be a list of an integer, got \[8, 0\.5\]"),
    ],
)
def test_errors_name_file_key_and_type(tmp_path: Path, table: dict[str, Any], message: str) -> None:
    (tmp_path / "s.toml").write_text(tomli_w.dumps(table))
    with pytest.raises(SettingsError, match=message):
        Settings.load(tmp_path / "s.toml")


def test_files_that_are_no_toml(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"none\.toml: the settings cannot be read: No such file"):
        Settings.load(tmp_path / "none.toml")
    (tmp_path / "s.toml").write_text("epochs: 3\n")
    with pytest.raises(SettingsError, match=r"s\.toml: not a TOML file"):
        Settings.load(tmp_path / "s.toml")


def test_override_refuses_what_it_does_not_know() -> None:
    with pytest.raises(SettingsError, match="command line: there is no setting 'epoch'; did you mean 'epochs'"):
        Settings().override({"epoch": 1})
    with pytest.raises(SettingsError, match="command line: epochs must be an integer or none, got 'x'"):
        Settings().override({"epochs": "x"})


def test_declared_settings_walks_nested_sections() -> None:
    declared = {each.name: each for each in declared_settings(Outer)}
    assert declared["ratio"].section == ("inner",)
    assert declared["ratio"].help == "a ratio"
    assert declared["sizes"].default == (1, 2)
    assert "inner" not in declared


def test_a_setting_may_have_another_name_without_its_section() -> None:
    (declared,) = [each for each in declared_settings(Settings) if each.name == "memory"]
    assert (declared.section, declared.field, declared.flag) == (("model", "memory"), "kind", "--memory")
    settings = Settings().override({"memory": "joint"})
    assert settings.value("memory") == settings.model.memory.kind == "joint"
    assert settings.to_dict()["model"]["memory"]["kind"] == "joint"
    with pytest.raises(SettingsError, match="command line: memory must be one of 'none', 'joint', 'factored', got 'x'"):
        Settings().override({"memory": "x"})
    with pytest.raises(SettingsError, match="command line: there is no setting 'kind'"):
        Settings().override({"kind": "joint"})


def test_build_and_override_check_ranges_and_sections() -> None:
    built = build(Outer, {"inner": {"ratio": 2, "kind": "b"}, "sizes": [3], "flag": True}, "f")
    assert built == Outer(inner=Inner(2.0, "b"), sizes=(3,), flag=True)
    assert override(built, {"kind": "a", "when": "2024-01-01"}, "f").inner == Inner(2.0, "a")
    with pytest.raises(SettingsError, match="f: sizes must not hold 13"):
        build(Outer, {"sizes": [13]}, "f")
    with pytest.raises(
        SettingsError, match=r"f: there is no setting 'rato' in section \[inner\]; did you mean 'ratio'"
    ):
        build(Outer, {"inner": {"rato": 1}}, "f")


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("3", int, 3),
        ("3", float, 3.0),
        ("1e-3", float, 1e-3),
        ("true", bool, True),
        ("a,b, c", tuple[str, ...], ("a", "b", "c")),
        ("8,4", tuple[int, ...], (8, 4)),
        ("", tuple[str, ...], ()),
        ("none", tuple[str, ...] | None, None),
        ("none", str | None, None),
        ("7", int | str | None, 7),
        ("2024-01-01", int | str | None, "2024-01-01"),
        ("a", Literal["a", "b"], "a"),
    ],
)
def test_parse_reads_the_text_of_a_flag(text: str, kind: Any, value: Any) -> None:
    found = parse(text, kind, "--x")
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("3.5", int, "--x must be an integer, got '3.5'"),
        ("yes", bool, "--x must be true or false, got 'yes'"),
        ("8,a", tuple[int, ...], "--x must be a list of an integer, got '8,a'"),
        ("c", Literal["a", "b"], "--x must be one of 'a', 'b', got 'c'"),
        ("x", int | None, "--x must be an integer or none, got 'x'"),
    ],
)
def test_parse_names_the_flag_and_the_type(text: str, kind: Any, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        parse(text, kind, "--x")


def test_convert_bends_nothing_but_int_to_float_and_list_to_tuple() -> None:
    assert convert([1, 2], tuple[int, ...], "x") == (1, 2)
    assert type(convert(1, float, "x")) is float
    with pytest.raises(SettingsError, match="x must be a text, got 3"):
        convert(3, str, "x")
