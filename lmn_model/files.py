"""Replacing files as a whole: a reader, or a run that was killed, sees the old file or the new one, never half of one.

The new content goes to a hidden file in the same folder, is flushed to the disk and then renamed over the target, which
is atomic on one file system. The folder is flushed as well, so that the rename itself survives a power cut.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; move it onto ``path`` if the block succeeds, remove it if not.

    Args:
        path: the file to write or replace; its folder must exist.

    Raises:
        OSError: the folder is missing, not writable or full. ``path`` is then as it was before.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        descriptor = os.open(temporary, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o666)
        mode = os.fstat(descriptor).st_mode  # as the umask wants it; some writers put a private file in its place
        os.close(descriptor)
        yield temporary
        os.chmod(temporary, mode)
        _flush(temporary, os.O_RDONLY)
        os.replace(temporary, path)
        _flush(path.parent, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
    except OSError as error:
        error.filename = error.filename or str(path)  # write() of a full disk does not know the name
        raise
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(paths: Iterable[Path]) -> None:
    """Remove the temporary files that a killed process left of writing ``paths``; nothing else beside them."""
    for path in paths:
        mine = re.compile(rf"\.{re.escape(path.name)}\.\d+\.tmp")
        for leftover in path.parent.iterdir():
            if mine.fullmatch(leftover.name) and leftover.is_file() and not leftover.is_symlink():
                leftover.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, replacing ``path`` as a whole.

    Raises:
        ValueError: ``value`` holds NaN or an infinity, which JSON does not know.
        OSError: as in :func:`replacing`.
    """
    text = json.dumps(value, indent=2, allow_nan=False) + "\n"
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _flush(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
