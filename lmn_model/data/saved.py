"""The file ``vocabularies.json`` of a run. It is data and not code: nothing in it is executed when it is read."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import polars as pl

from lmn_model.data.schema import DataError
from lmn_model.files import replacing

FILE_NAME = "vocabularies.json"
FORMAT = 1
_Saved = TypeVar("_Saved")


def write_saved(folder: Path | str, plain: Mapping[str, Any]) -> Path:
    """Write plain values into a folder that exists, all or nothing, and return the path of the file."""
    path = Path(folder) / FILE_NAME
    text = json.dumps({"format": FORMAT, **plain}, ensure_ascii=False)
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def read_saved(folder: Path | str, rebuild: Callable[[Mapping[str, Any]], _Saved]) -> _Saved:
    """What ``rebuild`` makes of the plain values in the file of a folder.

    Raises:
        DataError: if the file is missing, damaged or of another format.
    """
    path = Path(folder) / FILE_NAME
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
        if plain["format"] != FORMAT:
            raise DataError(f"format must be {FORMAT}, got {plain['format']!r}")
        return rebuild(plain)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError, pl.exceptions.PolarsError) as error:
        raise DataError(f"{path}: the file is damaged: {type(error).__name__}: {error}") from error
