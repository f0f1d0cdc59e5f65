"""A memory of how often each user chose items like this one, with an address that follows what items mean.

One half of an address is the user. The other comes from a vector of the item that events made, such as a row of
:class:`lmn_model.modules.EventEmbeddings`: its K best sub-keys, by cosine, weighted by a softmax. Similar items share
sub-keys, so what a user did with one counts for the others. An event adds its weights to the K slots, and a read sums
the K slots by the weights of the candidate. Nothing is trained.

The vectors move while they learn. If sub-keys stood still, an item would soon be read where nothing of it was written.
So sub-keys are the centres of an online k-means and move with the items that choose them: an item keeps its sub-keys
although its vector turns.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lmn_kernels import axis_topk, gather_aggregate, huge_zeros
from lmn_kernels.backend import check_backend
from lmn_kernels.checks import check_int
from lmn_model.modules.open_ids import rows_of_ids
from lmn_model.modules.pair_ids import checked_ids
from lmn_model.modules.tensor_state import has_data
from lmn_model.modules.wide_sums import WideSums, wide_dtype
from lmn_model.modules.window_similarity import unit

_NAME = "SimilarItemMemory"
_SCALE = 20.0
"""Of cosines, before the softmax."""
_MEMORY = 36.0
"""Centres are of the newest events, about so many for each sub-key: the decay of sums and counts."""
_MIN_EVENTS = 0.75
"""A sub-key restarts below so many decayed events."""
_PRIOR = 0.3
"""Events added to the count and to the expected count before their ratio is taken."""
_COUNT_SCALE = 10.0
_EVENTS_MEAN, _EVENTS_SCALE = 4.0, 0.5


class SimilarItemMemory(WideSums):
    """Counts of each user's events by sub-keys that similar items share.

    Nothing in it has a gradient: :meth:`write` adds to the slots and moves the sub-keys. Read a step's pairs before you
    write its events. Its numbers stay float32 where the module becomes float16 or bfloat16.

    Args:
        user_size: how many ids users have.
        vector_dim: C, width of an item's vector.
        sub_keys: N. More of them distinguish more items and generalise less.
        top_k: K, sub-keys of an item, 1 to N.
        open_rows: users beyond ``user_size``, any integer, share so many more slots of a sub-key by a hash; 0 refuses
            them.
        unseen: the id shared by all users that training had no id for; None if there is none. Its events are not
            written, and its pairs are read as zeros.
        backend: ``"auto"``, ``"triton"`` or ``"torch"``.
        device: of the memory; None for torch's default.

    Attributes:
        values: ``[sub_keys * users, 1]``, the slots, sub-key by sub-key; users are ``user_size + open_rows``.
        keys: ``[sub_keys, C]``, decayed sums of the unit vectors of events; a cosine does not depend on their length.

    Raises:
        TypeError: a size is no integer.
        ValueError: a size is out of range, or ``backend`` is unknown.

    Source: ours. Selection by sub-keys and weights by a softmax: the memory block of Lu et al. 2025, arXiv 2502.05558.
    Centres as decayed sums: van den Oord et al. 2017, Neural Discrete Representation Learning, appendix A; restarts of
    unused ones: Dhariwal et al. 2020, Jukebox.
    """

    SIGNALS = 3

    def __init__(
        self,
        user_size: int,
        vector_dim: int,
        *,
        sub_keys: int = 4096,
        top_k: int = 32,
        open_rows: int = 0,
        unseen: int | None = None,
        backend: str = "auto",
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self.user_size = check_int(_NAME, "user_size", user_size, low=1)
        self.vector_dim = check_int(_NAME, "vector_dim", vector_dim, low=1)
        self.sub_keys = check_int(_NAME, "sub_keys", sub_keys, low=1)
        self.top_k = check_int(_NAME, "top_k", top_k, low=1)
        if self.top_k > self.sub_keys:
            raise ValueError(f"{_NAME}: top_k must lie in [1, sub_keys = {self.sub_keys}], got {self.top_k}")
        self.open_rows = check_int(_NAME, "open_rows", open_rows, low=0)
        self.unseen = None if unseen is None else check_int(_NAME, "unseen", unseen)
        check_backend(_NAME, backend)
        self.backend = backend
        self.users = self.user_size + self.open_rows
        sums = {"dtype": wide_dtype(), "device": device}
        table = huge_zeros(self.users * self.sub_keys, 1, **sums)
        self.values = nn.Parameter(table, requires_grad=False)
        self.keys: Tensor
        self.key_events: Tensor
        self.key_totals: Tensor
        self.user_events: Tensor
        self.register_buffer("keys", torch.zeros(self.sub_keys, self.vector_dim, **sums))
        self.register_buffer("key_events", torch.zeros(self.sub_keys, **sums))  # decayed, of the best alone
        self.register_buffer("key_totals", torch.zeros(self.sub_keys, **sums))
        self.register_buffer("user_events", torch.zeros(self.users, dtype=torch.int64, device=device))

    def reset_parameters(self) -> None:
        """Empty the memory."""
        self.reset_values()

    @torch.no_grad()
    def reset_values(self) -> None:
        """Empty the memory, as before another pass over the same events."""
        for tensor in (self.values, self.keys, self.key_events, self.key_totals, self.user_events):
            tensor.zero_()

    @torch.no_grad()
    def forward(self, vectors: Tensor, user: Tensor) -> Tensor:
        """How often users chose items like these.

        With c the sum of the user's slots by the weights of the item, t that of all users' slots, n the events of the
        user and T those of all, t n / T is the count that is expected of the pair.

        Args:
            vectors: ``[B, C]``, of the items.
            user: ``[B]`` ids of the users.

        Returns:
            ``[B, 3]`` without a gradient, in the narrower type of the vectors and the memory, of order 1 and 0 where
            nothing was written: log(1 + 10 c); the logarithm of c over its expected count, each with 0.3 events more;
            and log(1 + t), centred.

        Raises:
            TypeError: ids are neither int64 nor int32, or vectors no floats.
            ValueError: an input is not of these shapes, or, on a CPU, an id is out of range or a vector not finite.
        """
        dtype = min(vectors.dtype, self.keys.dtype, key=lambda each: each.itemsize)
        vectors, user = self._checked(vectors, user)
        rows = rows_of_ids(user, self.user_size, self.open_rows)
        sub_keys, weights = self._route(vectors)
        slots = sub_keys * self.users + rows.unsqueeze(1)
        count = gather_aggregate(self.values, slots, weights, backend=self.backend).squeeze(1)
        total = (self.key_totals[sub_keys] * weights).sum(1)
        events = self.user_events[rows]
        expected = total * events / self.user_events.sum().clamp_min(1)
        lift = ((count + _PRIOR) / (expected + _PRIOR)).log()
        features = ((_COUNT_SCALE * count).log1p(), lift, (total.log1p() - _EVENTS_MEAN) * _EVENTS_SCALE)
        return (torch.stack(features, dim=1) * ((events > 0) & (total > 0)).unsqueeze(1)).to(dtype)

    @torch.no_grad()
    def write(self, vectors: Tensor, user: Tensor) -> None:
        """Write events, and move the sub-keys towards them.

        Sub-keys that were the best of too few recent events restart at events of the call, spread evenly over it, with
        empty slots.

        Args:
            vectors: ``[P, C]``, of the items.
            user: ``[P]`` ids of the users.

        Raises:
            TypeError, ValueError: as :meth:`forward`.
        """
        vectors, user = self._checked(vectors, user)
        if self.unseen is not None:
            known = user != self.unseen
            vectors, user = vectors[known], user[known]
        events = len(user)
        if not events:
            return
        vectors = unit(vectors)
        self._restart(vectors)
        sub_keys, weights = self._route(vectors)
        ones, rows = torch.ones_like(weights[:, 0]), rows_of_ids(user, self.user_size, self.open_rows)
        slots = sub_keys * self.users + rows.unsqueeze(1)
        self.values.index_add_(0, slots.flatten(), weights.flatten().unsqueeze(1))
        self.key_totals.index_add_(0, sub_keys.flatten(), weights.flatten())
        self.user_events.index_add_(0, rows, torch.ones_like(rows))
        best = sub_keys[:, 0]
        decay = math.exp(-events / (_MEMORY * self.sub_keys))
        self.keys.mul_(decay).index_add_(0, best, vectors)
        self.key_events.mul_(decay).index_add_(0, best, ones)

    def _restart(self, vectors: Tensor) -> None:
        """Empty sub-keys that were the best of too few recent events, and set them to unit vectors ``[P, C]``."""
        spread = torch.arange(self.sub_keys, device=vectors.device) * len(vectors) // self.sub_keys
        unused = self.key_events < _MIN_EVENTS
        self.keys.copy_(torch.where(unused.unsqueeze(1), vectors[spread], self.keys))
        self.key_events.masked_fill_(unused, 1.0)
        self.key_totals.masked_fill_(unused, 0.0)
        if self.user_events.any():  # untouched zeros take no memory
            self.values.view(self.sub_keys, self.users)[unused] = 0

    def _route(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """The best sub-keys of vectors ``[B, C]`` and their weights, ``[B, K]`` each."""
        best = axis_topk(vectors, self.keys, self.top_k, metric="cosine")
        return best.sub_keys, (_SCALE * best.scores).softmax(dim=1).to(self.values.dtype)

    def _checked(self, vectors: Tensor, user: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors in the type of the sub-keys, and ids as int64."""
        if vectors.ndim != 2 or vectors.shape[1] != self.vector_dim:
            raise ValueError(f"{_NAME}: vectors must be [B, C = {self.vector_dim}], got {list(vectors.shape)}")
        if not vectors.is_floating_point():
            raise TypeError(f"{_NAME}: vectors must be floats, got {vectors.dtype}")
        if user.ndim != 1 or user.shape[0] != vectors.shape[0]:
            raise ValueError(f"{_NAME}: user must be [B = {vectors.shape[0]}], got {list(user.shape)}")
        if vectors.device.type == "cpu" and not torch.compiler.is_compiling() and has_data(vectors):
            finite = vectors.isfinite().all(1)
            if not finite.all():
                wrong = vectors[~finite][0]
                raise ValueError(f"{_NAME}: vectors must be finite, got {float(wrong[~wrong.isfinite()][0])}")
        size = None if self.open_rows else self.user_size
        item = torch.zeros(user.shape[0], 1, dtype=torch.int64, device=user.device)
        _, user = checked_ids(item, user, (1,), size, name=_NAME)
        return vectors.to(self.keys.dtype), user

    def extra_repr(self) -> str:
        return f"user_size={self.user_size}, vector_dim={self.vector_dim}, sub_keys={self.sub_keys}, top_k={self.top_k}"
