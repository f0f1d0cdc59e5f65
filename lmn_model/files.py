"""Replacing files atomically: a reader, or a run that was killed, sees the old file or the new one, never half of one.

The new content goes to a hidden file in the same folder, is flushed to the disk and then renamed over the target, which
is atomic on one file system. The folder is flushed as well, so that the rename itself survives a power cut.
"""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lmn_model.signals import temporary_files


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; move it onto ``path`` if the block succeeds, remove it if not.

    Args:
        path: the file to write or replace; its folder must exist.

    Raises:
        OSError: the folder is missing, not writable or full. ``path`` is then as it was before.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary_files.add(temporary)
    try:
        descriptor = os.open(temporary, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o666)
        mode = os.fstat(descriptor).st_mode  # as the umask wants it; some writers put a private file in its place
        os.close(descriptor)
        yield temporary
        os.chmod(temporary, mode)
        _flush(temporary, os.O_RDONLY)
        os.replace(temporary, path)
        _flush(path.parent, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
    except Exception as error:
        if (named := os_error(error, path)) is None:
            raise
        raise named from error
    finally:
        temporary.unlink(missing_ok=True)
        temporary_files.discard(temporary)


def os_error(error: Exception, path: Path) -> OSError | None:
    """``error`` as an OSError with number, reason and file name; None if the operating system did not raise it.

    Libraries in Rust give the text alone, ``... (os error 28)``, in an OSError or an exception of their own.

    Args:
        error: of an operation on ``path`` or its temporary file.
        path: named where the error names no other file.
    """
    number = re.search(r"\(os error (\d+)\)", str(error))
    if isinstance(error, OSError) and error.errno is not None:
        foreign = isinstance(error.filename, str | Path) and Path(error.filename) not in temporary_files
        return OSError(error.errno, error.strerror, str(error.filename) if foreign else str(path))
    if number is not None:
        return OSError(int(number[1]), os.strerror(int(number[1])), str(path))
    return OSError(errno.EIO, str(error) or os.strerror(errno.EIO), str(path)) if isinstance(error, OSError) else None


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
        ValueError: ``value`` holds NaN or an infinity, which JSON has no word for.
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
