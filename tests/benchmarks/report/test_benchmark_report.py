"""The report on result files: targets, sections, errors, formats, and the page of the committed files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.report import __main__ as report
from benchmarks.result_files import FORMAT_1_KEYS, RESULTS, ROOT, ResultFile, load
from benchmarks.targets import judge_targets


def row_of(provider: str, pass_: str, p50: float, peak: int = 100, **more: Any) -> dict[str, Any]:
    shape = {"name": "cpu_8k", "B": 8192, "H": 1, "C": 64, "N": 1024, "K": 32, "D": 128}
    time = {"p20_ms": p50, "p50_ms": p50, "p80_ms": p50, "rounds": 5, "peak_bytes": peak, "errors": {}}
    fields = {"op": "layer", "shape": shape, "dtype": "fp32", "slots": "uniform", "provider": provider, "pass": pass_}
    return {**fields, "status": "ok", **time, **more}


def test_targets_are_met_and_missed_by_the_rows() -> None:
    rows = [row_of("lmn", "forward", 10), row_of("torch", "forward", 20), row_of("lmn", "both", 10, 90)]
    rows += [row_of("torch", "both", 29, 300)]
    data = {"format": 1, "kind": "cpu", "times": rows}
    judged = {target.what: target for target in judge_targets([data], "cpu")}
    assert judged["layer forward, times faster than plain torch"].met is True
    backward = judged["layer forward + backward, times faster than plain torch"]
    assert (backward.value, backward.met) == (2.9, False)
    assert judged["peak memory of forward + backward, of plain torch's"].value == pytest.approx(0.3)
    assert judged["layer forward, time at 2^24 slots over that at 2^16"].met is None
    data["times"].append(row_of("lmn", "both", 11))
    with pytest.raises(ValueError, match="expected one measured row, got 2"):
        judge_targets([data])


def test_the_page_is_what_the_report_makes_of_the_committed_files() -> None:
    page = report.PAGE.read_text(encoding="utf-8")
    assert report.render(page, report.read_results()) == page, "run python -m benchmarks.report"
    for plot in (ROOT / "docs").glob("results/*.svg"):
        assert f"results/{plot.name}" in page


def test_a_result_file_says_where_it_is_from_and_no_more(tmp_path: Path) -> None:
    with ResultFile(tmp_path / "x.json", "cpu", "cpu") as file:
        assert not load(tmp_path / "x.json")["complete"]
        file.skip("a", "b")
    text = (tmp_path / "x.json").read_text()
    assert json.loads(text)["skipped"] == [{"what": "a", "why": "b"}]
    assert str(Path.home()) not in text
    assert str(ROOT) not in text


def test_files_of_format_1_are_read_by_the_names_of_today(tmp_path: Path) -> None:
    old = {new: key for key, new in FORMAT_1_KEYS.items()}
    rows = [{old["provider"]: "lmn", "shape": {"name": "cpu_bar", "N": 2}}]
    (tmp_path / "x.json").write_text(json.dumps({"format": 1, "kind": "cpu", old["ceilings"]: [], "times": rows}))
    data = load(tmp_path / "x.json")
    assert data["ceilings"] == []
    assert data["times"] == [{"provider": "lmn", "shape": {"name": "cpu_8k", "N": 2}}]


def test_committed_results_are_of_a_clean_tree() -> None:
    for data in report.read_results():
        assert data["environment"]["commit"], data["file"]
        assert not data["environment"]["dirty"], f"{data['file']} was measured with uncommitted changes"
    assert RESULTS.parent.name == "benchmarks"
