"""What other users did, as features of the tower: profiles, embeddings that learn from every event, and a memory of how
often each user chose items that are similar by these embeddings.

All are written by the new events of each step, after its samples were scored; see
:class:`lmn_model.modules.ProfileMemory`, :class:`lmn_model.modules.EventEmbeddings` and
:class:`lmn_model.modules.SimilarItemMemory`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lmn_model.ctr.settings import CollaborativeSettings
from lmn_model.data import Batch, FeatureSpec
from lmn_model.modules.event_embeddings import EventEmbeddings
from lmn_model.modules.profile_memory import ProfileMemory
from lmn_model.modules.resetting import reset_children
from lmn_model.modules.similar_item_memory import SimilarItemMemory

_MIN_OPEN_ROWS, _MAX_OPEN_ROWS = 1024, 65536
"""Rows that open ids share: as many as there are known ids, within these bounds."""


def _open_rows(known: int) -> int:
    return min(max(known, _MIN_OPEN_ROWS), _MAX_OPEN_ROWS)


class CollaborativeFeatures(nn.Module):
    """Features of a pair from the events of all users.

    Args:
        features: features of the data.
        settings: which features, and their sizes; at least one of them.
        backend: of the reads.
    """

    def __init__(self, features: FeatureSpec, settings: CollaborativeSettings, backend: str = "auto") -> None:
        super().__init__()
        items, users = [feature.size for feature in features.item], features.user[0].size
        open_rows = _open_rows(max(items[0], users)) if features.open_ids else 0
        self.profiles: ProfileMemory | None = None
        self.embeddings: EventEmbeddings | None = None
        self.similar: SimilarItemMemory | None = None
        if settings.profile_levels:
            self.profiles = ProfileMemory(
                items[0],
                users,
                levels=settings.profile_levels,
                dim=settings.profile_dim,
                rows=settings.profile_rows,
                open_rows=0 if settings.profile_rows else open_rows,
                window=not settings.event_dim,  # those embeddings compare the item with the window
                signed=bool(settings.profile_signed),
                unseen=features.unseen,
                backend=backend,
            )
        if settings.event_dim:
            self.embeddings = EventEmbeddings(
                items,
                users,
                dim=settings.event_dim,
                negatives=settings.event_negatives,
                open_rows=open_rows,
                unseen=features.unseen,
                backend=backend,
            )
        if settings.event_sub_keys:
            self.similar = SimilarItemMemory(
                users,
                settings.event_dim,
                sub_keys=settings.event_sub_keys,
                top_k=min(settings.event_top_k, settings.event_sub_keys),
                open_rows=_open_rows(users) if features.open_ids else 0,
                unseen=features.unseen,
                backend=backend,
            )

    def reset_parameters(self) -> None:
        """Empty the profiles and draw the embeddings."""
        reset_children(self)

    @property
    def signals(self) -> int:
        """Numbers that a read gives the tower."""
        signals = 0 if self.profiles is None else self.profiles.signals
        signals += 0 if self.embeddings is None else self.embeddings.SIGNALS
        return signals + (0 if self.similar is None else self.similar.SIGNALS)

    def forward(self, batch: Batch) -> Tensor:
        """``[B, signals]`` without a gradient."""
        item, user = batch.item, batch.user[:, 0]
        features = []
        if self.profiles is not None:
            features.append(self.profiles(item[:, 0], user, batch.history[..., 0], batch.history_mask))
        if self.embeddings is not None:
            features.append(self.embeddings(item, user, batch.history, batch.history_mask))
            if self.similar is not None:
                features.append(self.similar(self.embeddings.item_vectors(item), user))
        return torch.cat(features, dim=1)

    def event_loss(self, item: Tensor, user: Tensor) -> Tensor | None:
        """The loss of new events, items ``[P, F]`` and users ``[P]``; None if nothing learns from it."""
        return None if self.embeddings is None else self.embeddings.loss(item, user)

    def write(self, item: Tensor, user: Tensor, label: Tensor | None = None) -> None:
        """Write new events, or labelled samples if profiles are signed, to profiles.

        Args:
            item: ``[P, F]`` ids of the items.
            user: ``[P]`` ids of the users.
            label: ``[P]``, for signed profiles alone.
        """
        if self.profiles is not None:
            self.profiles.write(item[:, 0], user, label)

    def write_similar(self, item: Tensor, user: Tensor) -> None:
        """Write new events, items ``[P, F]`` and users ``[P]``, to the memory of similar items; nothing without it."""
        if self.similar is not None and self.embeddings is not None:
            self.similar.write(self.embeddings.item_vectors(item), user)

    def reset_values(self) -> list[nn.Parameter]:
        """Empty all, as before another pass over the events; returns the parameters whose optimiser state is void."""
        for module in (self.profiles, self.embeddings, self.similar):
            if module is not None:
                module.reset_values()
        return self.values_parameters()

    def values_parameters(self) -> list[nn.Parameter]:
        """What takes a sparse gradient."""
        return [] if self.embeddings is None else self.embeddings.values_parameters()
