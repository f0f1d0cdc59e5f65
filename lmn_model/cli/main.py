"""The entry point of ``lmn``: light, so that arguments are checked and signals handled before torch is loaded.

The commands need the ``train`` extra; where it is missing, one line says so.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

from lmn_model import signals
from lmn_model.cli.output import EXIT_CLOSED_PIPE, OutputClosed, close_output, complain, describe_os_error, fail

EXTRA = ("matplotlib", "polars", "pyarrow", "safetensors", "tomli", "tomli_w", "tqdm")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command ``lmn``; see :func:`run_program`."""
    return run_program("lmn_model.cli.lmn:LMN", arguments)


def run_program(program: str, arguments: Sequence[str] | None = None) -> int:
    """Run a command of a program and return its exit code.

    Args:
        program: ``"module:name"`` of a :class:`lmn_model.cli.program.Program`, imported once signals are handled.
        arguments: those after the name of the program. None takes those of the process, whose signals are then handled
            by :mod:`lmn_model.signals`.

    Returns:
        0 or what the command returns; 2 for an error; 130 after Ctrl-C, 143 after SIGTERM; 141 if the reader of stdout
        is gone.

    Raises:
        SystemExit: after help or the version, if ``arguments`` are given.
    """
    if arguments is not None:
        return _run(program, arguments)
    signals.take_over()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        code = _run(program, sys.argv[1:])
    except SystemExit as finished:
        code = int(finished.code or 0)
    except KeyboardInterrupt:
        complain(signals.exit_line())
        code = signals.exit_code()
    code = close_output(code)
    signals.release(code)
    return code


def _run(program: str, arguments: Sequence[str]) -> int:
    try:
        from lmn_model.cli.arguments import parse_arguments
        from lmn_model.data.schema import DataError
        from lmn_model.setting_types import SettingsError

        module, _, name = program.partition(":")
        found = getattr(import_module(module), name)
        try:
            parsed = parse_arguments(arguments, found)
            found.check(parsed)
        except (DataError, SettingsError) as error:
            return fail(str(error))
        from lmn_model.cli.execute import run

        functions = found.functions()
        signals.loaded()
        return run(parsed, functions)
    except OutputClosed:
        return EXIT_CLOSED_PIPE
    except OSError as error:
        return fail(describe_os_error(error))
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in EXTRA:
            raise
        return fail(f"{error.name} is not installed; pip install 'lmn-kernels[train]'")


if __name__ == "__main__":
    sys.exit(main())
