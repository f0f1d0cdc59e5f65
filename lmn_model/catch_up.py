"""What a memory writes between its training and the moment it is asked: events go on, and it is not asleep meanwhile.

Only what came before the first sample of the test part is written: the histories of the validation part's samples,
without their labels, and nothing but values of the memory changes.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import torch

from lmn_model.ctr_model import CTRModel
from lmn_model.data import BatchLoader, Dataset
from lmn_model.optimizers import Optimizers
from lmn_model.run_state import load_rows_state
from lmn_model.settings import TrainingSettings


def catch_up(best: Path, model: CTRModel, settings: TrainingSettings, dataset: Dataset, device: torch.device) -> int:
    """Write the events between the training part and the end of the validation part, each once, in their order.

    Args:
        best: checkpoint of the best model of a run, with the state of its value rows.
        model: filled from it; one whose memory is not written with new events stays as it is.
        settings: of the run.
        dataset: the samples.
        device: where the model is.

    Returns:
        Number of events that were written.

    Raises:
        CheckpointError: the checkpoint is missing, damaged, or of another model.
    """
    if not model.settings.writes_new_events:
        return 0
    optimizers = Optimizers(model, settings)
    load_rows_state(best, optimizers, device)
    written = 0
    later = dataset.valid.following(dataset.train)
    with closing(iter(BatchLoader(later, settings.batch_size, new_events=True))) as batches:
        for batch in batches:
            if batch.new_rows is None or len(batch.new_rows) == 0:
                continue
            loss = model.write_losses(batch.to(device)).answer
            (model.settings.memory.loss_weight * loss).backward()
            optimizers.step()
            written += len(batch.new_rows)
    return written
