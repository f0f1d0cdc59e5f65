"""Writes the events between the best checkpoint and the test split to the memory, as a memory in service would.

Only events before the first sample of the test split are written: those that the training batches after the step of
the best model carry, then those of the validation batches, without labels. Nothing but the memory's values changes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Literal

import torch

from lmn_model.ctr import CTRModel, write_loss
from lmn_model.data import BatchLoader, Dataset, Split
from lmn_model.modules.product_key_memory import ProductKeyMemory
from lmn_model.training.optimizers import Optimizers
from lmn_model.training.runs.state import load_rows_state
from lmn_model.training.settings import TrainingSettings


def write_new_events(
    best: Path,
    model: CTRModel,
    settings: TrainingSettings,
    dataset: Dataset,
    device: torch.device,
    through: Literal["valid", "test"] = "valid",
) -> int:
    """Write the events between the step of the best model and the end of a split, each once, in order.

    Args:
        best: checkpoint of the best model of a run, with the state of its value rows.
        model: loaded from it; one that does not write new events stays as it is.
        settings: of the run.
        dataset: the samples.
        device: where the model is.
        through: the last split to write.

    Returns:
        Number of events that were written.

    Raises:
        CheckpointError: the checkpoint is missing, damaged, or of another model.
    """
    if not model.settings.writes_new_events:
        return 0
    optimizers = Optimizers(model, settings)
    evaluation = load_rows_state(best, optimizers, device)["evaluation"]
    steps = -(-len(dataset.train) // settings.batch_size)
    done = min(evaluation["step"] - (evaluation["epoch"] - 1) * steps, steps)  # batches of the epoch that are written
    rest = _loader(dataset.train, settings, start=done)
    splits = [dataset.valid.following(dataset.train)]
    if through == "test":
        splits.append(dataset.test.following(splits[0]))
    loaders = (rest, *(_loader(split, settings) for split in splits))
    with _uncounted(model.memory_block()):
        return sum(_write(model, optimizers, loader, device) for loader in loaders)


@contextmanager
def _uncounted(layer: ProductKeyMemory | None) -> Iterator[None]:
    """Leave the reads of a memory out of its usage: only those of the training are counted."""
    if layer is None:
        yield
        return
    usage, layer.usage = layer.usage, None
    try:
        yield
    finally:
        layer.usage = usage


def _loader(split: Split, settings: TrainingSettings, start: int = 0) -> BatchLoader:
    return BatchLoader(split, settings.batch_size, start=start, new_events=True, writes=settings.writes)


def _write(model: CTRModel, optimizers: Optimizers, loader: BatchLoader, device: torch.device) -> int:
    """Write the new events of ``loader``; returns their number."""
    written = 0
    with closing(iter(loader)) as batches:
        for batch in batches:
            if batch.new_users is None or len(batch.new_users) == 0:
                continue
            batch = batch.to(device)
            loss = write_loss(model.write_losses(batch), model.settings.memory)
            if loss is not None:
                loss.backward()
                optimizers.step()
            model.write_profiles(batch)
            written += len(batch.new_users)
    return written
