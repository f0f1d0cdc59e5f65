"""The state of a training run in a checkpoint: everything that the next step depends on.

A checkpoint of the state lets a run continue. A checkpoint of the model alone, without optimisers, suffices for scoring
and is a third of the size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lmn_model.ctr import CTRModel
from lmn_model.data import FeatureSpec
from lmn_model.modules.usage import MemoryUsage
from lmn_model.training.moved_settings import without_moved_names
from lmn_model.training.optimizers import Optimizers
from lmn_model.training.runs.checkpoint import (
    CheckpointError,
    CheckpointFile,
    check_tensors,
    open_checkpoint,
    save_checkpoint,
)
from lmn_model.training.runs.progress import Progress
from lmn_model.training.setting_upgrades import upgrade_run
from lmn_model.training.settings import Settings

MODEL, OPTIMIZER, USAGE = "model.", "optimizer.", "usage."
RENAMED = (("memory.memory.", "memory.block."), ("block.asleep", "block.inactive"))  # a former name
"""Parts of tensors' names in checkpoints of version 0.1.0, and what they are now."""


@dataclass
class RunState:
    """Model, optimisers, position and running sums of a run.

    Args:
        model: on ``device``.
        optimizers: of the model.
        device: where the model runs.
        usage: counts of the memory's reads, if they are counted.
        progress: position and curve.
        sums: float64 ``[3]`` on ``device``: click loss, memory loss and rows since the last evaluation.
        recent: logits ``[B]`` and labels ``[B]`` of the steps since the last point of the curve.
    """

    model: CTRModel
    optimizers: Optimizers
    device: torch.device
    usage: MemoryUsage | None = None
    progress: Progress = field(default_factory=Progress)
    sums: Tensor = field(init=False)
    recent: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.sums = torch.zeros(3, dtype=torch.float64, device=self.device)

    def save(self, path: Path, identity: Mapping[str, Any]) -> None:
        """Write the whole state; ``identity`` identifies the run, as plain values.

        Raises:
            CheckpointError: the file cannot be written; the old one is then unchanged.
        """
        tensors = {MODEL + name: value for name, value in self.model.state_dict().items()}
        optimizer, scalars = self.optimizers.state()
        tensors.update({OPTIMIZER + name: value for name, value in optimizer.items()})
        if self.usage is not None:
            tensors.update({USAGE + name: value for name, value in self.usage.state().items()})
        tensors["sums"] = self.sums
        for index, name in enumerate(("recent.logits", "recent.labels")):
            parts = [pair[index] for pair in self.recent]
            tensors[name] = torch.cat(parts) if parts else torch.zeros(0)
        tensors["generator.cpu"] = torch.get_rng_state()
        if self.device.type == "cuda":
            tensors["generator.cuda"] = torch.cuda.get_rng_state(self.device)
        metadata = {"kind": "state", **identity, "progress": self.progress.to_dict(), "optimizer_numbers": scalars}
        save_checkpoint(path, tensors, metadata)

    def load(self, path: Path, identity: Mapping[str, Any]) -> dict[str, Any]:
        """Restore a state that :meth:`save` wrote for the same run, and return the checkpoint's metadata.

        Raises:
            CheckpointError: the file is missing, damaged, of another model, or its identity is another.
        """
        with open_checkpoint(path) as file:
            if file.metadata.get("kind") != "state":
                raise CheckpointError(f"{path}: holds no state of a training run")
            check_identity(path, file.metadata, identity)
            _fill_model(path, file, self.model)
            _fill_optimizers(file, self.optimizers, self.device)
            if self.usage is not None:
                self.usage.load_state({name: file.read(stored) for name, stored in _part(file, USAGE).items()})
            self.progress = Progress.from_dict(file.metadata["progress"])
            file.read_into("sums", self.sums)
            logits, labels = (file.read(name, self.device) for name in ("recent.logits", "recent.labels"))
            self.recent = [(logits, labels)] if len(logits) else []
            torch.set_rng_state(file.read("generator.cpu"))
            if self.device.type == "cuda" and "generator.cuda" in file.tensors:
                torch.cuda.set_rng_state(file.read("generator.cuda"), self.device)
            return file.metadata


