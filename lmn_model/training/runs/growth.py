"""Copies a trained run to one with a larger memory: same predictions, four times the slots, ready to continue."""

from __future__ import annotations

from pathlib import Path

import torch

from lmn_model.ctr import CTRModel
from lmn_model.data import load_vocabularies
from lmn_model.modules.growth import grow
from lmn_model.modules.product_key_memory import ProductKeyMemory
from lmn_model.modules.usage import MemoryUsage
from lmn_model.training.build import build_model
from lmn_model.training.optimizers import Optimizers
from lmn_model.training.runs.folder import RunFolder
from lmn_model.training.runs.state import RunState, load_model, load_rows_state, save_model
from lmn_model.training.settings import Settings, SettingsError

RESEED_EVERY = 100
"""Steps between reseedings of a grown run whose own settings have none: the new sub-keys would stay inactive."""


def grow_run(root: Path | str, out: Path | str, *, epochs: int | None = None) -> Settings:
    """Copy the run in ``root`` to ``out`` with 2 N sub-keys for its N on each axis.

    Predictions are the same but for rounding. The new sub-keys are inactive; training, which continues with ``lmn train
    --resume OUT``, activates a few of them every ``reseed_every`` steps.

    Args:
        root: folder of a run of the memory model with a checkpoint; it is not changed.
        out: new run folder.
        epochs: passes in all, to continue a run that is finished or that its patience ended; as in the run if None.

    Returns:
        The settings of the new run.

    Raises:
        SettingsError: the run has no memory, or ``epochs`` is out of range or less than the run has made.
        RunFolderError: no run is in ``root``, or ``out`` is taken or cannot be written.
        CheckpointError: a checkpoint is missing or damaged, or cannot be written.
        DataError: the vocabularies are missing or damaged.
    """
    old, new = RunFolder(root), RunFolder(out)
    settings = old.load_settings()
    if not settings.model.has_memory:
        raise SettingsError(f"{old}: a run with memory = 'none' has no memory to grow")
    changes = {
        "sub_keys": 2 * settings.model.memory.sub_keys,
        "reseed_every": settings.training.reseed_every or RESEED_EVERY,
    }
    if epochs is not None:  # exactly so many: the patience of the old run ends
        changes |= {"epochs": epochs, "patience": None}
    grown = settings.override(changes, source="grow")
    vocabularies = load_vocabularies(old.root)
    model = build_model(vocabularies.features, settings.model)
    layer = _memory_of(model)
    identity = {"settings": settings.decisive()}

    optimizers = Optimizers(model, settings.training)
    if settings.counts_reads():
        reseeded = settings.training.reseed_every is not None
        layer.usage = MemoryUsage(layer.keys.shape[2], layer.heads, by_sub_key=reseeded)
    state = RunState(model, optimizers, torch.device("cpu"), layer.usage)
    with torch.random.fork_rng(devices=[]):  # the state holds the generator's
        kept = state.load(old.last, identity)
        if epochs is not None:
            if epochs < state.progress.epoch:
                raise SettingsError(f"epochs must be at least the {state.progress.epoch} of the run, got {epochs}")
            state.progress.stopped = False
        if layer.usage is None:  # the new run reseeds, so it counts, and by sub-key
            layer.usage = MemoryUsage(layer.keys.shape[2], layer.heads)
        elif layer.usage.sub_key_reads is None:
            layer.usage.reset_sub_key_reads()
        grow(layer, optimizers)
        state.usage = layer.usage
        new.create()
        kept["settings"] = grown.decisive()
        state.save(new.last, {name: kept[name] for name in ("features", "data", "settings")})
    del state, optimizers, model, layer  # a table is gigabytes: one at a time

    best = build_model(vocabularies.features, settings.model)
    found = load_model(old.best, best, identity)
    layer = _memory_of(best)
    rows = None
    if settings.model.writes_new_events:  # its memory writes new events, so the file has the state of its rows too
        rows = Optimizers(best, settings.training)
        load_rows_state(old.best, rows, torch.device("cpu"))
    grow(layer, rows or ())
    save_model(new.best, best, {**found, "settings": grown.decisive()}, rows)
    vocabularies.save(new.root)
    grown.save(new.settings)
    return grown


def _memory_of(model: CTRModel) -> ProductKeyMemory:
    layer = model.memory_block()
    if layer is None:
        raise SettingsError("grow: the model has no memory")
    return layer
