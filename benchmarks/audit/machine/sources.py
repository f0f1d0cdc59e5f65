"""Loops and branches of kernel sources, to name those of the machine code by their text."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

from benchmarks.audit.machine.instructions import Frame


class Statement(NamedTuple):
    """A ``for``, ``while`` or ``if`` of a source file.

    Attributes:
        first: its first line.
        body: first line of its body; for an ``if`` the ``else`` does not belong to it.
        last: last line of its body.
        text: its head as Python itself would write it, ``for i in range(0, N):``, without comments.
        bounds: the arguments of ``range``, as source; empty for any other statement.
    """

    file: str
    kind: str
    first: int
    body: int
    last: int
    text: str
    bounds: tuple[str, ...]

    def heads(self, frame: Frame) -> bool:
        """Whether a frame lies on the statement's own lines."""
        return frame.file == self.file and self.first <= frame.line < self.body

    def holds(self, frame: Frame) -> bool:
        """Whether a frame lies in the body."""
        return frame.file == self.file and self.body <= frame.line <= self.last

    def around(self) -> Statement | None:
        """The innermost loop that holds this statement."""
        frame = Frame(self.file, self.first)
        loops = [other for other in statements(self.file) if other.kind != "if" and other.holds(frame)]
        return max(loops, key=lambda other: other.first, default=None)

    def trips(self, values: Mapping[str, object]) -> int | None:
        """Length of the ``range`` where ``values`` determine it, else None."""
        try:
            return len(range(*(evaluate(bound, values) for bound in self.bounds))) if self.bounds else None
        except (KeyError, TypeError, ValueError):
            return None


@cache
def statements(file: str) -> tuple[Statement, ...]:
    """The statements of a file, outer before inner; none where the file cannot be found."""
    path = Path(file)
    if not path.is_file():
        return ()
    source = path.read_text()
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.For | ast.While | ast.If):
            bounds = _bounds(node) if isinstance(node, ast.For) else ()
            kind = type(node).__name__.lower()
            last = max(child.end_lineno or 0 for child in node.body)
            body = max(node.body[0].lineno, node.lineno + 1)
            found.append(Statement(file, kind, node.lineno, body, last, _head(node), bounds))
    return tuple(sorted(found, key=lambda statement: (statement.first, -statement.last)))


def normal_head(text: str) -> str:
    """The head of a ``for``, ``while`` or ``if`` as :class:`Statement` writes it.

    Raises:
        ValueError: ``text`` is no such line.
    """
    try:
        (node,) = ast.parse(f"{text.strip()}\n    pass").body
        return _head(node)
    except (SyntaxError, TypeError) as error:
        raise ValueError(f"{text!r} must be the first line of a for, while or if") from error


@cache
def source_line(frame: Frame) -> str:
    """Text of a source line, stripped; empty where the file cannot be found."""
    path = Path(frame.file)
    lines = path.read_text().splitlines() if path.is_file() else []
    return lines[frame.line - 1].strip() if 0 < frame.line <= len(lines) else ""


def _head(node: ast.stmt) -> str:
    if isinstance(node, ast.For):
        return f"for {ast.unparse(node.target)} in {ast.unparse(node.iter)}:"
    if isinstance(node, ast.While | ast.If):
        return f"{type(node).__name__.lower()} {ast.unparse(node.test)}:"
    raise TypeError(f"{ast.unparse(node)} has no head")


def _bounds(node: ast.For) -> tuple[str, ...]:
    call = node.iter
    if isinstance(call, ast.Call) and ast.unparse(call.func) in ("range", "tl.range"):
        return tuple(ast.unparse(argument) for argument in call.args)
    return ()


def evaluate(source: str, values: Mapping[str, object]) -> int:
    """An integer expression over ``values``.

    Raises:
        KeyError: a name is not in ``values``.
        TypeError: it is more than integers, names, ``+ - * //``, ``min`` and ``max``.
    """

    def value(node: ast.expr) -> int:
        if isinstance(node, ast.Constant) and isinstance(node.value, int):
            return node.value
        if isinstance(node, ast.Name):
            found = values[node.id]
            if isinstance(found, int):
                return found
        if isinstance(node, ast.BinOp):
            operators = {ast.Add: "__add__", ast.Sub: "__sub__", ast.Mult: "__mul__", ast.FloorDiv: "__floordiv__"}
            name = operators.get(type(node.op))
            if name:
                result: int = getattr(value(node.left), name)(value(node.right))
                return result
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            return -value(node.operand)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("min", "max"):
            return (min if node.func.id == "min" else max)(map(value, node.args))
        raise TypeError(f"no integer: {ast.unparse(node)}")

    return value(ast.parse(source, mode="eval").body)
