"""Machine instructions with the source lines they come from, parsed from a disassembly.

NVIDIA: ``nvdisasm -gp`` names for each instruction its line of PTX, and a ``.loc`` of the PTX, with its comment, names
the source line and every call through which it was inlined. AMD: the same ``.loc`` lines stand in the assembly.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

_PTX_LINE = re.compile(r'//## File "\.nv_debug_ptx_txt", line (\d+)')
_SASS = re.compile(r"/\*([0-9a-f]{4,})\*/\s+(?:@(!?U?P\w+)\s+)?([A-Z][\w.]*)\s*(.*?)\s*;")
_SASS_LABEL = re.compile(r"^(\.?[$\w]+(?:\.[$\w]+)*):")
_TARGET = re.compile(r"`\((.+?)\)")
_FILE = re.compile(r'\.file\s+\d+\s+(?:"([^"]*)"\s+)?"([^"]+)"')
_LOC = re.compile(r"\.loc\s+\d+\s+\d+\s+\d+.*?(?://|;)\s*(\S.*)$")
_FRAME = re.compile(r"([^\s\[\]@]+):(\d+):\d+")
_AMD = re.compile(r"^\s+([a-z][a-z0-9_]*)(?:\s+([^;]*?))?\s*(?:;.*)?$")
_AMD_LABEL = re.compile(r"^([.$\w]+):")


class Frame(NamedTuple):
    """A source line: file and line number."""

    file: str
    line: int


class Instruction(NamedTuple):
    """One machine instruction.

    Attributes:
        opcode: with its modifiers, ``IADD3.X``.
        operands: as printed.
        guard: the predicate under which it runs, ``!P0``; empty where it always does.
        target: index of the instruction a branch or call goes to.
        frames: source lines, from the kernel's own to the innermost inlined function's.
        origin: the PTX line it comes from, 0 where unknown.
        into_function: whether the target is another function's entry.
    """

    opcode: str
    operands: tuple[str, ...]
    guard: str
    target: int | None
    frames: tuple[Frame, ...]
    origin: int = 0
    into_function: bool = False


def parse_sass(sass: str, ptx: str, kernel: str) -> list[Instruction]:
    """The instructions of ``kernel``, and of the functions in its section, in ``nvdisasm -gp -c`` output."""
    frames_of_line = _frames_of_ptx_lines(ptx)
    section = sass.split(f"\n.text.{kernel}:", 1)[1].split("\n//-----", 1)[0]
    labels: dict[str, int] = {kernel: 0, f".text.{kernel}": 0}
    found: list[tuple[str, tuple[str, ...], str, str, int]] = []
    origin = 0
    for line in section.splitlines():
        if match := _PTX_LINE.search(line):
            origin = int(match[1])
        elif match := _SASS_LABEL.match(line):
            labels[match[1]] = len(found)
        elif match := _SASS.search(line):
            target = _TARGET.search(match[4])
            operands = tuple(part.strip() for part in match[4].split(",")) if match[4] else ()
            found.append((match[3], operands, match[2] or "", target[1] if target else "", origin))
    return [
        Instruction(
            opcode, operands, guard, labels.get(label), frames_of_line.get(line, ()), line, not label.startswith(".L")
        )
        for opcode, operands, guard, label, line in found
    ]


def parse_amd(assembly: str) -> list[Instruction]:
    """The instructions of the one kernel in AMD assembly."""
    body = assembly.split(".Lfunc_begin0:", 1)[1].split("\n\t.section", 1)[0]
    files = _files(assembly)
    labels: dict[str, int] = {}
    found: list[tuple[str, tuple[str, ...], tuple[Frame, ...]]] = []
    frames: tuple[Frame, ...] = ()
    for line in body.splitlines():
        if match := _LOC.search(line):
            frames = _parse_frames(match[1], files)
        elif match := _AMD_LABEL.match(line):
            labels[match[1]] = len(found)
        elif match := _AMD.match(line):
            operands = tuple(part.strip() for part in match[2].split(",")) if match[2] else ()
            found.append((match[1], operands, frames))
    return [
        Instruction(opcode, operands, "", labels.get(operands[-1]) if operands else None, frames)
        for opcode, operands, frames in found
    ]


def _frames_of_ptx_lines(ptx: str) -> dict[int, tuple[Frame, ...]]:
    return dict(_walk_ptx(ptx))


def _walk_ptx(ptx: str) -> Iterator[tuple[int, tuple[Frame, ...]]]:
    files, frames = _files(ptx), ()
    for number, line in enumerate(ptx.splitlines(), 1):
        if match := _LOC.search(line):
            frames = _parse_frames(match[1], files)
        yield number, frames


def _files(text: str) -> dict[str, str]:
    """Full path of each base name in the ``.file`` lines; the first where two share one: the kernel's own."""
    paths: dict[str, str] = {}
    for folder, path in _FILE.findall(text):
        full = f"{folder}/{path}" if folder and not path.startswith("/") else path
        paths.setdefault(path.rsplit("/", 1)[-1], full)
    return paths


def _parse_frames(comment: str, files: dict[str, str]) -> tuple[Frame, ...]:
    return tuple(Frame(files.get(name, name), int(line)) for name, line in reversed(_FRAME.findall(comment)))
