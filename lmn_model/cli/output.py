"""What the command writes: results to stdout, everything else to stderr.

stdout must take every result, so a full disk behind it is an error and a closed pipe ends the command. stderr may be
closed or full: a run whose reader is gone continues, and its log file has every line.

This module is imported before torch and must stay light.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import TextIO

from lmn_model.wording import reason_of

EXIT_ERROR = 2
EXIT_CLOSED_PIPE = 141
"""What a shell reports for a process that SIGPIPE ended."""


class OutputClosed(Exception):
    """Whoever read stdout is gone."""


def print_result(text: str) -> None:
    """Write ``text`` and a newline to stdout, now.

    Raises:
        OutputClosed: the reader is gone.
        OSError: naming standard output, which is full, for example.
    """
    try:
        print(text, flush=True)
    except BrokenPipeError as error:
        _discard(sys.stdout)
        raise OutputClosed from error
    except OSError as error:
        _discard(sys.stdout)
        raise OSError(error.errno, error.strerror, "standard output") from error


def complain(line: str) -> None:
    """Write a line to stderr if that is open."""
    if sys.stderr is not None:
        with suppress(OSError, ValueError):
            print(line, file=sys.stderr, flush=True)


def fail(message: str) -> int:
    """Write an error as one line to stderr and return its exit code."""
    complain(f"lmn: error: {' '.join(message.split())}")
    return EXIT_ERROR


def describe_os_error(error: OSError) -> str:
    """``file: reason``; the reason alone where the error names no file."""
    reason = reason_of(error)
    return f"{os.fsdecode(error.filename)}: {reason}" if isinstance(error.filename, str | bytes) else reason


def close_output(code: int) -> int:
    """Flush both streams before the interpreter does, which would print a traceback; return the exit code.

    Args:
        code: of the command, kept unless stdout does not take what is left.
    """
    try:
        if sys.stderr is not None:
            sys.stderr.flush()
    except OSError:
        _discard(sys.stderr)
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        _discard(sys.stdout)
        return EXIT_CLOSED_PIPE
    except OSError as error:
        _discard(sys.stdout)
        return fail(f"standard output: {error.strerror}")
    return code


def _discard(stream: TextIO) -> None:
    """Have the buffered rest of ``stream``, and what follows, go nowhere."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)
