"""Study files: names, labels and questions, and mistakes that are one line."""

from __future__ import annotations

from pathlib import Path

import pytest
import tomli_w
from study_factory import write_study

from benchmarks.study.__main__ import main
from benchmarks.study.study_file import load_study


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return write_study(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('name = "tiny"', "name = tiny", "not a TOML file"),
        ("seeds = [", "seedz = [", "there is no key 'seedz'; did you mean 'seeds'?"),
        ('memory = "none"', 'memory = "nonee"', "memory must be one of"),
        ('name = "LMN"', 'name = "DIN"', "there are two variants 'DIN'"),
        ('reference = "DIN"', 'reference = "DIEN"', "reference: there is no variant 'DIEN'; did you mean 'DIN'?"),
        (
            'size = "size sub_keys=8"',
            'size = "LMNN"',
            "references: size: there is no variant 'LMNN'; did you mean 'LMN'?",
        ),
        ('size = "size sub_keys=8"', 'size = ["LMN"]', "references: size must be a text, got ['LMN']"),
        ('size = "size sub_keys=8"', 'sizes = "LMN"', "references: there is no question 'sizes'; did you mean 'size'?"),
        ('    "size",', '    "sizes",', "quick: there is no question 'sizes'; did you mean 'size'?"),
        ('counting = "item_all"', 'counting = "item"', "there is no heuristic 'item'"),
        ("embedding_std = [", "embedding_stds = [", "tune: there is no setting 'embedding_stds'"),
        ("trials = 3\n", "", "tune: the key 'trials' is missing"),
        ("trials = 3", "trials = 0", "tune: trials must be an integer of at least 1, got 0"),
        ("trials = 2", "trials = true", "quick: trials must be an integer of at least 1, got True"),
        ("trials = 3", "trial = 3", "tune: the key 'trials' is missing"),
        (
            'tuned_as = "DIN"',
            'tuned_as = "DIN"\ntune = { dropout = [0.1] }',
            "tune has no effect, for it is not tuned itself",
        ),
        ('name = "DIN"', 'name = "DIN"\ntune = { memory = ["none"] }', "tune: memory is set by the variant too"),
        ('tuned_as = "DIN"', 'tuned_as = "counts"', "tuned_as: there is no tuned variant 'counts'"),
        ('size = "slots"', 'size = "order"', "axes: size must be a setting with a number, got 'order'"),
        ('name = "size"', 'name = "size {sub_kees}"', "the braces must hold settings of its sweep, not 'sub_kees'"),
    ],
)
def test_mistakes_are_one_line(
    study: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, message: str
) -> None:
    text = study.read_text()
    assert old in text
    study.write_text(text.replace(old, new, 1))
    assert main(["run", str(study)]) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1
    assert error[0].startswith("lmn: error: ")
    assert message in error[0]


def test_quick_selects_the_questions_that_the_file_names(study: Path) -> None:
    full, quick = load_study(study), load_study(study, quick=True)
    assert full.default_variants() == full.variants
    assert [each.name for each in quick.default_variants()] == ["size sub_keys=8", "size sub_keys=4", "co-occurrence 4"]
    assert quick.select(["DIN"])[0].name == "DIN"  # any variant can be named
    assert [each.name for each in full.select(["size"])] == ["size sub_keys=8", "size sub_keys=4"]


def test_a_sweep_fills_braces_of_names_labels_and_heuristics(tmp_path: Path) -> None:
    table = {
        "name": "braces", "seeds": [0],
        "variant": [
            {"name": "DIN {window_size}", "label": "DIN, {window_size} events", "settings": {"memory": "none"},
             "sweep": {"window_size": [5, 10]}},
            {"name": "co-occurrence {sub_keys}", "counting": "cooccurrence_item_{sub_keys}", "series": "counts",
             "sweep": {"sub_keys": [16]}},
        ],
    }  # fmt: skip
    (tmp_path / "braces.toml").write_text(tomli_w.dumps(table))
    small, large, counts = load_study(tmp_path / "braces.toml").variants
    assert [(each.name, each.row, each.line) for each in (small, large)] == [
        ("DIN 5", "DIN, 5 events", "DIN"),
        ("DIN 10", "DIN, 10 events", "DIN"),
    ]
    assert (counts.counting, counts.row) == ("cooccurrence_item_16", "co-occurrence 16 + counts")
