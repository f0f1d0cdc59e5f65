"""What a command line is made of: a program with commands, each with its arguments and the function that runs it."""

from __future__ import annotations

import argparse
from argparse import ArgumentParser
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple


class Command(NamedTuple):
    """What a program can do.

    Attributes:
        summary: one line.
        details: the sentences after it in the command's own help.
        takes: what the command cannot do without.
        add: declares the arguments.
        example: lines of a shell.
    """

    summary: str
    details: str
    takes: str
    add: Callable[[ArgumentParser], None]
    example: str


class Program(NamedTuple):
    """A program of commands.

    Attributes:
        name: what a user types before the command.
        description: one paragraph.
        example: the end of the help, printed as it stands.
        commands: by name.
        check: checks parsed arguments before torch is loaded.
        functions: imports the functions that run the commands, by name; they return an exit code, or None for 0.
        moved: former commands and flags, and what has their place.
    """

    name: str
    description: str
    example: str
    commands: Mapping[str, Command]
    check: Callable[[argparse.Namespace], None]
    functions: Callable[[], Mapping[str, Callable[[argparse.Namespace], int | None]]]
    moved: Mapping[str, str] = MappingProxyType({})
