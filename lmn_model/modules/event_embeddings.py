"""Embeddings of users and items that learn from every event, by logistic matrix factorisation with in-batch negatives.

The loss on the labels sees one sample in a few events of a history. Here each event is a positive pair, once, when it
is new, and the items of other events of its step are its negatives. Those are drawn by how common an item is, so the
inner product estimates how much more often than by chance the user chooses the item, the logarithm of p(item, user) /
(p(item) p(user)). The embeddings learn by this loss alone: what they hold does not depend on the tower.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lmn_kernels import gather_aggregate
from lmn_kernels.backend import check_backend
from lmn_kernels.checks import check_int
from lmn_model.modules.codes import id_offsets
from lmn_model.modules.hashing import hashed_rows
from lmn_model.modules.open_ids import is_own, rows_of_ids
from lmn_model.modules.pair_ids import checked_ids, checked_sizes, checked_window
from lmn_model.modules.tensor_state import has_data
from lmn_model.modules.window_similarity import all_alike, check_window, distinct_others, window_similarity

_NAME = "EventEmbeddings"


class EventEmbeddings(nn.Module):
    """Rows of users and of items' features, whose inner product is high for pairs that events resemble.

    The row of an item is the sum of the rows of its features, a bag of :func:`lmn_kernels.gather_aggregate`, so an item
    with few events has that of its category.

    Args:
        item_sizes: how many ids each of the F features of an item has, the item's own id among them.
        user_size: how many ids users have.
        dim: D, width of a row.
        negatives: other items for each event in :meth:`loss`; fewer if there are fewer events.
        open_rows: ids beyond a size, any integer, share so many more rows of each feature and of the users by a hash;
            0 refuses them.
        unseen: the id shared by all values that training had no id for; None if there is none. It has no row: an item
            is the sum of its other features, and a user without an id is zeros.
        backend: ``"auto"``, ``"triton"`` or ``"torch"``.
        device: of the embeddings; None for torch's default.

    Raises:
        TypeError: ``item_sizes`` is no sequence of integers, or another size no integer.
        ValueError: a size is out of range, or ``backend`` is unknown.

    Source: Johnson 2014, Logistic Matrix Factorization for Implicit Feedback Data; negative sampling and what its inner
    product estimates: Levy and Goldberg 2014, Neural Word Embedding as Implicit Matrix Factorization.
    """

    SIGNALS = 5

    def __init__(
        self,
        item_sizes: Sequence[int],
        user_size: int,
        *,
        dim: int = 128,
        negatives: int = 31,
        open_rows: int = 0,
        unseen: int | None = None,
        backend: str = "auto",
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self.item_sizes, self.user_size, self.unseen = checked_sizes(item_sizes, user_size, unseen, name=_NAME)
        self.dim = check_int(_NAME, "dim", dim, low=1)
        self.negatives = check_int(_NAME, "negatives", negatives, low=1)
        self.open_rows = check_int(_NAME, "open_rows", open_rows, low=0)
        check_backend(_NAME, backend)
        self.backend = backend
        # One feature's rows after another's: first those of known ids, then those that open ids share.
        items = sum(self.item_sizes) + self.open_rows * len(self.item_sizes)
        self.item_values = nn.Parameter(torch.empty(items, self.dim, device=device))
        self.user_values = nn.Parameter(torch.empty(self.user_size + self.open_rows, self.dim, device=device))
        self.offsets: Tensor
        self.register_buffer("offsets", id_offsets(self.item_sizes, False, device))
        self.reset_values()

    def reset_parameters(self) -> None:
        """Draw the rows."""
        self.offsets.copy_(id_offsets(self.item_sizes, False, self.offsets.device))
        self.reset_values()

    def reset_values(self) -> None:
        """Draw the rows, as before another pass over the same events; reset their optimiser's state too."""
        for values in (self.item_values, self.user_values):
            nn.init.normal_(values, std=0.5 * self.dim**-0.5)
        with torch.no_grad():  # an item begins as the sum of its other features
            self.item_values[: self.item_sizes[0]] = 0
            shared = sum(self.item_sizes)
            self.item_values[shared : shared + self.open_rows] = 0

    def values_parameters(self) -> list[nn.Parameter]:
        """What takes a sparse gradient, for an optimiser of ``lmn_kernels.optim``; nothing else here trains."""
        return [self.item_values, self.user_values]

    @torch.no_grad()
    def forward(self, item: Tensor, user: Tensor, window: Tensor, mask: Tensor) -> Tensor:
        """How well an item suits a user and the user's newest events.

        Args:
            item: ``[B, F]`` ids of the items' features.
            user: ``[B]`` ids of the users.
            window: ``[B, T, F]`` ids of the items of each user's newest events; T may be 0.
            mask: bool ``[B, T]``, True where ``window`` is real.

        Returns:
            ``[B, 5]`` without a gradient: a quarter of the inner product of user and item; twice their cosine; and
            twice the mean, the maximum and the mean of the ten largest cosines of the item and the distinct other
            items in the window, zeros where there is none.

        Raises:
            TypeError: ids are neither int64 nor int32.
            ValueError: ids are not of these shapes, or, on a CPU, out of range.
        """
        items, users = self._rows(item, user)
        check_window(_NAME, item.shape[0], window, mask, ndim=3)
        if all_alike(window, mask):  # the candidates of one user
            window, mask = window[:1], mask[:1]
        window = self._checked_window(window, mask)
        events = self._item_rows(window.reshape(-1, len(self.item_sizes))).view(*mask.shape, self.dim)
        near = window_similarity(items, events, distinct_others(item[:, 0], window[..., 0], mask))
        inner = (items * users).sum(1)
        pair = torch.stack(
            (inner / 4, 2 * F.cosine_similarity(items, users, dim=1, eps=torch.finfo(items.dtype).tiny)), dim=1
        )
        return torch.cat((pair, 2 * near), dim=1)

    @torch.no_grad()
    def item_vectors(self, item: Tensor) -> Tensor:
        """Vectors of items ``[B, F]``, ids of their features: ``[B, D]`` without a gradient.

        Raises:
            TypeError, ValueError: as :meth:`forward`.
        """
        any_user = item.new_zeros(item.shape[:1])
        return self._item_rows(self._checked(item, any_user)[0])

    def loss(self, item: Tensor, user: Tensor) -> Tensor:
        """The loss of events, a scalar with sparse gradients; 0 without events.

        The mean of ``softplus(-u . i)`` over the events, plus the mean of ``softplus(u . j)`` over their negatives j.
        Events are cut into groups, whose members lie far apart in the order given, and each has as negatives the items
        of its group but for its own and those of the same user. Nothing is drawn at random. A call should have events
        of many users: those of one user alone have no negatives.

        Args:
            item: ``[P, F]`` ids of the items.
            user: ``[P]`` ids of the users.

        Raises:
            TypeError, ValueError: as :meth:`forward`.
        """
        items, users = self._rows(item, user)
        if len(items) == 0:
            return items.sum() + users.sum()
        members = _groups(len(items), self.negatives + 1, items.device)  # [G, g]
        scores = torch.bmm(users[members], items[members].transpose(1, 2))  # [G, g, g]
        others = _differ(item[:, 0][members]) & _differ(user[members])
        positive = F.softplus(-(items * users).sum(1)).mean()
        negative = (F.softplus(scores) * others).sum(dtype=torch.promote_types(scores.dtype, torch.float32))
        return positive + negative / others.sum().clamp_min(1)

    def _rows(self, item: Tensor, user: Tensor) -> tuple[Tensor, Tensor]:
        """Rows of items and of users, ``[B, D]`` each."""
        item, user = self._checked(item, user)
        slots = rows_of_ids(user, self.user_size, self.open_rows)
        return self._item_rows(item), self._bag(self.user_values, user.unsqueeze(1), slots.unsqueeze(1))

    def _checked(self, item: Tensor, user: Tensor) -> tuple[Tensor, Tensor]:
        if self.open_rows:
            return checked_ids(item, user, (None,) * len(self.item_sizes), None, name=_NAME)
        return checked_ids(item, user, self.item_sizes, self.user_size, name=_NAME)

    def _checked_window(self, window: Tensor, mask: Tensor) -> Tensor:
        """Ids ``[B, T, F]`` as int64, with 0 where ``mask`` is False."""
        if window.shape[2] != len(self.item_sizes):
            raise ValueError(f"{_NAME}: window must be [B, T, F = {len(self.item_sizes)}], got {list(window.shape)}")
        sizes = (None,) * len(self.item_sizes) if self.open_rows else self.item_sizes
        return checked_window(window, mask, sizes, name=_NAME)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Refuse the rows of other features, whose number may be the same in all."""
        loaded = state_dict.get(f"{prefix}offsets")
        own = id_offsets(self.item_sizes, False, "cpu")
        if loaded is not None and has_data(loaded) and not torch.equal(loaded.cpu(), own):
            error = f"{_NAME}: the state's features begin at {loaded.tolist()}, those of item_sizes at {own.tolist()}"
            args[-1].append(error)  # error_msgs
            return
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _item_rows(self, item: Tensor) -> Tensor:
        if not self.open_rows:
            return self._bag(self.item_values, item, item + self.offsets)
        first = sum(self.item_sizes)
        slots = []
        for place, (size, ids) in enumerate(zip(self.item_sizes, item.unbind(1), strict=True)):
            shared = first + place * self.open_rows + hashed_rows(ids, self.open_rows, salt=1 + place)
            slots.append(torch.where(is_own(ids, size), ids + self.offsets[place], shared))
        return self._bag(self.item_values, item, torch.stack(slots, dim=1))

    def _bag(self, values: Tensor, ids: Tensor, slots: Tensor) -> Tensor:
        weights = torch.ones_like(slots, dtype=values.dtype)
        if self.unseen is not None:
            weights = (ids != self.unseen).to(values.dtype)
        return gather_aggregate(values, slots, weights, sparse_grad=values.is_leaf, backend=self.backend)

    def extra_repr(self) -> str:
        return f"item_sizes={list(self.item_sizes)}, user_size={self.user_size}, dim={self.dim}"


def _groups(events: int, size: int, device: torch.device) -> Tensor:
    """Events ``[G, g]`` of each group, g = min(size, events); if g does not divide them, some are in two groups."""
    size = min(size, events)
    groups = -(-events // size)
    first, step = torch.arange(groups, device=device), groups * torch.arange(size, device=device)
    return (first.unsqueeze(1) + step) % events


def _differ(ids: Tensor) -> Tensor:
    """Bool ``[G, g, g]``: which members of a group ``[G, g]`` have different ids."""
    return ids.unsqueeze(2) != ids.unsqueeze(1)
