"""The arguments of a program and their help. Parsing imports neither torch nor polars, so a mistake shows at once."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, NoReturn

from lmn_model.cli.output import print_result
from lmn_model.cli.program import Program
from lmn_model.setting_types import SettingsError, declared_settings
from lmn_model.training.settings import Settings
from lmn_model.wording import did_you_mean

TABLES = (".csv", ".tsv", ".parquet", ".csv.gz", ".tsv.gz")


class _Formatter(argparse.HelpFormatter):
    """Fills paragraphs and leaves text of several lines, such as an example, as it is."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=28)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if "\n" in text else super()._fill_text(text, width, indent)


class Parser(argparse.ArgumentParser):
    """A parser whose errors are raised; flags are never abbreviated."""

    def __init__(self, prog: str, usage: str, description: str, epilog: str) -> None:
        super().__init__(
            prog=prog,
            usage=usage,
            description=description,
            epilog=epilog,
            formatter_class=_Formatter,
            allow_abbrev=False,
            add_help=False,
        )

    def error(self, message: str) -> NoReturn:
        raise SettingsError(f"{message} (see {self.prog} --help)")


def parse_arguments(arguments: Sequence[str], program: Program) -> argparse.Namespace:
    """The command, as ``command``, and its arguments; settings given as flags have the prefix ``SET``.

    Raises:
        SettingsError: an argument is unknown, missing, wrong or not UTF-8.
        SystemExit: after help or the version, which are printed.
    """
    for argument in arguments:
        _refuse_other_encodings(argument)
    if arguments[:1] == ["help"]:
        arguments = [*arguments[1:2], "--help"]
    if not arguments or arguments[0].startswith("-"):
        top = _top_parser(program)
        _refuse_unknown_flags(top, arguments, before_command=True)
        top.parse_known_args(arguments)
        top.error(f"the following arguments are required: COMMAND, one of {', '.join(program.commands)}")
    name, rest = arguments[0], arguments[1:]
    if name in program.moved:
        raise SettingsError(f"{name!r} is not a command of {program.name} any more; {program.moved[name]}")
    if name not in program.commands:
        raise SettingsError(
            f"invalid choice: {name!r} is no command{did_you_mean(name, program.commands)} "
            f"(the commands are {', '.join(program.commands)}; see {program.name} --help)"
        )
    parser = command_parser(program, name)
    for flag in (each.split("=")[0] for each in rest):
        if flag in program.moved:
            parser.error(f"{flag!r} is not a setting any more; {program.moved[flag]}")
    _refuse_unknown_flags(parser, rest)
    parsed, extra = parser.parse_known_args(rest)
    if extra:
        parser.error(_about_extra(parser, rest, extra[0]))
    parsed.command = name
    return parsed


def command_parser(program: Program, name: str) -> Parser:
    """The parser of one command."""
    command = program.commands[name]
    usage = " ".join(part for part in (program.name, name, command.takes, "[OPTIONS]") if part)
    description = f"{command.summary}. {command.details}".strip()
    parser = Parser(f"{program.name} {name}", usage, description, f"example:\n{command.example}")
    command.add(parser)
    options = parser.add_argument_group("help")
    options.add_argument("-h", "--help", action=_Help, help="show this help")
    if name == "train":
        options.add_argument("--help-all", action=_Help, help="show all settings, also the advanced ones")
    return parser


class _Help(argparse.Action):
    """Print the help of the command, with all settings for ``--help-all``, and exit."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**{**given, "nargs": 0, "default": argparse.SUPPRESS, "dest": argparse.SUPPRESS})

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> NoReturn:
        if option_string != "--help-all":
            for group in parser._action_groups:
                if (group.title or "").startswith("advanced"):
                    for action in group._group_actions:
                        action.help = argparse.SUPPRESS
                    group.description = None
        print_result(parser.format_help().rstrip())
        parser.exit()


class _Version(argparse.Action):
    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> NoReturn:
        from importlib.metadata import PackageNotFoundError, version

        try:
            print_result(f"lmn {version('lmn-kernels')}")
        except PackageNotFoundError:
            print_result("lmn, not installed as a package")
        parser.exit()


def _top_parser(program: Program) -> Parser:
    width = max(map(len, program.commands)) + 2
    commands = "".join(f"\n  {name:<{width}}{command.summary[0].lower()}{command.summary[1:]}"
                       for name, command in program.commands.items())  # fmt: skip
    parser = Parser(
        program.name,
        f"{program.name} COMMAND [OPTIONS]",
        program.description,
        f"commands:{commands}\n\n{program.example}",
    )
    options = parser.add_argument_group("options")
    options.add_argument(
        "-h", "--help", action=_Help, help=f"show this help; {program.name} COMMAND --help shows a command's"
    )
    options.add_argument("--version", action=_Version, nargs=0, help="show the version")
    return parser


def _refuse_other_encodings(argument: str) -> None:
    try:
        argument.encode()
    except UnicodeEncodeError:
        shown = argument.encode("ascii", "backslashreplace").decode()
        raise SettingsError(f"argument '{shown}' must be UTF-8 text; rename the file if it names one") from None


def _flags(parser: Parser) -> list[str]:
    return [flag for action in parser._actions for flag in action.option_strings]


def _refuse_unknown_flags(parser: Parser, arguments: Sequence[str], before_command: bool = False) -> None:
    """Name an unknown flag before a missing one: the one is often the other, misspelt."""
    for argument in arguments:
        if argument == "--":
            return
        name = argument.split("=")[0]
        if name.startswith("--") and " " not in name and name not in (known := _flags(parser)):
            place = f" before a command; flags follow it: {parser.prog} COMMAND FLAGS" if before_command else ""
            parser.error(f"unknown argument {name!r}{place}{did_you_mean(name, known)}")


def _about_extra(parser: Parser, arguments: Sequence[str], extra: str) -> str:
    """What to say of an argument that belongs to no flag."""
    before = arguments[: arguments.index(extra)] if extra in arguments else []
    flag = next((each for each in reversed(before) if each.startswith("--")), "")
    lists = [each.flag for each in declared_settings(Settings) if each.takes_list]
    if flag in lists:
        given = [each.strip(",") for each in arguments[len(before) - before[::-1].index(flag) :]]
        values = given[: next((place for place, each in enumerate(given) if each.startswith("-")), None)]
        what = "widths" if flag == "--hidden" else "names"
        return f"unexpected argument {extra!r}; separate {what} with commas: {flag} {','.join(values)}"
    if extra.startswith("-") and not extra[1:2].isdigit():
        return f"unknown argument {extra!r}{did_you_mean(extra, _flags(parser))}"
    hint = f"; did you mean --path {extra}?" if "--path" in _flags(parser) and extra.lower().endswith(TABLES) else ""
    return f"unexpected argument {extra!r}{hint}"
