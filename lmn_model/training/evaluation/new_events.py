"""Writes the events after the best checkpoint to the memory, as a memory in service would.

First those before the test split: what the training batches after the step of the best model carry, then what the
validation batches carry; labels go to signed profiles alone. A memory can keep writing while the test split is scored:
each step's events after the step. Nothing but what events write changes: the memory's values, profiles, and
embeddings of events.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from lmn_model.ctr import CTRModel, write_loss
from lmn_model.data import Batch, BatchLoader, Dataset, Split
from lmn_model.modules.product_key_memory import ProductKeyMemory
from lmn_model.training.optimizers import Optimizers
from lmn_model.training.runs.state import load_rows_state
from lmn_model.training.settings import TrainingSettings

FEEDBACK_STEP = 32
"""At most so many samples are scored before their labels are written: a user can label many items within minutes."""


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
    return EventWriter(best, model, settings, device).write(dataset, through)


def logits_while_writing(
    best: Path, model: CTRModel, settings: TrainingSettings, dataset: Dataset, device: torch.device
) -> npt.NDArray[np.float32]:
    """Logits of the test split if the model keeps writing during it: each step's events after it was scored.

    Args and raises: as :func:`write_new_events`, of a model that writes new events.
    """
    writer = EventWriter(best, model, settings, device)
    writer.write(dataset)
    return writer.score_test(dataset)


class EventWriter:
    """Writes events to a trained model, with the state of its row optimiser.

    Args:
        best: checkpoint of the best model of a run, with the state of its value rows.
        model: loaded from it; it writes new events.
        settings: of the run.
        device: where the model is.

    Raises:
        CheckpointError: the checkpoint is missing, damaged, or of another model.
    """

    def __init__(self, best: Path, model: CTRModel, settings: TrainingSettings, device: torch.device) -> None:
        self._model, self._settings, self._device = model, settings, device
        self._optimizers = Optimizers(model, settings)
        self._evaluation = load_rows_state(best, self._optimizers, device)["evaluation"]

    def write(self, dataset: Dataset, through: Literal["valid", "test"] = "valid") -> int:
        """Write the events between the step of the best model and the end of a split; returns their number."""
        steps = -(-len(dataset.train) // self._settings.batch_size)
        # Batches of the epoch that the best model has written.
        done = min(self._evaluation["step"] - (self._evaluation["epoch"] - 1) * steps, steps)
        splits = [dataset.valid.following(dataset.train)]
        if through == "test":
            splits.append(dataset.test.following(splits[0]))
        loaders = (self._loader(dataset.train, start=done), *(self._loader(split) for split in splits))
        written = 0
        with _uncounted(self._model.memory_block()):
            for loader in loaders:
                with closing(iter(loader)) as batches:
                    written += sum(self._write(batch.to(self._device)) for batch in batches)
        return written

    def score_test(self, dataset: Dataset) -> npt.NDArray[np.float32]:
        """Logits ``[R]`` of the test split, each step scored before its events are written; call :meth:`write` before.

        A step has as many samples as in training. Labels are written after each ``FEEDBACK_STEP`` samples at most.
        """
        split = dataset.test.following(dataset.valid.following(dataset.train))
        logits = np.empty(len(split), dtype=np.float32)
        training, first = self._model.training, 0
        size = self._settings.batch_size
        loader = self._loader(split, size=min(size, FEEDBACK_STEP) if self._model.settings.writes_feedback else size)
        held: list[Batch] = []
        self._model.eval()
        try:
            with _uncounted(self._model.memory_block()), closing(iter(loader)) as batches:
                for each in batches:
                    batch = each.to(self._device)
                    with torch.no_grad():
                        scores = self._model(batch).logits
                    logits[first : first + len(batch)] = scores.float().cpu().numpy()
                    first += len(batch)
                    self._model.write_feedback(batch)
                    held.append(batch)
                    if sum(map(len, held)) >= size:  # the losses of events need as many as in training
                        self._write_events(held)
                        held = []
        finally:
            self._model.train(training)
        return logits

    def _loader(self, split: Split, start: int = 0, size: int | None = None) -> BatchLoader:
        settings, feedback = self._settings, self._model.settings.writes_feedback
        return BatchLoader(
            split,
            settings.batch_size if size is None else size,
            start=start,
            new_events=True,
            writes=settings.writes,
            feedback=feedback,
        )

    def _write(self, batch: Batch) -> int:
        """Write the new events and the feedback of a batch; returns the number of events."""
        events = self._write_events([batch])
        self._model.write_feedback(batch)
        return events

    def _write_events(self, batches: Sequence[Batch]) -> int:
        """Write the new events of consecutive batches at once; returns their number."""
        batch = batches[0]
        if len(batches) > 1 and batch.new_items is not None:
            items, users = ([getattr(each, name) for each in batches] for name in ("new_items", "new_users"))
            batch = replace(batch, new_items=torch.cat(items), new_users=torch.cat(users))
        loss = None
        if batch.new_users is not None and len(batch.new_users):
            loss = write_loss(self._model.write_losses(batch), self._model.settings.memory)
        if loss is not None:
            loss.backward()
            self._optimizers.step()
        self._model.write_events(batch)
        return 0 if batch.new_users is None else len(batch.new_users)


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
