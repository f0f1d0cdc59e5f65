"""The CTR model: embeddings, a window model, a global memory and a tower.

Window model and memory are chosen independently; everything else is the same for all, so that they can be compared.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from lmn_kernels.exported import exported
from lmn_model.ctr.feature_embedding import FeatureEmbedding
from lmn_model.ctr.memory_features import MemoryGate, MemoryLogit
from lmn_model.ctr.settings import ModelSettings
from lmn_model.ctr.window import WindowMatchFeatures, window_model
from lmn_model.data import Batch, FeatureSpec
from lmn_model.modules.factored_memory import FactoredMemoryNetwork
from lmn_model.modules.large_memory_network import MemoryLosses
from lmn_model.modules.product_key_memory import ProductKeyMemory
from lmn_model.modules.resetting import reset_children


@exported
class CTROutput(NamedTuple):
    """Logits of a batch and, in training mode, the losses of the memory; see :mod:`lmn_model.ctr.objective`.

    Attributes:
        logits: ``[B]`` float32.
        memory_loss: a scalar, not weighted; None without a memory and in evaluation mode.
        balance_loss: the same; None too where its weight is 0.
    """

    logits: Tensor
    memory_loss: Tensor | None = None
    balance_loss: Tensor | None = None


class CTRModel(nn.Module):
    """Probability that a user clicks (buys) an item.

    Args:
        features: features of the data.
        settings: shape of the model; with a memory ``sub_keys`` must be set.

    Raises:
        ValueError: the model has a memory and ``sub_keys`` is None.
    """

    def __init__(self, features: FeatureSpec, settings: ModelSettings) -> None:
        super().__init__()
        if settings.has_memory and settings.memory.sub_keys is None:
            raise ValueError(
                "CTRModel: sub_keys must be set, got None; lmn_model.training.default_sizes chooses it by the data"
            )
        self.settings = settings
        embedding = (settings.embedding_dim, settings.embedding_std)
        self.user_embedding = FeatureEmbedding(features.user, *embedding)
        self.item_embedding = FeatureEmbedding(features.item, *embedding)
        self.context_embedding = FeatureEmbedding(features.context, *embedding)
        user_dim, item_dim = self.user_embedding.width, self.item_embedding.width
        self.interest = window_model(settings.window, item_dim)
        width = user_dim + (1 + self.interest.interests) * item_dim
        width += self.context_embedding.width + len(features.numeric)
        self.matches = WindowMatchFeatures(features.unseen) if settings.matches else None
        if self.matches is not None:  # also of the events that a search found
            width += self.matches.SIGNALS * len(features.item) * (2 if self.interest.searches else 1)
        self.memory = settings.memory.network(features, item_dim, user_dim)
        memory_width = 0 if self.memory is None else self.memory.signals
        to_logit = settings.memory.joins == "logit"
        self.tower = _tower(width if to_logit else width + memory_width, settings.hidden, settings.dropout)
        self.gate = MemoryGate(memory_width, width) if settings.memory.gate else None
        self.memory_logit = MemoryLogit(memory_width) if to_logit else None

    def reset_parameters(self) -> None:
        """Draw everything anew; under one seed the model is then, bit for bit, a new one."""
        reset_children(self)

    def forward(self, batch: Batch) -> CTROutput:
        """Score a :class:`lmn_model.data.Batch`. The losses of the memory are computed in training mode only.

        Raises:
            ValueError: the window model searches the whole history and the batch has no ``found``.
        """
        user = self.user_embedding(batch.user)
        item = self.item_embedding(batch.item)
        history = self.item_embedding(batch.history)
        inputs = [user, item, self.context_embedding(batch.context), batch.numeric]
        inputs += self._window_features(batch, item, history)
        memory_features = self._memory_features(batch, item, user)
        losses = self._memory_losses(batch, history, user) if self.training else ()
        if memory_features is not None and self.gate is not None:
            inputs = [self.gate(memory_features, torch.cat(inputs, dim=-1))]
        if memory_features is not None and self.memory_logit is None:
            inputs.append(memory_features)
        logits = self.tower(torch.cat(inputs, dim=-1))
        if memory_features is not None and self.memory_logit is not None:
            logits = logits + self.memory_logit(memory_features)
        return CTROutput(logits.squeeze(-1), *losses)

    def _window_features(self, batch: Batch, item: Tensor, history: Tensor) -> list[Tensor]:
        """The interest and, if they are on, the window match features."""
        found, found_mask = (batch.found, batch.found_mask) if self.interest.searches else (None, None)
        embedded = None if found is None else self.item_embedding(found)
        features = [self.interest(item, history, batch.history_mask, embedded, found_mask)]
        if self.matches is not None:
            features.append(self.matches(batch.item, batch.history, batch.history_mask))
            if found is not None and found_mask is not None:
                features.append(self.matches(batch.item, found, found_mask))
        return features

    def _memory_features(self, batch: Batch, item: Tensor, user: Tensor) -> Tensor | None:
        if self.memory is None:
            return None
        if isinstance(self.memory, FactoredMemoryNetwork):
            return self.memory(batch.item, batch.user[:, 0])  # type: ignore[no-any-return]
        return torch.cat(self.memory(item, user), dim=-1)

    def _memory_losses(self, batch: Batch, history: Tensor, user: Tensor) -> tuple[Tensor | None, ...]:
        if self.memory is None:
            return ()
        if isinstance(self.memory, FactoredMemoryNetwork):
            return self.write_losses(batch)
        return self.memory.losses(history, batch.history_mask, user)

    def write_losses(self, batch: Batch) -> MemoryLosses:
        """The losses that write the new events of a batch to a factored memory.

        Raises:
            ValueError: the model has no factored memory, or the batch has no new events.
        """
        if not isinstance(self.memory, FactoredMemoryNetwork):
            raise ValueError("write_losses: the model has no factored memory")
        if batch.new_items is None or batch.new_users is None:
            raise ValueError("write_losses: batch must have new_items and new_users (BatchLoader(new_events=True))")
        return self.memory.losses(batch.new_items, batch.new_users)

    def begin_epoch(self) -> list[nn.Parameter]:
        """Empty the memory before an epoch; returns the parameters that were reset, whose optimiser state is void.

        An epoch replays time from its start. A memory that still held the last epoch would contain the future of the
        samples that query it, and the tower would learn to trust it more than it should.
        """
        if self.memory is None:
            return []
        self.memory.block.reset_values()
        return [self.memory.block.values]

    def sparse_parameters(self) -> list[nn.Parameter]:
        """Parameters whose gradient is sparse rows: the values of the memory."""
        return [] if self.memory is None else self.memory.block.values_parameters()

    def memory_block(self) -> ProductKeyMemory | None:
        """The memory block, if the model has a memory."""
        return None if self.memory is None else self.memory.block

    def parameter_counts(self) -> dict[str, int]:
        """Number of parameters of each component, and in total."""
        components: dict[str, list[nn.Module]] = {
            "embeddings": [self.user_embedding, self.item_embedding, self.context_embedding],
            "interest": [self.interest],
            "memory": [] if self.memory is None else [self.memory],
            "tower": [self.tower, *(each for each in (self.gate, self.memory_logit) if each is not None)],
        }
        counts = {
            name: sum(p.numel() for module in modules for p in module.parameters())
            for name, modules in components.items()
        }
        return counts | {"total": sum(counts.values())}


def _tower(width: int, hidden: tuple[int, ...], dropout: float) -> nn.Sequential:
    layers: list[nn.Module] = []
    for wide in hidden:
        layers += [nn.Linear(width, wide), nn.ReLU(), nn.Dropout(dropout)]
        width = wide
    return nn.Sequential(*layers, nn.Linear(width, 1))
