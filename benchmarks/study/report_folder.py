"""The folder that a report of the study is written to."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from lmn_model.setting_types import SettingsError


def open_report_folder(out: Path | str, names: Sequence[str], force: bool) -> Path:
    """Make the folder and write in it, before minutes of work whose result could not be stored.

    Args:
        out: ``--out``, made if it is not there.
        names: of the files to come.
        force: allow that the folder holds some of them.

    Raises:
        SettingsError: the folder holds some of them and ``force`` is False, or it cannot be written.
    """
    folder = Path(out)
    taken = [name for name in names if (folder / name).exists()]
    if taken and not force:
        raise SettingsError(f"{folder} already holds {', '.join(taken)}; --force replaces them")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise SettingsError(f"--out {folder}: the folder cannot be written: {error.strerror}") from error
    return folder
