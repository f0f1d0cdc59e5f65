"""What a memory writes between its training and the moment it is asked: events go on, and it is not asleep meanwhile.

Only what came before the first sample of the test part is written: the histories of the training part's samples after
the step of the best model, then those of the validation part's, without their labels, and nothing but values of the
memory changes.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Literal

import torch

from lmn_model.ctr.model import CTRModel
from lmn_model.data import BatchLoader, Dataset
from lmn_model.training.optimizers import Optimizers
from lmn_model.training.run_state import load_rows_state
from lmn_model.training.settings import TrainingSettings


def catch_up(
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
        model: filled from it; one whose memory is not written with new events stays as it is.
        settings: of the run.
        dataset: the samples.
        device: where the model is.
        through: the last split that is written.

    Returns:
        Number of events that were written.

    Raises:
        CheckpointError: the checkpoint is missing, damaged, or of another model.
    """
    layer = model.memory_block()
    if layer is None or not model.settings.writes_new_events:
        return 0
    optimizers = Optimizers(model, settings)
    evaluation = load_rows_state(best, optimizers, device)["evaluation"]
    steps = -(-len(dataset.train) // settings.batch_size)
    done = min(evaluation["step"] - (evaluation["epoch"] - 1) * steps, steps)  # batches of the epoch that are written
    usage, layer.usage = layer.usage, None  # what is counted are reads of the training
    try:
        rest = BatchLoader(dataset.train, settings.batch_size, start=done, new_events=True)
        splits = [dataset.valid.following(dataset.train)]
        if through == "test":
            splits.append(dataset.test.following(splits[0]))
        later = (BatchLoader(split, settings.batch_size, new_events=True) for split in splits)
        return sum(_write(model, optimizers, loader, device) for loader in (rest, *later))
    finally:
        layer.usage = usage


def _write(model: CTRModel, optimizers: Optimizers, loader: BatchLoader, device: torch.device) -> int:
    """Write the new events of ``loader``; returns their number."""
    written = 0
    with closing(iter(loader)) as batches:
        for batch in batches:
            if batch.new_rows is None or len(batch.new_rows) == 0:
                continue
            loss = model.write_losses(batch.to(device)).answer
            (model.settings.memory.loss_weight * loss).backward()
            optimizers.step()
            written += len(batch.new_rows)
    return written
