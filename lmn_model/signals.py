"""What SIGINT and SIGTERM do to the command: one line, exit code 128 plus the signal's number, within two seconds.

While modules load there is nothing to clean up, and an exception in the middle of an import may be swallowed by whoever
imports: the handler ends the process itself. Afterwards the handler raises ``KeyboardInterrupt``, so that files are
closed and temporary files removed. A call into C that runs on, or a callback that swallows the exception, would delay
that without end, so a thread ends the process after :data:`GRACE_SECONDS`. The interpreter's C handler writes the
signal to a descriptor (``signal.set_wakeup_fd``) at once, and the thread reads it. Only training defers a signal: see
:func:`stop_requests`.

This module is imported before all others and must stay light: until its handlers are there, Ctrl-C is a traceback.
"""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager, suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator
    from pathlib import Path
    from types import FrameType
    from typing import NoReturn

GRACE_SECONDS = 1.5
"""From a signal to the end of the process, if the main thread has not ended it by then."""
NOTICE_SECONDS = 1.0
"""From a deferred signal to the line that says what the process is still doing."""
STOPPING = "lmn: stopping after this step or evaluation; press Ctrl-C again to stop at once, without saving"
NUMBERS = (signal.SIGINT, signal.SIGTERM)


class Terminated(KeyboardInterrupt):
    """SIGTERM arrived; whatever handles Ctrl-C handles it too."""


class _Process:
    """State of the signals of this process; a process has one."""

    def __init__(self) -> None:
        self.owned = False  # the handlers are those of the command
        self.loading = True
        self.received: int | None = None  # the last signal
        self.deferred = 0  # signals that training takes itself
        self.over = False


_process = _Process()
temporary_files: set[Path] = set()
"""Files being written, removed if the process ends without unwinding its stack."""


def take_over() -> None:
    """Handle SIGINT and SIGTERM until :func:`release`: the process is the command's own, and modules are loading."""
    _process.owned = True
    for number in NUMBERS:
        signal.signal(number, _on_signal)


def loaded() -> None:
    """Modules are loaded: from here on a signal raises, and a thread ends the process if that does not."""
    if not _process.owned:
        return
    _process.loading = False
    import threading

    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(reader,), name="lmn-signals", daemon=True).start()


def release(code: int) -> None:
    """The command is done: a signal while the interpreter shuts down changes nothing any more.

    Args:
        code: of the process, which ends here if a signal ended the command: to free a large model takes seconds.
    """
    _process.over = True
    for number in NUMBERS:
        signal.signal(number, signal.SIG_IGN)
    if _process.received is not None and code == exit_code():
        os._exit(code)


def exit_code() -> int:
    """128 plus the number of the signal that arrived last; Ctrl-C where it came as an exception alone."""
    return 128 + (_process.received or signal.SIGINT)


def exit_line() -> str:
    """The line for stderr."""
    return "lmn: terminated" if _process.received == signal.SIGTERM else "lmn: interrupted"


@contextmanager
def stop_requests() -> Iterator[threading.Event]:
    """Yield an event that SIGINT or SIGTERM sets, so that a step can finish first; a second signal acts at once.

    Outside the main thread, where Python has no signals, the event is never set.
    """
    import threading

    requested = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield requested
        return
    before = {number: signal.getsignal(number) for number in NUMBERS}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def request(number: int, frame: FrameType | None) -> None:
        _process.received = number
        requested.set()
        restore()

    _process.deferred = 1
    for number in NUMBERS:
        signal.signal(number, request)
    try:
        yield requested
    finally:
        _process.deferred = 0
        restore()


def _on_signal(number: int, frame: FrameType | None) -> None:
    second = _process.received is not None and not _process.loading
    _process.received = number
    if _process.loading or second:
        _leave()
    raise KeyboardInterrupt if number == signal.SIGINT else Terminated


def _watch(reader: int) -> None:
    import select
    import time

    while True:
        number = os.read(reader, 1)[0]
        if number not in NUMBERS or _process.over:
            continue
        if _process.deferred:
            _process.deferred = 0
            again = select.select([reader], [], [], NOTICE_SECONDS)[0]
            if not again and not _process.over:
                _write_error(STOPPING)
            continue
        time.sleep(GRACE_SECONDS)
        if not _process.over:
            _process.received = number
            _leave()


def _leave() -> NoReturn:
    for path in list(temporary_files):
        with suppress(OSError):
            path.unlink()
    _write_error(exit_line())
    os._exit(exit_code())


def _write_error(line: str) -> None:
    """Write past ``sys.stderr``, whose lock the interrupted code may hold."""
    with suppress(OSError):
        os.write(2, f"{line}\n".encode())
