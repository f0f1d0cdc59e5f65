"""The report of a study: the page of the committed results, and what its figures draw."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from project_root import ROOT

from benchmarks.study.__main__ import main
from benchmarks.study.figures import Dot, draw_curves, draw_dots
from benchmarks.study.jobs import Places, differing
from benchmarks.study.plan import study_jobs
from benchmarks.study.result_files import read_result
from benchmarks.study.statistics import estimate
from benchmarks.study.study_file import load_study

STUDIES = sorted((ROOT / "benchmarks" / "study").glob("*.toml"))
VALUE, LESS = estimate([0.7, 0.71]), estimate([-0.3, -0.29])


def test_the_page_is_made_of_the_committed_results(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "docs/results/study", tmp_path / "results/study")
    page = Path(shutil.copy(ROOT / "docs/study.md", tmp_path))
    assert len(STUDIES) == 6
    for path in STUDIES:
        assert main(["run", str(path), "--report", f"--results={tmp_path}/results/study", f"--page={page}"]) == 0
    assert page.read_text() == (ROOT / "docs/study.md").read_text()


def test_committed_results_are_those_of_the_study_files_and_every_size_is_set() -> None:
    compared = 0
    for path in STUDIES:
        study = load_study(path)
        places = Places(Path("none"), ROOT / "docs" / "results" / "study")
        for job in study_jobs(study, study.variants, study.seeds, places):
            assert set(job.settings.unset()) <= {"writes"}, str(job)
            if job.result.exists():
                result = read_result(job.result)
                assert differing(result, job) == [], str(job)
                assert (result["variant"], result["seed"]) == (job.variant, job.seed)
                compared += 1
    assert compared > 400


def test_a_curve_may_begin_at_zero(tmp_path: Path) -> None:
    run = {"test": {"auc": 0.6, "log_loss": 0.6}, "train_seconds": 3.0}
    draw_curves([("DIN", place, [run, run]) for place in (0.0, 0.5)], "dropout", tmp_path / "curve.png")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that the test draws, in place of their files."""
    figures: list[Figure] = []
    monkeypatch.setattr("benchmarks.study.figures.save", lambda figure, path: figures.append(figure))
    return figures


def test_differences_to_a_reference_are_a_panel_of_their_own(tmp_path: Path, drawn: list[Figure]) -> None:
    near = estimate([0.001, 0.002])
    dots = [
        Dot("LMN", VALUE),
        Dot("DIN", VALUE, LESS),
        Dot("SIM", VALUE, near),
        Dot("unpaired", VALUE),
        Dot("no", None),
    ]
    draw_dots(dots, tmp_path / "dots.png")
    draw_dots(dots, tmp_path / "dots.png", reference="LMN")
    draw_dots([dots[0], dots[3]], tmp_path / "dots.png", reference="LMN")
    assert [len(figure.axes) for figure in drawn] == [1, 2, 1]
    aucs, differences = drawn[1].axes
    assert [text.get_text() for text in aucs.get_yticklabels()] == ["LMN", "DIN", "SIM", "unpaired"]
    assert [float(each.lines[0].get_xdata()[0]) for each in aucs.containers] == [VALUE.mean] * 4
    (inside,) = differences.containers
    assert (float(inside.lines[0].get_xdata()[0]), float(inside.lines[0].get_ydata()[0])) == (near.mean, 2)
    (text,) = differences.texts  # too far below for the scale
    assert (text.get_text(), text.xy) == ("-0.295", (differences.get_xlim()[0], 1))
    assert not drawn[1].legends


def test_rows_are_grouped_and_shared_by_series(tmp_path: Path, drawn: list[Figure]) -> None:
    dots = [
        Dot("DIN", VALUE, group="window"), Dot("SIM", VALUE, group="search"),
        Dot("DIN", VALUE, group="window", series="match features"), Dot("SIM soft", VALUE, group="search"),
    ]  # fmt: skip
    draw_dots(dots, tmp_path / "dots.png")
    (axes,) = drawn[0].axes
    assert [text.get_text() for text in axes.get_yticklabels()] == ["window", "DIN", "search", "SIM", "SIM soft"]
    places = [float(each.lines[0].get_ydata()[0]) for each in axes.containers]
    assert places == pytest.approx([0.85, 1.15, 3, 4])
    labels = [text.get_text() for text in drawn[0].legends[0].texts]
    assert labels == ["without match features", "with match features"]


def test_the_readmes_table_of_other_users_is_of_the_result_files() -> None:
    text = (ROOT / "README.md").read_text()
    rows = {
        "DIN 50": ("DIN 50", "DIN 50 with both"),
        "SIM hard 200": ("SIM hard 200", "SIM hard 200 with both"),
        "LMN + DIN 50": ("LMN + DIN 50", "LMN + DIN 50 with both"),
        "LMN without a window, without match features": (None, "LMN with both without a window"),
    }
    results = [read_result(path) for path in (ROOT / "docs/results/study/collaborative").glob("*.json")]
    for label, names in rows.items():
        columns = []
        for name in names:
            own = [each["test"]["auc"] for each in results if each["variant"] == name]
            assert name is None or len(own) == 5
            columns.append(f"{estimate(own).mean:.4f}" if own else "")
        line = next(line for line in text.splitlines() if line.startswith(f"| {label} |") and columns[1] in line)
        assert [each.strip(" *") for each in line.split("|")[2:4]] == columns
