"""The CTR model: embeddings, an interest part, a tower.

What reads the history is configured: one of the parts of :mod:`lmn_model.ctr.interest`, or ``"lmn"``, which is DIN with
the Large Memory Network beside it, or ``"lmn_only"``, the memory without a window. Everything else is the same for all,
so that they can be compared.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from lmn_kernels.exported import exported
from lmn_model.ctr.feature_embedding import FeatureEmbedding
from lmn_model.ctr.interest import WindowMatches, interest_part
from lmn_model.ctr.settings import MemorySettings, ModelSettings
from lmn_model.data import Batch, FeatureSpec
from lmn_model.modules.factored_memory import FactoredMemoryNetwork
from lmn_model.modules.large_memory_network import LargeMemoryNetwork, MemoryLosses
from lmn_model.modules.product_key_memory import ProductKeyMemory
from lmn_model.modules.resetting import ZeroLinear, reset_children

__all__ = ["CTRModel", "CTROutput", "MemoryGate", "MemoryLogit", "MemorySettings", "ModelSettings"]


@exported
class CTROutput(NamedTuple):
    """What the model says of a batch, and what its memory learns from in training.

    Attributes:
        logits: ``[B]`` float32.
        memory_loss: a scalar, not yet weighed; None without a memory and outside training.
        balance_loss: the same, None too where its weight is 0.
    """

    logits: Tensor
    memory_loss: Tensor | None = None
    balance_loss: Tensor | None = None


class MemoryGate(nn.Module):
    """Scales each feature by 0 to 2, as the memory's answer says; by 1 at first.

    Args:
        told: width of what the memory tells.
        features: width of what is gated.

    Source: the idea of the Memory Scaling Network, arXiv 2602.07526, that read-outs of a memory gate the interaction of
    features, as we read it in the paper's abstract; a re-implementation in its simplest form, a linear map and a
    sigmoid before the tower.
    """

    def __init__(self, told: int, features: int) -> None:
        super().__init__()
        self.map = ZeroLinear(told, features)

    def reset_parameters(self) -> None:
        """Scale by 1 again."""
        self.map.reset_parameters()

    def forward(self, told: Tensor, features: Tensor) -> Tensor:
        """``[B, told]`` and ``[B, features]`` to ``[B, features]``."""
        return features * (2 * torch.sigmoid(self.map(told)))


class MemoryLogit(nn.Sequential):
    """A logit from what the memory tells alone, to be added to the tower's; 0 at first.

    The tower can combine whatever it is told with everything else, and so comes to rely on it everywhere. What is added
    can only shift a logit: the memory has less to gain and less to spoil where what it tells drifts. (A gate scales the
    tower's input all the same.)

    Args:
        told: width of what the memory tells.
        hidden: width of the hidden layer.

    Source: ours; a shallow network beside the tower is how Cheng et al. 2016, Wide & Deep Learning, arXiv 1606.07792,
    keep what is counted apart from what is embedded.
    """

    def __init__(self, told: int, hidden: int = 32) -> None:
        out = ZeroLinear(hidden, 1)
        super().__init__(nn.Linear(told, hidden), nn.ReLU(), out)

    def reset_parameters(self) -> None:
        """Draw the hidden layer; the logit is 0 again."""
        for layer in (self[2], self[0]):  # in the order of their construction
            layer.reset_parameters()


class CTRModel(nn.Module):
    """Probability that a user clicks (buys) an item.

    Args:
        features: what the data hold; see :class:`lmn_model.data.FeatureSpec`.
        settings: see :class:`ModelSettings`; with a memory ``sub_keys`` must be set.

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
        self.interest = interest_part(settings.interest, item_dim)
        width = user_dim + (1 + self.interest.interests) * item_dim
        width += self.context_embedding.width + len(features.numeric)
        self.matches = WindowMatches(features.unseen) if settings.matches else None
        if self.matches is not None:  # of what a search found too
            width += self.matches.SIGNALS * len(features.item) * (2 if self.interest.searches else 1)
        self.memory: LargeMemoryNetwork | FactoredMemoryNetwork | None = None
        told = 0
        if settings.has_memory:
            self.memory = settings.memory.network(features, item_dim, user_dim)
            told = self.memory.signals
        apart = settings.memory.joins == "logit"
        self.tower = _tower(width if apart else width + told, settings.hidden, settings.dropout)
        self.gate = MemoryGate(told, width) if told and settings.memory.gate else None
        self.memory_logit = MemoryLogit(told) if told and apart else None

    def reset_parameters(self) -> None:
        """Draw everything anew; under one seed the model is then, bit for bit, a new one."""
        reset_children(self)

    def forward(self, batch: Batch) -> CTROutput:
        """Score a :class:`lmn_model.data.Batch`. The memory loss is computed in training only.

        Raises:
            ValueError: the interest part searches the whole history and the batch has no ``found``.
        """
        user = self.user_embedding(batch.user)
        item = self.item_embedding(batch.item)
        history = self.item_embedding(batch.history)
        parts = [user, item, self.context_embedding(batch.context), batch.numeric]
        found, found_mask = None, None
        if self.interest.searches:
            found, found_mask = batch.found, batch.found_mask
            found = None if found is None else self.item_embedding(found)
        parts.append(self.interest(item, history, batch.history_mask, found, found_mask))
        if self.matches is not None:
            parts.append(self.matches(batch.item, batch.history, batch.history_mask))
            if batch.found is not None and batch.found_mask is not None and self.interest.searches:
                parts.append(self.matches(batch.item, batch.found, batch.found_mask))
        losses: tuple[Tensor | None, ...] = ()
        told: Tensor | None = None
        if isinstance(self.memory, FactoredMemoryNetwork):
            told = self.memory(batch.item, batch.user[:, 0])
            if self.training:
                losses = self.write_losses(batch)
        elif self.memory is not None:
            told = torch.cat(self.memory(item, user), dim=-1)
            if self.training:
                losses = self.memory.losses(history, batch.history_mask, user)
        if told is not None:
            if self.gate is not None:
                parts = [self.gate(told, torch.cat(parts, dim=-1))]
            if self.memory_logit is None:
                parts.append(told)
        logits = self.tower(torch.cat(parts, dim=-1))
        if told is not None and self.memory_logit is not None:
            logits = logits + self.memory_logit(told)
        return CTROutput(logits.squeeze(-1), *losses)

    def write_losses(self, batch: Batch) -> MemoryLosses:
        """What the new events of a batch teach a memory with a factored query.

        Raises:
            ValueError: the model has no such memory, or the batch does not tell its new events.
        """
        if not isinstance(self.memory, FactoredMemoryNetwork):
            raise ValueError("write_losses: the model has no memory with a factored query")
        if batch.new_items is None or batch.new_rows is None:
            raise ValueError("write_losses: batch must have new_items and new_rows (BatchLoader(new_events=True))")
        return self.memory.losses(batch.new_items, batch.user[batch.new_rows, 0])

    def begin_epoch(self, epoch: int) -> list[nn.Parameter]:
        """Empty the memory before an epoch; returns the parameters that were set anew, whose optimiser state is void.

        An epoch replays time from its start. A memory that still held the last epoch would answer for events that lie
        in the future of the samples it is asked about, and the tower would learn to trust it more than it may.
        """
        if self.memory is None:
            return []
        self.memory.block.reset_values()
        return [self.memory.block.values]

    def sparse_parameters(self) -> list[nn.Parameter]:
        """Parameters whose gradient is sparse rows: the values of the memory."""
        return [] if self.memory is None else self.memory.block.values_parameters()

    def memory_block(self) -> ProductKeyMemory | None:
        """The memory block, if the model has one."""
        return None if self.memory is None else self.memory.block

    def parameter_counts(self) -> dict[str, int]:
        """Number of parameters of each part, and in all."""
        parts = {
            "embeddings": [self.user_embedding, self.item_embedding, self.context_embedding],
            "interest": [self.interest],
            "memory": [] if self.memory is None else [self.memory],
            "tower": [self.tower, *(each for each in (self.gate, self.memory_logit) if each is not None)],
        }
        counts = {name: sum(p.numel() for part in of for p in part.parameters()) for name, of in parts.items()}
        return counts | {"total": sum(counts.values())}


def _tower(width: int, hidden: tuple[int, ...], dropout: float) -> nn.Sequential:
    layers: list[nn.Module] = []
    for wide in hidden:
        layers += [nn.Linear(width, wide), nn.ReLU(), nn.Dropout(dropout)]
        width = wide
    return nn.Sequential(*layers, nn.Linear(width, 1))
