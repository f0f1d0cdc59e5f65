"""The result file of a run: small, self-describing JSON, the only thing that a study keeps and its report reads."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.study.settings import StudySettings
from benchmarks.study.study_file import StudyError
from lmn_model.training.settings import Settings, SettingsError

FORMAT = 1
KEYS = ("study", "variant", "seed", "settings", "test", "best")
ALSO_COMPARED = ("epochs", "patience", "eval_every")
"""Settings of the training that a run may change when it goes on, but that decide what its result is."""


def read_result(path: Path) -> dict[str, Any]:
    """What a result file holds.

    Raises:
        StudyError: the file is missing, no JSON, or not a result file of this format.
    """
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StudyError(f"{path}: the result cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise StudyError(f"{path}: not a JSON file: {error}") from error
    if not isinstance(result, dict) or result.get("format") != FORMAT or any(key not in result for key in KEYS):
        raise StudyError(f"{path}: not a result file of format {FORMAT} of a study")
    return result


def same_settings(result: Mapping[str, Any], settings: Settings, ignore: Sequence[str] = ()) -> list[str]:
    """Names of the settings that decide the result and differ between a result file and ``settings``.

    The path of the data, which is another on another machine, is not among them. A setting that the file does not know
    yet had its default. Of a heuristic only the data matter.
    """
    try:
        found = _compared(StudySettings.from_dict(result["settings"], "result"))
    except SettingsError as error:  # a setting that is no more
        return [str(error)]
    wanted = _compared(settings)
    if result.get("counting") is not None:
        ignore = [*ignore, *(name for name in wanted if not name.startswith("data."))]
    return sorted(name for name in {*found, *wanted} - {*ignore} if found.get(name) != wanted.get(name))


def _compared(settings: Settings) -> dict[str, Any]:
    return {
        **settings.decisive(),
        **{f"training.{name}": getattr(settings.training, name) for name in ALSO_COMPARED},
    }
