"""The training loss: the click loss and the weighted losses of the memory."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from ctr_factory import FEATURES, make_full_batch, settings_of
from torch.nn import functional as F

from lmn_model.ctr import CTRModel, CTROutput, MemorySettings, training_losses, write_loss


def test_the_total_is_the_weighted_sum() -> None:
    logits, labels = torch.randn(7), torch.randint(0, 2, (7,)).float()
    output = CTROutput(logits, memory_loss=torch.tensor(3.0), balance_loss=torch.tensor(5.0))
    losses = training_losses(output, labels, MemorySettings(kind="joint", loss_weight=0.5, balance_weight=0.25))
    click = -F.logsigmoid(torch.where(labels == 1, logits, -logits)).mean()
    torch.testing.assert_close(losses.click, click)
    torch.testing.assert_close(losses.total, click + 0.5 * 3 + 0.25 * 5)
    assert losses.memory == 3


def test_without_a_memory_the_total_is_the_click_loss() -> None:
    losses = training_losses(CTROutput(torch.zeros(2)), torch.ones(2), MemorySettings(kind="none"))
    assert losses.total == losses.click
    assert losses.memory == 0


@pytest.mark.parametrize("loss_weight", [1.0, 0.25])
def test_writing_a_factored_memory_has_its_part_of_the_training_loss(loss_weight: float) -> None:
    settings = settings_of("din", "factored")
    model = CTRModel(FEATURES, replace(settings, memory=replace(settings.memory, loss_weight=loss_weight)))
    torch.nn.init.normal_(model.memory.block.values)
    batch = make_full_batch(16)
    losses = training_losses(model(batch), batch.label, model.settings.memory)
    written = write_loss(model.write_losses(batch), model.settings.memory)
    torch.testing.assert_close(losses.total - losses.click, written)
    torch.testing.assert_close(written, loss_weight * losses.memory)
