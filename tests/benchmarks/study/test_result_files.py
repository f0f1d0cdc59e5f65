"""Result files: what is refused; :mod:`test_ablations` tests which settings are compared."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.study.result_files import read_result
from benchmarks.study.variants import StudyError


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read: No such file"),
        ("{", "not a JSON file"),
        (json.dumps({"format": 1}), "format 1 of a study"),
    ],
)
def test_other_files_are_refused(text: str | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(StudyError, match=message):
        read_result(path)
