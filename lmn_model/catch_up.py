"""What a memory writes between its training and the moment it is asked: events go on, and it is not asleep meanwhile.

Only what came before the first sample of the test part is written: the histories of the validation part's samples,
without their labels, and nothing but values of the memory changes.
"""

from __future__ import annotations

from contextlib import closing

import torch

from lmn_model.ctr_model import CTRModel
from lmn_model.data import BatchLoader, Dataset
from lmn_model.optimizers import Optimizers


def catch_up(model: CTRModel, optimizers: Optimizers, dataset: Dataset, batch_size: int, device: torch.device) -> int:
    """Write the events between the training part and the end of the validation part, each once, in their order.

    Args:
        model: as it was after training; one whose memory is not written with new events stays as it is.
        optimizers: of the model, with the state of the values as after training.
        dataset: the samples.
        batch_size: samples whose new events are written in one step.
        device: where the model is.

    Returns:
        Number of events that were written.
    """
    if not model.settings.writes_new_events:
        return 0
    written = 0
    later = dataset.valid.following(dataset.train)
    with closing(iter(BatchLoader(later, batch_size, new_events=True))) as batches:
        for batch in batches:
            loss = model.write_losses(batch.to(device)).answer
            if batch.new_rows is None or len(batch.new_rows) == 0:
                continue
            (model.settings.memory.loss_weight * loss).backward()
            optimizers.step()
            written += len(batch.new_rows)
    return written
