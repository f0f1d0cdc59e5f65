"""Runs the code of a Markdown page in order: Python blocks in one namespace, ``lmn`` commands on the files at hand."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from project_root import ROOT

from lmn_model.cli.main import main

SMALL = (
    "--sub-keys=8", "--top-k=4", "--embedding-dim=4", "--hidden=8", "--epochs=1", "--batch-size=128", "--threads=1",
    "--device=cpu",
)  # fmt: skip
"""Added to a training that sets its settings, so that a page runs in seconds."""
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$(?:\n\n^```text\n(.*?)^```$)?", re.DOTALL | re.MULTILINE)
_TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
_EXTRAS = set(re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE))


class Block(NamedTuple):
    """A block of code, the line of the page where it begins, and the output that the page shows below it, if any."""

    language: str
    code: str
    line: int
    output: str | None


def blocks(page: Path) -> list[Block]:
    """The blocks of Python and bash of ``page``."""
    text = page.read_text(encoding="utf-8")
    found = (
        Block(match[1], match[2], text[: match.start(2)].count("\n") + 1, match[3]) for match in _BLOCK.finditer(text)
    )
    return [block for block in found if block.language in ("python", "bash")]


def run_page(page: Path) -> None:
    """Run all blocks of ``page`` in order, in the current folder.

    Raises:
        AssertionError: a block prints something other than the page shows, or a command is wrong.
    """
    names: dict[str, object] = {}
    torch.compiler.reset()
    for block in blocks(page):
        if block.language == "bash":
            for command in commands(block.code):
                run_command(command)
            continue
        printed = io.StringIO()
        code = compile("\n" * (block.line - 1) + block.code, page.name, "exec")  # errors name the line of the page
        with contextlib.redirect_stdout(printed):
            exec(code, names)
        if block.output is not None:
            assert printed.getvalue() == block.output, f"{page.name}, line {block.line}"


def commands(code: str) -> Iterator[list[str]]:
    """The commands of a block of bash, without comments."""
    for line in code.replace("\\\n", " ").splitlines():
        if words := shlex.split(line, comments=True):
            yield words


def run_command(words: list[str]) -> None:
    """Run a command of ``lmn``; of others check that the target, extra or module exists."""
    program, arguments = words[0], words[1:]
    if program == "lmn":
        small = SMALL if arguments[0] == "train" and "--resume" not in arguments else ()
        assert main([*arguments, *small]) == 0, words
    elif program == "make":
        assert arguments[0] in _TARGETS, words
    elif words[:2] == ["pip", "install"]:
        wanted = re.findall(r"\[([\w,]+)\]", " ".join(arguments))
        assert {extra for extras in wanted for extra in extras.split(",")} <= _EXTRAS, words
    elif words[:2] == ["python", "-m"]:
        assert importlib.util.find_spec(words[2]) is not None, words
    else:
        raise AssertionError(f"a command that this test cannot run or check: {shlex.join(words)}")
