"""What other users did, as features of the tower: profiles, and embeddings that learn from every event.

Both are written by the new events of each step, after its samples were scored; see
:class:`lmn_model.modules.ProfileMemory` and :class:`lmn_model.modules.EventEmbeddings`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lmn_model.ctr.settings import CollaborativeSettings
from lmn_model.data import Batch, FeatureSpec
from lmn_model.modules.event_embeddings import EventEmbeddings
from lmn_model.modules.profile_memory import ProfileMemory
from lmn_model.modules.resetting import reset_children


class CollaborativeFeatures(nn.Module):
    """Features of a pair from the events of all users, the sign of which no label gives.

    Args:
        features: features of the data.
        settings: which features, and their sizes; at least one of them.
        backend: of the reads.
    """

    def __init__(self, features: FeatureSpec, settings: CollaborativeSettings, backend: str = "auto") -> None:
        super().__init__()
        items, users = [feature.size for feature in features.item], features.user[0].size
        self.profiles: ProfileMemory | None = None
        self.embeddings: EventEmbeddings | None = None
        if settings.profile_levels:
            self.profiles = ProfileMemory(
                items[0],
                users,
                levels=settings.profile_levels,
                dim=settings.profile_dim,
                rows=settings.profile_rows,
                window=not settings.event_dim,  # those embeddings compare the item with the window
                signed=settings.profile_signed,
                unseen=features.unseen,
                backend=backend,
            )
        if settings.event_dim:
            self.embeddings = EventEmbeddings(
                items,
                users,
                dim=settings.event_dim,
                negatives=settings.event_negatives,
                unseen=features.unseen,
                backend=backend,
            )

    def reset_parameters(self) -> None:
        """Empty the profiles and draw the embeddings."""
        reset_children(self)

    @property
    def signals(self) -> int:
        """Numbers that a read gives the tower."""
        profiles = 0 if self.profiles is None else self.profiles.signals
        return profiles + (0 if self.embeddings is None else self.embeddings.SIGNALS)

    def forward(self, batch: Batch) -> Tensor:
        """``[B, signals]`` without a gradient."""
        item, user = batch.item, batch.user[:, 0]
        features = []
        if self.profiles is not None:
            features.append(self.profiles(item[:, 0], user, batch.history[..., 0], batch.history_mask))
        if self.embeddings is not None:
            features.append(self.embeddings(item, user, batch.history, batch.history_mask))
        return torch.cat(features, dim=1)

    def event_loss(self, item: Tensor, user: Tensor) -> Tensor | None:
        """The loss of new events, items ``[P, F]`` and users ``[P]``; None if nothing learns from it."""
        return None if self.embeddings is None else self.embeddings.loss(item, user)

    def write(self, item: Tensor, user: Tensor, label: Tensor | None = None) -> None:
        """Write new events, or labelled samples if profiles are signed, to what learns without a gradient.

        Args:
            item: ``[P, F]`` ids of the items.
            user: ``[P]`` ids of the users.
            label: ``[P]``, for signed profiles alone.
        """
        if self.profiles is not None:
            self.profiles.write(item[:, 0], user, label)

    def reset_values(self) -> list[nn.Parameter]:
        """Empty both, as before another pass over them; returns the parameters whose optimiser state is void."""
        if self.profiles is not None:
            self.profiles.reset_values()
        if self.embeddings is not None:
            self.embeddings.reset_values()
        return self.values_parameters()

    def values_parameters(self) -> list[nn.Parameter]:
        """What takes a sparse gradient."""
        return [] if self.embeddings is None else self.embeddings.values_parameters()
