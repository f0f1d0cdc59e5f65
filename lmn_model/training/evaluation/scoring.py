"""Scoring a split with a model."""

from __future__ import annotations

from contextlib import closing

import numpy as np
import numpy.typing as npt
import torch

from lmn_model.ctr.model import CTRModel
from lmn_model.data import BatchLoader, Split
from lmn_model.training.evaluation.metrics import click_metrics


def predict_logits(model: CTRModel, split: Split, batch_size: int, device: torch.device) -> npt.NDArray[np.float32]:
    """Logits of every row of ``split`` in its own order, float32 ``[R]``; the model's mode is restored afterwards."""
    logits = np.empty(len(split), dtype=np.float32)
    training, first = model.training, 0
    model.eval()
    try:
        with torch.no_grad(), closing(iter(BatchLoader(split, batch_size))) as batches:
            for batch in batches:
                rows = len(batch)
                logits[first : first + rows] = model(batch.to(device)).logits.float().cpu().numpy()
                first += rows
    finally:
        model.train(training)
    return logits


def evaluate_split(model: CTRModel, split: Split, batch_size: int, device: torch.device) -> dict[str, float | None]:
    """AUC, GAUC and log loss of ``model`` on ``split``.

    Raises:
        MetricError: the split has one class only, or a logit is not finite.
    """
    return click_metrics(split.labels, predict_logits(model, split, batch_size, device), split.groups)
