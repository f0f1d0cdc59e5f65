"""The CTR model: embeddings, a window model, a global memory and a tower.

Window model and memory are chosen independently; everything else is the same for all, so that they can be compared.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from lmn_kernels.exported import exported
from lmn_model.ctr.collaborative import CollaborativeFeatures
from lmn_model.ctr.feature_embedding import FeatureEmbedding
from lmn_model.ctr.memory_features import MemoryGate, MemoryLogit
from lmn_model.ctr.settings import ModelSettings
from lmn_model.ctr.window import WindowMatchFeatures, window_model
from lmn_model.data import Batch, FeatureSpec
from lmn_model.modules.factored_memory import FactoredMemoryNetwork
from lmn_model.modules.product_key_memory import ProductKeyMemory
from lmn_model.modules.resetting import reset_children


@exported
class CTROutput(NamedTuple):
    """Logits of a batch and, in training mode, the losses of the memory; see :mod:`lmn_model.ctr.objective`.

    Attributes:
        logits: ``[B]`` float32.
        memory_loss: a scalar, not weighted; None without a memory and in evaluation mode.
        balance_loss: the same; None too where its weight is 0.
        event_loss: that of the embeddings that learn from every event; None without them and in evaluation mode.
    """

    logits: Tensor
    memory_loss: Tensor | None = None
    balance_loss: Tensor | None = None
    event_loss: Tensor | None = None


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
        embedding = (settings.embedding_dim, settings.embedding_std, features.open_ids)
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
        self.collaborative: CollaborativeFeatures | None = None
        if settings.collaborative.is_on:
            self.collaborative = CollaborativeFeatures(features, settings.collaborative, settings.memory.backend)
        memory_width = sum(each.signals for each in (self.memory, self.collaborative) if each is not None)
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
        losses = self._losses(batch, history, user) if self.training else {}
        if memory_features is not None and self.gate is not None:
            inputs = [self.gate(memory_features, torch.cat(inputs, dim=-1))]
        if memory_features is not None and self.memory_logit is None:
            inputs.append(memory_features)
        logits = self.tower(torch.cat(inputs, dim=-1))
        if memory_features is not None and self.memory_logit is not None:
            logits = logits + self.memory_logit(memory_features)
        return CTROutput(logits.squeeze(-1), **losses)

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
        """Of the memory and of the collaborative features, ``[B, signals of both]``; None if there is neither."""
        features = []
        if isinstance(self.memory, FactoredMemoryNetwork):
            features.append(self.memory(batch.item, batch.user[:, 0]))
        elif self.memory is not None:
            features += self.memory(item, user)
        if self.collaborative is not None:
            features.append(self.collaborative(batch))
        return torch.cat(features, dim=-1) if features else None

    def _losses(self, batch: Batch, history: Tensor, user: Tensor) -> dict[str, Tensor | None]:
        """What training adds to the loss on the labels, as :class:`CTROutput` names it."""
        losses = self.write_losses(batch) if self.settings.writes_new_events else {}
        if self.memory is not None and not isinstance(self.memory, FactoredMemoryNetwork):
            answer, balance = self.memory.losses(history, batch.history_mask, user)
            losses |= {"memory_loss": answer, "balance_loss": balance}
        return losses

    def write_losses(self, batch: Batch) -> dict[str, Tensor | None]:
        """The losses whose gradients write the new events of a batch, as :class:`CTROutput` names them.

        Raises:
            ValueError: nothing in the model writes new events, or the batch has none.
        """
        item, user = self._new_events(batch)
        losses: dict[str, Tensor | None] = {}
        if isinstance(self.memory, FactoredMemoryNetwork):
            losses["memory_loss"] = self.memory.losses(item, user).answer
        if self.collaborative is not None:
            losses["event_loss"] = self.collaborative.event_loss(item, user)
        return losses

    def write_profiles(self, batch: Batch) -> None:
        """Write a batch to what has no gradient: its new events, and its feedback to profiles if they are signed.

        That is profiles and the memory of similar items. Call it after the batch was scored, in training with the step
        of the optimisers. Nothing without them.

        Raises:
            ValueError: the model has collaborative features and the batch no new events, or no feedback.
        """
        self.write_events(batch)
        self.write_feedback(batch)

    def write_events(self, batch: Batch) -> None:
        """The part of :meth:`write_profiles` that needs the new events of a batch."""
        if self.collaborative is None:
            return
        if self.collaborative.similar is not None:
            self.collaborative.write_similar(*self._new_events(batch))
        if not self.settings.writes_feedback:
            self.collaborative.write(*self._new_events(batch))

    def write_feedback(self, batch: Batch) -> None:
        """The part of :meth:`write_profiles` that needs the feedback of a batch."""
        if self.collaborative is None or not self.settings.writes_feedback:
            return
        if batch.feedback_items is None or batch.feedback_users is None:
            raise ValueError("CTRModel: batch must have feedback_items and feedback_users (BatchLoader(feedback=True))")
        self.collaborative.write(batch.feedback_items, batch.feedback_users, batch.feedback_labels)

    def _new_events(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Ids of the items ``[P, F]`` and users ``[P]`` of the new events of a batch."""
        if not self.settings.writes_new_events:
            raise ValueError(
                "CTRModel: nothing writes new events: it has neither factored memory nor collaborative features"
            )
        if batch.new_items is None or batch.new_users is None:
            raise ValueError("CTRModel: batch must have new_items and new_users (BatchLoader(new_events=True))")
        return batch.new_items, batch.new_users

    def begin_epoch(self) -> list[nn.Parameter]:
        """Empty all that events write, before an epoch; returns the parameters whose optimiser state is void.

        An epoch replays time from its start. A memory that still held the last epoch would contain the future of the
        samples that query it, and the tower would learn to trust it more than it should.
        """
        void = []
        if self.memory is not None:
            self.memory.block.reset_values()
            void.append(self.memory.block.values)
        if self.collaborative is not None:
            void += self.collaborative.reset_values()
        return void

    def sparse_parameters(self) -> list[nn.Parameter]:
        """Parameters whose gradient is sparse rows: the values of the memory, and embeddings that learn from events."""
        memory = [] if self.memory is None else self.memory.block.values_parameters()
        return memory + self.event_parameters()

    def event_parameters(self) -> list[nn.Parameter]:
        """Those of :meth:`sparse_parameters` that learn from events, at a learning rate of their own."""
        return [] if self.collaborative is None else self.collaborative.values_parameters()

    def memory_block(self) -> ProductKeyMemory | None:
        """The memory block, if the model has a memory."""
        return None if self.memory is None else self.memory.block

    def parameter_counts(self) -> dict[str, int]:
        """Number of parameters of each component, and in total."""
        components: dict[str, list[nn.Module]] = {
            "embeddings": [self.user_embedding, self.item_embedding, self.context_embedding],
            "interest": [self.interest],
            "memory": [] if self.memory is None else [self.memory],
            "collaborative": [] if self.collaborative is None else [self.collaborative],
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
