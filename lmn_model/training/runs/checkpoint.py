"""Checkpoints in one safetensors file: tensors, a JSON description and a checksum for each tensor.

safetensors holds data only, so opening a stranger's checkpoint runs none of their code. The file is replaced atomically
(see :mod:`lmn_model.files`). The CRC-32 of each tensor detects a damaged disk block or a broken copy, which the format
alone does not.

A memory may fill most of the machine, so no tensor is held twice: the writer takes tensors from where they are, and the
reader fills tensors that are there already, a piece at a time.
"""

from __future__ import annotations

import errno
import json
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from lmn_kernels import huge_zeros
from lmn_model.files import replacing

FORMAT = "lmn-checkpoint-1"
_LONGEST_HEADER = 100_000_000  # the format's own limit, in bytes
_PIECE = 16 << 20  # bytes read at once
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


class CheckpointError(ValueError):
    """A checkpoint cannot be read, written or used; the message is one line and names the file."""


class Checkpoint(NamedTuple):
    """What a checkpoint file holds: tensors on the CPU by name, and a JSON-like description."""

    tensors: dict[str, torch.Tensor]
    metadata: dict[str, Any]


def save_checkpoint(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, Any]) -> None:
    """Write ``tensors`` and ``metadata`` to ``path``, replacing it as a whole.

    Contiguous tensors on the CPU are not copied; others go through a copy on the host.

    Args:
        path: target file; its folder must exist.
        tensors: any shapes and devices, floating point, integers or bool; no two may share memory.
        metadata: JSON-serialisable, without NaN.

    Raises:
        CheckpointError: the folder is missing, not writable or full; ``path`` is then unchanged.
    """
    host = {name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}
    checksums = {name: zlib.crc32(_bytes_of(tensor)) for name, tensor in host.items()}
    description = json.dumps({"metadata": dict(metadata), "crc32": checksums}, allow_nan=False)
    header = {"format": FORMAT, "description": description, "crc32": str(zlib.crc32(description.encode()))}
    try:
        with replacing(path) as temporary:
            save_file(host, temporary, header)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: the checkpoint cannot be written: {_reason(error)}") from error


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a whole checkpoint and verify every checksum.

    Raises:
        CheckpointError: as in :func:`open_checkpoint`.
    """
    with open_checkpoint(path) as file:
        return Checkpoint({name: file.read(name) for name in file.tensors}, file.metadata)


class Stored(NamedTuple):
    """A tensor in a checkpoint file: its type and shape, and where its bytes begin."""

    dtype: torch.dtype
    shape: torch.Size
    start: int


class CheckpointFile:
    """A checkpoint that is open for reading and whose checksums have been verified; see :func:`open_checkpoint`.

    Attributes:
        metadata: what was saved as such.
        tensors: what each tensor is, by name.
    """

    def __init__(self, file: BinaryIO, metadata: dict[str, Any], tensors: dict[str, Stored]) -> None:
        self._file = file
        self.metadata = metadata
        self.tensors = tensors

    def read(self, name: str, device: torch.device | str = "cpu") -> torch.Tensor:
        """The tensor ``name``, in memory of its own."""
        stored = self.tensors[name]
        tensor = huge_zeros(*stored.shape, dtype=stored.dtype, device=device)
        self.read_into(name, tensor)
        return tensor

    @torch.no_grad()
    def read_into(self, name: str, tensor: torch.Tensor) -> None:
        """Fill ``tensor``, on any device, with the tensor ``name`` of the same shape, without a second copy of it.

        A tensor of another type, or one that is not contiguous, is filled from such a copy.
        """
        stored = self.tensors[name]
        if tensor.dtype != stored.dtype or not tensor.is_contiguous():
            tensor.copy_(self.read(name))
            return
        torch.autograd.graph.increment_version(tensor)  # invalidates what was computed from it
        target = tensor.detach().reshape(-1).view(torch.uint8)
        self._file.seek(stored.start)
        for piece in target.split(_PIECE):
            host = piece if piece.device.type == "cpu" else torch.empty_like(piece, device="cpu")
            _fill(self._file, memoryview(host.numpy()))
            if host is not piece:
                piece.copy_(host)


@contextmanager
def open_checkpoint(path: Path) -> Iterator[CheckpointFile]:
    """Open a checkpoint and verify every checksum, so that a tensor is filled completely or not at all.

    A part of a table, without verification, is read with ``safetensors.safe_open(path, "pt").get_slice(name)[a:b]``.

    Raises:
        CheckpointError: the file is missing, truncated, damaged (naming the tensor) or no checkpoint of this format.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: there is no such checkpoint")
    try:
        with safe_open(path, framework="pt") as checked:  # checks the header and the length
            description = _read_description(path, checked.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: not a whole checkpoint, truncated or damaged ({_reason(error)})") from error
    with path.open("rb") as file:
        tensors = _locate(file)
        for name, stored in tensors.items():
            if _checksum_in(file, stored) != description["crc32"].get(name):
                raise CheckpointError(f"{path}: damaged: the checksum of tensor {name!r} does not match its data")
        yield CheckpointFile(file, description["metadata"], tensors)


def remove_checkpoint_leftovers(folder: Path) -> None:
    """Remove what safetensors was writing in ``folder`` when its process was killed.

    It writes to a file of its own, ``.tmp`` and six characters, before the file gets its name. Only a regular file that
    begins as our checkpoints do is taken for one.
    """
    for leftover in folder.glob(".tmp??????"):
        if leftover.is_file() and not leftover.is_symlink() and _begins_as_checkpoint(leftover):
            leftover.unlink(missing_ok=True)


def check_tensors(path: Path, found: Mapping[str, torch.Tensor | Stored], expected: Mapping[str, torch.Tensor]) -> None:
    """Raise unless ``found`` has the names and the shapes of ``expected``.

    Raises:
        CheckpointError: naming ``path`` and the first tensor that is missing, unexpected or of another shape.
    """
    for name, tensor in expected.items():
        if name not in found:
            raise CheckpointError(f"{path}: tensor {name!r} is missing; the checkpoint belongs to another model")
        if found[name].shape != tensor.shape:
            raise CheckpointError(
                f"{path}: tensor {name!r} has shape {list(found[name].shape)}, "
                f"the model of these settings needs {list(tensor.shape)}"
            )
    for name in found:
        if name not in expected:
            raise CheckpointError(f"{path}: tensor {name!r} is unexpected; the checkpoint belongs to another model")


def _read_description(path: Path, header: Mapping[str, str]) -> dict[str, Any]:
    form = header.get("format")
    if form != FORMAT:
        raise CheckpointError(f"{path}: not a checkpoint of this program: format is {form!r}, expected {FORMAT!r}")
    text = header.get("description", "")
    if str(zlib.crc32(text.encode())) != header.get("crc32"):
        raise CheckpointError(f"{path}: damaged: the checksum of the description does not match")
    description: dict[str, Any] = json.loads(text)
    return description


def _begins_as_checkpoint(path: Path) -> bool:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")  # of the JSON header
        header = file.read(min(length, _LONGEST_HEADER))
    return header.startswith(b'{"__metadata__"') and f'"format":"{FORMAT}"'.encode() in header


def _bytes_of(tensor: torch.Tensor) -> memoryview:
    return memoryview(tensor.reshape(-1).view(torch.uint8).numpy())


def _locate(file: BinaryIO) -> dict[str, Stored]:
    """The tensors of a safetensors file: 8 bytes with the length of a JSON header, the header, the data."""
    length = int.from_bytes(file.read(8), "little")
    header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    return {
        name: Stored(_DTYPES[entry["dtype"]], torch.Size(entry["shape"]), 8 + length + entry["data_offsets"][0])
        for name, entry in header.items()
    }


def _checksum_in(file: BinaryIO, stored: Stored) -> int:
    size = stored.shape.numel() * stored.dtype.itemsize
    piece = memoryview(bytearray(min(size, _PIECE)))
    checksum = 0
    file.seek(stored.start)
    for start in range(0, size, _PIECE):
        part = piece[: size - start]
        _fill(file, part)
        checksum = zlib.crc32(part, checksum)
    return checksum


def _fill(file: BinaryIO, piece: memoryview) -> None:
    read = file.readinto(piece)  # type: ignore[attr-defined]
    if read != len(piece):
        raise OSError(errno.EIO, f"the file ended {len(piece) - read} bytes early", file.name)


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error).splitlines()[0]
