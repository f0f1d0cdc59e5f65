"""Checkpoints in one safetensors file: tensors, a JSON description and a checksum for each tensor.

safetensors holds data only, so that opening a stranger's checkpoint runs none of their code. The file is replaced as a
whole (see :mod:`lmn_model.files`); the CRC-32 of each tensor tells a damaged disk block or a broken copy from a good
file, which the format alone does not.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from lmn_model.files import replacing

FORMAT = "lmn-checkpoint-1"
_LONGEST_HEADER = 100_000_000  # the format's own limit, in bytes


class CheckpointError(ValueError):
    """A checkpoint cannot be read, written or used; the message is one line and names the file."""


class Checkpoint(NamedTuple):
    """What a checkpoint file holds: tensors on the CPU by name, and a JSON-like description."""

    tensors: dict[str, torch.Tensor]
    metadata: dict[str, Any]


def save_checkpoint(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, Any]) -> None:
    """Write ``tensors`` and ``metadata`` to ``path``, replacing it as a whole.

    Args:
        path: target file; its folder must exist.
        tensors: any shapes, dtypes and devices; no two may share memory.
        metadata: JSON-serialisable, without NaN.

    Raises:
        CheckpointError: the folder is missing, not writable or full; ``path`` is then unchanged.
    """
    host = {name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}
    checksums = {name: _checksum(tensor) for name, tensor in host.items()}
    description = json.dumps({"metadata": dict(metadata), "crc32": checksums}, allow_nan=False)
    header = {"format": FORMAT, "description": description, "crc32": str(zlib.crc32(description.encode()))}
    try:
        with replacing(path) as temporary:
            save_file(host, temporary, header)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: the checkpoint cannot be written: {_reason(error)}") from error


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint and verify every checksum.

    Raises:
        CheckpointError: the file is missing, truncated, damaged (naming the tensor) or no checkpoint of this format.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: there is no such checkpoint")
    try:
        with safe_open(path, framework="pt") as file:
            description = _read_description(path, file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: not a whole checkpoint, truncated or damaged ({_reason(error)})") from error
    for name, tensor in tensors.items():
        if _checksum(tensor) != description["crc32"].get(name):
            raise CheckpointError(f"{path}: damaged: the checksum of tensor {name!r} does not match its data")
    return Checkpoint(tensors, description["metadata"])


def remove_checkpoint_leftovers(folder: Path) -> None:
    """Remove what safetensors was writing in ``folder`` when its process was killed.

    It writes to a file of its own, ``.tmp`` and six characters, before the file gets its name. Only a regular file that
    begins as our checkpoints do is taken for one.
    """
    for leftover in folder.glob(".tmp??????"):
        if leftover.is_file() and not leftover.is_symlink() and _begins_as_checkpoint(leftover):
            leftover.unlink(missing_ok=True)


def check_tensors(path: Path, found: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> None:
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


def _checksum(tensor: torch.Tensor) -> int:
    return zlib.crc32(memoryview(tensor.reshape(-1).view(torch.uint8).numpy()))


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error).splitlines()[0]
