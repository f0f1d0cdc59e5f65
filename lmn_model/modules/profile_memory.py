"""Profiles: a memory of what similar users do, written by every event and read for a pair of an item and a user.

A factored memory counts what one user did. Its codes are random, so two users that share a slot share noise. Here the
rows of similar users become similar, and so do the rows of items that the same users choose, which lets the events of
one user count for another.

Level k keeps a row U_k for each user and V_k for each item. An event (user, item) reads all that it needs, and then
writes

    U_0[user] += w code[item]                 code: fixed random signs
    U_k[user] += w unit(V_(k-1)[item])        w = (events of the item so far + 10) ** -1/4
    V_k[item] += unit(unit(U_k[user]) - mean over the events of unit(U_k))

which is one step of a power iteration on the matrix of users and items, taken while events stream by: O(levels * D) for
an event, without a factorisation, a gradient or a second pass. (In trials the exponent -1/4 of w was better than -1/2
and -3/4.)

Where samples have labels, a signed memory multiplies each write by (label - expected rate), so that profiles are of
what users like and not of what they are shown. The expected rate comes from the running rates of item and user.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lmn_kernels.backend import check_backend
from lmn_kernels.checks import check_choice, check_flag, check_int
from lmn_model.modules.hashing import hashed_signs
from lmn_model.modules.pair_ids import checked_pairs, checked_window
from lmn_model.modules.profile_table import Kind, ProfileTable
from lmn_model.modules.running_rates import RunningRates
from lmn_model.modules.tensor_state import has_data
from lmn_model.modules.wide_sums import WideSums, wide_dtype
from lmn_model.modules.window_similarity import all_alike, check_window, distinct_others, unit, window_similarity

_NAME = "ProfileMemory"
_PRIOR_EVENTS = 10.0
"""Events that are added to an item's own before its weight is computed."""
_MEAN_EVENTS = 200_000.0
"""The mean is that of about so many of the newest events."""
_CHUNK = 1024
"""Events that are written at once. Users have level k after 2 k + 1 chunks, and items after 2 k + 2."""
_SIMILARITY_SCALE = 6.0
_COUNT_MEAN, _COUNT_SCALE = 4.0, 0.5