def check_identity(path: Path, metadata: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
    """Raise CheckpointError unless ``metadata`` of the checkpoint ``path`` has all of ``identity``.

    A setting that is younger than the checkpoint had its default or its former rule; a checksum that is younger is not
    compared.
    """
    for key, value in identity.items():
        found = metadata.get(key)
        if key == "settings" and isinstance(found, dict):
            found = without_moved_names({**Settings().decisive(), **upgrade_run(found, str(path))}, value)
        elif key == "features" and isinstance(found, dict):
            found = FeatureSpec.from_dict(found).to_dict()  # a run of 0.1.0 lacks what came later
        elif key == "data" and isinstance(found, dict):
            found = {**value, **found}
        if found == value:
            continue
        names = ""
        if isinstance(found, dict):
            names = ": " + ", ".join(name for name in sorted({*found, *value}) if found.get(name) != value.get(name))
        raise CheckpointError(f"{path}: the {key} differ from those that the run was started with{names}")


def save_model(path: Path, model: CTRModel, metadata: Mapping[str, Any], optimizers: Optimizers | None = None) -> None:
    """Write the weights of ``model`` for scoring, and with ``optimizers`` the state of its value rows for more writes.

    Raises:
        CheckpointError: the file cannot be written; the old one is then unchanged.
    """
    tensors = {MODEL + name: value for name, value in model.state_dict().items()}
    scalars: dict[str, float] = {}
    if optimizers is not None:
        rows, scalars = optimizers.rows_state()
        tensors |= {OPTIMIZER + name: value for name, value in rows.items()}
    save_checkpoint(path, tensors, {"kind": "model", **metadata, "optimizer_numbers": scalars})


def load_model(path: Path, model: CTRModel, identity: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Fill ``model`` from a checkpoint of either kind and return the checkpoint's metadata.

    Raises:
        CheckpointError: the file is missing, damaged, or of another model, or its identity is another.
    """
    with open_checkpoint(path) as file:
        check_identity(path, file.metadata, identity or {})
        _fill_model(path, file, model)
        return file.metadata


def load_rows_state(path: Path, optimizers: Optimizers, device: torch.device) -> dict[str, Any]:
    """Give ``optimizers`` the state of the value rows that :func:`save_model` wrote; returns the checkpoint's metadata.

    Raises:
        CheckpointError: the file is missing, damaged, or of another model.
    """
    with open_checkpoint(path) as file:
        _fill_optimizers(file, optimizers, device)
        return file.metadata


def _fill_model(path: Path, file: CheckpointFile, model: CTRModel) -> None:
    weights, names = model.state_dict(), _part(file, MODEL)
    check_tensors(path, {name: file.tensors[stored] for name, stored in names.items()}, weights)
    for name, weight in weights.items():
        file.read_into(names[name], weight)
    if (block := model.memory_block()) is not None:
        block.refresh_inactive()


def _fill_optimizers(file: CheckpointFile, optimizers: Optimizers, device: torch.device) -> None:
    state = {name: file.read(stored, device) for name, stored in _part(file, OPTIMIZER).items()}
    by_name = {_present(name): number for name, number in file.metadata["optimizer_numbers"].items()}
    optimizers.load_state(state, by_name)


def _part(file: CheckpointFile, prefix: str) -> dict[str, str]:
    """The names in ``file`` that begin with ``prefix``, by the present name of the tensor without it."""
    return {_present(name.removeprefix(prefix)): name for name in file.tensors if name.startswith(prefix)}


def _present(name: str) -> str:
    for old, present in RENAMED:
        name = name.replace(old, present)
    return name
