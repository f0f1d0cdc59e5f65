"""The result file of a run: self-describing JSON, all that the report of a study reads."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.study.settings import StudySettings
from benchmarks.study.variants import StudyError
from lmn_model.training.settings import Settings, SettingsError

FORMAT = 1
KEYS = ("study", "variant", "seed", "settings", "test", "best")
ALSO_COMPARED = ("epochs", "patience", "eval_every")
"""Settings of the training that a run may change when it continues, but that decide its result."""


def read_result(path: Path) -> dict[str, Any]:
    """The content of a result file.

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

    The path of the data differs between machines and is not compared. A setting that is not in an older file had its
    default. For a heuristic only the settings of the data are compared.
    """
    try:
        found = _compared(StudySettings.from_dict(result["settings"], "result"))
    except SettingsError as error:  # a setting that no longer exists
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