class ProfileMemory(WideSums):
    """A memory whose rows of similar users, and of similar items, are similar.

    Nothing in it has a gradient: :meth:`write` adds to the rows. Read a step's pairs before you write its events.

    Args:
        item_size: how many ids items have. None leaves them open: any integer is an id, such as a hash of a name, and
            whoever appears is written and read from the first event on; ``rows`` must be set.
        user_size: the same of users.
        levels: steps of the power iteration, at least 1.
        dim: D, width of a row.
        rows: rows of a level for users, and as many for items; ids share them by a hash, and each is bound to random
            signs of its own, so that rows that are shared add noise. Their counts of events and rates add up. None
            gives each id a row.
        open_rows: without ``rows``, so many rows more of a level for users, and as many for items, which ids beyond the
            sizes share in the same way; 0 refuses such ids.
        window: whether reads compare the item with the window.
        signed: write labelled samples, each multiplied by (label - expected rate), instead of events that are all
            positive; reads then have the rates too.
        unseen: the id shared by all values that training had no id for; None if there is none. Its events are not
            written, and it is read as an id without events.
        backend: ``"auto"``, ``"triton"`` or ``"torch"``.
        device: of the memory; None for torch's default.

    Attributes:
        table: the rows, a :class:`lmn_model.modules.profile_table.ProfileTable`.

    Raises:
        TypeError: a size is no integer.
        ValueError: a size is out of range, or ``backend`` is unknown.

    Source: ours. A level is a step of the power method for the singular vectors of the interaction matrix; the random
    signs it starts from are a random projection, Achlioptas 2003, Database-friendly random projections.
    """

    def __init__(
        self,
        item_size: int | None,
        user_size: int | None,
        *,
        levels: int = 5,
        dim: int = 64,
        rows: int | None = None,
        open_rows: int = 0,
        window: bool = True,
        signed: bool = False,
        unseen: int | None = None,
        backend: str = "auto",
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self.item_size = None if item_size is None else check_int(_NAME, "item_size", item_size, low=1)
        self.user_size = None if user_size is None else check_int(_NAME, "user_size", user_size, low=1)
        self.levels = check_int(_NAME, "levels", levels, low=1)
        self.dim = check_int(_NAME, "dim", dim, low=1)
        rows = None if rows is None else check_int(_NAME, "rows", rows, low=1)
        if rows is None and (item_size is None or user_size is None):
            raise ValueError(f"{_NAME}: rows must be set where item_size or user_size is None, got None")
        open_rows = check_int(_NAME, "open_rows", open_rows, low=0)
        if rows is not None and open_rows:
            raise ValueError(f"{_NAME}: open_rows must be 0 with rows, which any id has a share in, got {open_rows}")
        self.window = check_flag(_NAME, "window", window)
        self.signed = check_flag(_NAME, "signed", signed)
        self.unseen = None if unseen is None else check_int(_NAME, "unseen", unseen)
        check_backend(_NAME, backend)
        self.table = ProfileTable(
            self.item_size,
            self.user_size,
            self.levels,
            self.dim,
            rows=rows,
            open_rows=open_rows,
            backend=backend,
            device=device,
        )
        if open_rows:
            self.item_size = self.user_size = None  # any id
        sizes = self.table.sizes
        self.mean_sum: Tensor
        self.mean_events: Tensor
        self.item_events: Tensor
        self.user_events: Tensor
        sums = {"dtype": wide_dtype(), "device": device}
        self.register_buffer("mean_sum", torch.zeros(self.levels, self.dim, **sums))
        self.register_buffer("mean_events", torch.zeros(self.levels, 1, **sums))
        counts = {"dtype": torch.int64, "device": device}  # float32 stops counting at 2^24
        self.register_buffer("item_events", torch.zeros(sizes["item"], **counts))
        self.register_buffer("user_events", torch.zeros(sizes["user"], **counts))
        self.rates = RunningRates(sizes["item"], sizes["user"], device=device) if signed else None

    def reset_parameters(self) -> None:
        """Empty the memory."""
        self.reset_values()

    @torch.no_grad()
    def reset_values(self) -> None:
        """Empty the memory, as before another pass over the same events."""
        self.table.reset_parameters()
        for tensor in (self.mean_sum, self.mean_events, self.item_events, self.user_events):
            tensor.zero_()
        if self.rates is not None:
            self.rates.reset_parameters()

    @property
    def signals(self) -> int:
        """Numbers that a read gives the tower."""
        return 2 * self.levels - 1 + 3 * self.window + 2 + (0 if self.rates is None else self.rates.SIGNALS)

    @torch.no_grad()
    def forward(self, item: Tensor, user: Tensor, window: Tensor, mask: Tensor) -> Tensor:
        """What similar users did with an item.

        Args:
            item: ``[B]`` ids of the items.
            user: ``[B]`` ids of the users.
            window: ``[B, T]`` ids of the items of each user's newest events; T may be 0.
            mask: bool ``[B, T]``, True where ``window`` is real.

        Returns:
            ``[B, signals]`` without a gradient: the cosine of U_k (less the mean over users) and V_k for each level;
            the same of U_(k+1) and V_k; if the memory has ``window``, mean, maximum and mean of the ten largest
            cosines of the item's V and those of the distinct other items in the window, at the last level; and log(1 +
            events) of item and user. Cosines are times 6, and 0 where nothing was written; of the logarithms 4 is
            taken and the rest halved, so an id without events has -2. A signed memory adds the logits of the rates of
            item and user, and of the expected rate; an id without samples has the overall rate.

        Raises:
            TypeError: ids are neither int64 nor int32.
            ValueError: ids are not of these shapes, or, on a CPU, out of range.
        """
        item, user = checked_pairs(item, user, self.item_size, self.user_size, name=_NAME)
        check_window(_NAME, item.shape[0], window, mask)  # len() would fix it in an export
        of_item, of_user = (self._known(ids).to(self.table.values.dtype) for ids in (item, user))  # [B]
        items = unit(self.table.read(item, "item")) * of_item[:, None, None]  # [B, levels, D]
        shown, of_shown = (user[:1], of_user[:1]) if all_alike(user) else (user, of_user)
        users = self._centred(unit(self.table.read(shown, "user"))) * of_shown[:, None, None]
        similarities = [(users * items).sum(-1), (users[:, 1:] * items[:, :-1]).sum(-1)]
        if self.window:
            if all_alike(window, mask):  # the candidates of one user
                window, mask = window[:1], mask[:1]
            window = checked_window(window, mask, self.item_size, name=_NAME)
            rows = self.table.read(window.flatten(), "item", last=True).view(*window.shape, self.dim)
            similarities.append(window_similarity(items[:, -1], rows, distinct_others(item, window, mask)))
        counts = torch.stack((self._count(item, "item") * of_item, self._count(user, "user") * of_user), dim=1).log1p()
        features = [_SIMILARITY_SCALE * torch.cat(similarities, dim=1), (counts - _COUNT_MEAN) * _COUNT_SCALE]
        if self.rates is not None:
            features.append(self._rates(item, user))
        return torch.cat(features, dim=1).to(self.table.values.dtype)

    @torch.no_grad()
    def write(self, item: Tensor, user: Tensor, label: Tensor | None = None) -> None:
        """Write events, 1,024 at a time: so many read the memory as it was before them.

        Args:
            item: ``[P]`` ids of the items, in the order of time.
            user: ``[P]`` ids of the users.
            label: float ``[P]``, 0 or 1, for a signed memory alone; samples whose label is NaN are not written.

        Raises:
            TypeError: as :meth:`forward`, or ``label`` is no tensor of floats.
            ValueError: as :meth:`forward`; a signed memory gets no ``label``, or another one gets one; or, on a CPU, a
                label is neither 0, 1 nor NaN.
        """
        item, user = checked_pairs(item, user, self.item_size, self.user_size, name=_NAME)
        self._check_label(label, item)
        known = self._known(item) & self._known(user)
        if label is not None:
            known = known & ~label.isnan()
        if self.unseen is not None or label is not None:  # an index by a mask waits for the device
            item, user, label = item[known], user[known], None if label is None else label[known]
        for first in range(0, len(item), _CHUNK):
            part = slice(first, first + _CHUNK)
            self._write(item[part], user[part], None if label is None else label[part])

    def _write(self, item: Tensor, user: Tensor, label: Tensor | None) -> None:
        """Write at most 1,024 events, all of which read the memory as it was before."""
        sign = None if label is None else self._count_label(item, user, label)
        weight = (self._count(item, "item") + _PRIOR_EVENTS).to(self.table.values.dtype).pow(-0.25)[:, None, None]
        items, users = unit(self.table.read(item, "item")), unit(self.table.read(user, "user"))  # [P, levels, D]
        codes = hashed_signs(item, self.dim).to(items.dtype).unsqueeze(1)
        to_items = self._centred(users)
        to_users = weight * torch.cat((codes, items[:, :-1]), dim=1)
        if sign is not None:
            to_users, to_items = sign * to_users, sign * to_items
        self.table.add(user, "user", to_users)
        self.table.add(item, "item", to_items)
        decay = math.exp(-len(item) / _MEAN_EVENTS)
        self.mean_sum.mul_(decay).add_(users.sum(0, dtype=self.mean_sum.dtype))
        self.mean_events.mul_(decay).add_(users.any(-1).sum(0).unsqueeze(1))
        for ids, kind, events in ((item, "item", self.item_events), (user, "user", self.user_events)):
            events.index_add_(0, self.table.rows_of(ids, kind), torch.ones_like(ids))

    def similar(self, ids: Tensor, others: Tensor, kind: Kind, level: int | None = None) -> Tensor:
        """Cosines ``[R, S]`` of one level's rows of ids ``[R]`` and others ``[S]``.

        Args:
            ids: of items or users.
            others: of the same kind.
            kind: ``"item"`` or ``"user"``.
            level: whose rows; None for the last.

        Raises:
            TypeError: ``level`` is no integer, or ids are neither int64 nor int32.
            ValueError: ``kind`` is neither, there is no such level, or, on a CPU, an id is out of range.
        """
        check_choice(_NAME, "kind", kind, ("item", "user"))
        level = self.levels - 1 if level is None else check_int(_NAME, "level", level, low=0)
        if level >= self.levels:
            raise ValueError(f"{_NAME}: level must be below levels = {self.levels}, got {level}")
        size = self.item_size if kind == "item" else self.user_size
        ids, others = (checked_pairs(each, each, size, size, name=_NAME)[0] for each in (ids, others))
        first, second = (unit(self.table.read(each, kind)) for each in (ids, others))
        if kind == "user":
            first, second = self._centred(first), self._centred(second)
        return first[:, level] @ second[:, level].T

    def _check_label(self, label: Tensor | None, item: Tensor) -> None:
        if (label is not None) != self.signed:
            raise ValueError(f"{_NAME}: label must be {'given' if self.signed else 'None'} for signed = {self.signed}")
        if label is not None:
            if not isinstance(label, Tensor) or not label.is_floating_point():
                got = label.dtype if isinstance(label, Tensor) else type(label).__name__
                raise TypeError(f"{_NAME}: label must be a tensor of floats, got {got}")
            if label.shape != item.shape:
                raise ValueError(f"{_NAME}: label must be [P = {len(item)}], got {list(label.shape)}")
            if label.device.type == "cpu" and has_data(label):
                wrong = label[(label != 0) & (label != 1) & ~label.isnan()]
                if len(wrong):
                    raise ValueError(f"{_NAME}: label must be 0, 1 or NaN, got {float(wrong[0])}")

    def _rates(self, item: Tensor, user: Tensor) -> Tensor:
        return self.rates(self.table.rows_of(item, "item"), self.table.rows_of(user, "user"))  # type: ignore[misc, no-any-return]

    def _count_label(self, item: Tensor, user: Tensor, label: Tensor) -> Tensor:
        """Label less the rate that was expected, ``[P, 1, 1]``; counts the labels."""
        expected = self._rates(item, user)[:, 2].sigmoid()
        self.rates.add(self.table.rows_of(item, "item"), self.table.rows_of(user, "user"), label)  # type: ignore[union-attr]
        return (label - expected).to(self.table.values.dtype)[:, None, None]

    def _known(self, ids: Tensor) -> Tensor:
        """Bool ``[B]``: not the id of the unseen."""
        return torch.ones_like(ids, dtype=torch.bool) if self.unseen is None else ids != self.unseen

    def _count(self, ids: Tensor, kind: Kind) -> Tensor:
        events = self.item_events if kind == "item" else self.user_events
        return events[self.table.rows_of(ids, kind)]

    def _centred(self, users: Tensor) -> Tensor:
        """Unit rows of users ``[B, levels, D]`` less the mean over users, unit again; empty rows stay zeros."""
        mean = (self.mean_sum / self.mean_events.clamp_min(1)).to(users.dtype)
        return unit((users - mean) * users.any(-1, keepdim=True))

    def extra_repr(self) -> str:
        return (
            f"item_size={self.item_size}, user_size={self.user_size}, levels={self.levels}, dim={self.dim}, "
            f"rows={self.table.sizes}, signals={self.signals}"
        )
