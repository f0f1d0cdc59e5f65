"""A memory of cells: what kind of item, what kind of user. The factored query of the Large Memory Network.

The joint query of the paper mixes item and user before either half of it is made, and asks with embeddings that the
model goes on learning: what was written early is asked for under another address later. Here half 0 comes from a
feature of the item alone and half 1 from the user alone, so that a slot is a cell (kind of item, kind of user), and
both come from *codes*: random signs, one vector for each id, that never change. So an address is for ever, the best
sub-keys of every id are looked up once and stored, and a read costs a gather.

Each event of a history is written once, when it is new, for each feature of its item: as (product, user), as (category,
user) and so on. Written is the *bound* code, item * user, by the memory loss. In a cell that many pairs share their
bound codes add up, and since they are nearly orthogonal the projection on one of them still tells how often that pair
was written, with a noise of sqrt(others / D). So a table holds many more pairs than it has slots.

How often a pair is to be expected depends on how common the item is and how busy the user. With ``marginals`` an event
is also written as (product, any user) and (any item, user), and a read tells these counts beside the pair's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lmn_kernels import gather_aggregate
from lmn_kernels.activation import ACTIVATIONS, activate
from lmn_kernels.product_key_topk.metric import METRICS

from .large_memory_network import LOSSES, MemoryLosses
from .memory_layer import MemoryLayer
from .stored_lists import StoredLists, best_keys

_HALVES = {"pair": ("item", "user"), "item": ("item", "item"), "user": ("user", "user")}
TARGETS = ("bound", "pair")
READ_OUTS = ("familiarity", "answer", "both")
KEYS = ("product", "flat")
FLAT_SUB_KEYS = 256
"""The most sub-keys on an axis whose N * N slots are searched one by one: a search costs rows * N * N * D."""


def check_together(*, code_dim: int, target: str, keys: str, sub_keys: int, address: str) -> None:
    """Raise ValueError for options of a factored query, each possible, that do not go together."""
    if target == "pair" and code_dim % 2:
        raise ValueError(f"code_dim must be even for target = 'pair', got {code_dim}")
    if keys == "flat" and sub_keys > FLAT_SUB_KEYS:
        raise ValueError(f"sub_keys must be at most {FLAT_SUB_KEYS} for keys = 'flat', got {sub_keys}")
    if keys == "flat" and address != "pair":
        raise ValueError(f"address must be 'pair' for keys = 'flat', got {address!r}")


class Cells(NamedTuple):
    """Where pairs lead: slots ``[R, F, K]`` int64 and their weights ``[R, F, K]``."""

    slots: Tensor
    weights: Tensor


class _Stored(NamedTuple):
    """Lists, the keys and sleepers that they are of, and the state in which those were."""

    of: tuple[Tensor, Tensor]
    state: object
    lists: tuple[StoredLists, StoredLists]


def _state(keys: Tensor, asleep: Tensor) -> object:
    return keys.data_ptr(), keys.shape, keys._version, asleep._version


class FactoredMemoryNetwork(nn.Module):
    """Memory with a factored query, fixed codes and bound targets.

    Args:
        item_sizes: how many ids each of the F features of an item has, the item's own id among them; each feature is
            read and written for itself.
        user_size: how many ids users have.
        code_dim: width of a code, D = C.
        sub_keys: N.
        marginals: write and read the pairs with any user and any item too.
        address: where the two halves come from: ``"pair"``, item and user; ``"item"`` or ``"user"``, that one alone.
        target: what is written: ``"bound"``, item * user; or ``"pair"``, [item ; user], of each half a code.
        read_out: what a read tells: ``"familiarity"``, the ``"answer"`` itself, or ``"both"``.
        keys: what finds slots: ``"product"``, the best sub-keys of each half; or ``"flat"``, by exact search the best
            for item * user of N * N keys of width D, the buffer ``flat_keys``, to see what product keys cost in
            quality. Sub-keys have no part in a flat search, so such a memory cannot be reseeded or grown.
        code_metric: score of a key: ``"cosine"``, ``"dot"`` or ``"l2"``, the negative squared distance.
        activation: what makes weights of the K scores: ``"softmax"``, ``"sigmoid"`` or ``"relu"``.
        loss: the memory loss: ``"smooth_l1"`` or ``"mse"``.
        unseen: the id that all values share which training had no id for, of users and of item features; None if there
            is none. It is nobody's history: a pair with it is not written, and its read tells zeros.
        top_k: K, slots of a read. One is best where nothing is learnt but the values: a pair has one place then.
        value_dtype: type of the value table.
        backend: ``"auto"``, ``"triton"`` or ``"torch"``.

    Raises:
        ValueError: a size is out of range, an option is unknown, ``code_dim`` is odd for ``target="pair"``, or with
            ``keys="flat"`` ``sub_keys`` is above 256 or ``address`` is not ``"pair"``.

    Source: the memory block, the memory loss and the user-aware query of Lu et al. 2025, arXiv 2502.05558. Ours: the
    factored query, codes instead of embeddings, writing an event once, and binding by the elementwise product, which
    is that of Gayler 2003 (multiply-add-permute; arXiv cs/0412059).
    """

    SIGNALS = 4

    def __init__(
        self,
        item_sizes: Sequence[int],
        user_size: int,
        *,
        code_dim: int = 64,
        marginals: bool = True,
        address: str = "pair",
        target: str = "bound",
        read_out: str = "familiarity",
        keys: str = "product",
        code_metric: str = "cosine",
        activation: str = "softmax",
        loss: str = "smooth_l1",
        unseen: int | None = None,
        sub_keys: int = 1024,
        top_k: int = 1,
        value_dtype: torch.dtype | None = None,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        for name, size in (("code_dim", code_dim), ("user_size", user_size)):
            if size < 1:
                raise ValueError(f"FactoredMemoryNetwork: {name} must be at least 1, got {size}")
        if min(item_sizes, default=0) < 1:
            raise ValueError(
                f"FactoredMemoryNetwork: item_sizes must hold a size of at least 1 for each feature, got {item_sizes}"
            )
        for name, value, known in (
            ("address", address, _HALVES), ("target", target, TARGETS), ("read_out", read_out, READ_OUTS),
            ("keys", keys, KEYS), ("code_metric", code_metric, METRICS), ("activation", activation, ACTIVATIONS),
            ("loss", loss, LOSSES),
        ):  # fmt: skip
            if value not in known:
                raise ValueError(f"FactoredMemoryNetwork: {name} must be one of {', '.join(known)}, got {value!r}")
        check_together(code_dim=code_dim, target=target, keys=keys, sub_keys=sub_keys, address=address)
        self.address, self.target, self.read_out = address, target, read_out
        self.metric, self.activation, self.loss, self.unseen = code_metric, activation, loss, unseen
        self.memory = MemoryLayer(
            None,
            code_dim,
            sub_keys=sub_keys,
            top_k=top_k,
            key_dim=code_dim,
            metric=code_metric,
            activation=activation,
            value_dtype=value_dtype,
            backend=backend,
        )
        self.memory.keys.requires_grad_(False)
        # Any item is one more feature, with one id; any user is one more id.
        sizes = [*item_sizes, *([1] if marginals else [])]
        self.marginals, self.any_user = marginals, user_size
        self.item_codes: Tensor
        self.user_codes: Tensor
        self.item_sizes: Tensor
        self.offsets: Tensor
        self.register_buffer("item_codes", _codes(sum(sizes), code_dim))  # one feature's ids after another's
        self.register_buffer("user_codes", _codes(user_size + marginals, code_dim))
        self.register_buffer("item_sizes", torch.tensor(list(item_sizes)), persistent=False)
        self.register_buffer("offsets", torch.tensor([0, *sizes[:-1]]).cumsum(0), persistent=False)
        flat = torch.randn(sub_keys**2, code_dim) * code_dim**-0.5 if keys == "flat" else None  # as sub-keys are drawn
        self.flat_keys: Tensor | None
        self.register_buffer("flat_keys", flat)  # [M, D]
        self._stored: _Stored | None = None

    def forward(self, item: Tensor, user: Tensor) -> Tensor:
        """How familiar the memory is with items ``[B, F]`` and users ``[B]``, both ids; ``[B, signals]``, no gradient.

        For each read, all of order 1: the projection on what is written of the pair, which grows with how often the
        pair was written; its logarithm; the cosine, which tells the pair's share of its cell; and the answer's length.

        Raises:
            TypeError, ValueError: ids are not int64, not of these shapes, or, which only a CPU looks at, outside their
                feature.
        """
        self._check_ids(item, user)
        rows = item.shape[0]  # len() would fix it in an export
        if self.marginals:
            item, user = self._with_any(item, user)
        with torch.no_grad():
            target = self._target(item, user)
            answer = self._read(item, user).to(target.dtype)
            if self.unseen is not None:
                answer = answer * self._is_known(item, user).unsqueeze(-1)
            if self.read_out == "answer":
                return answer.reshape(rows, self.signals)
            projection = (answer * target).mean(-1)  # a code is of signs: its square is 1 everywhere
            length = answer.square().mean(-1).sqrt()
            cosine = projection / length.clamp_min(1e-6)
            signals = (2 * projection, torch.log1p(10 * projection.clamp_min(0)), 3 * cosine, 2 * length)
            told = torch.stack(signals, dim=-1)
            if self.read_out == "both":
                told = torch.cat((told, answer), dim=-1)
            return told.reshape(rows, self.signals)

    @property
    def signals(self) -> int:
        """Numbers that a read gives the tower."""
        width = self.memory.values.shape[1]
        told = {"familiarity": self.SIGNALS, "answer": width, "both": self.SIGNALS + width}[self.read_out]
        return told * len(self.offsets) * (2 if self.marginals else 1)

    def losses(self, item: Tensor, user: Tensor) -> MemoryLosses:
        """What events teach the memory: the loss of the answer against the target, 0 without events.

        Args:
            item: ``[P, F]`` ids of the items.
            user: ``[P]`` ids of the users.

        Raises:
            TypeError, ValueError: as :meth:`forward`.
        """
        self._check_ids(item, user)
        if self.marginals:
            item, user = self._with_any(item, user)
        target = self._target(item, user)
        if len(item) == 0:
            return MemoryLosses(target.sum(), None)
        answer = self._read(item, user, counted=True).to(target.dtype)
        if self.unseen is not None:
            known = self._is_known(item, user)
            answer, target = answer[known], target[known]
            if len(target) == 0:
                return MemoryLosses(answer.sum(), None)
        return MemoryLosses(LOSSES[self.loss](answer, target), None)

    def cells(self, item: Tensor, user: Tensor) -> Cells:
        """Slots and weights of items ``[R, F]`` and users ``[R]``; with marginals a last column 0 is any item.

        Raises:
            ValueError: flat keys are not as many as the slots, because the memory has grown.
        """
        if self.flat_keys is not None:
            return self._flat_cells(item, user, self.flat_keys)
        N, K = self.memory.keys.shape[2], self.memory.top_k
        rows = item + self.offsets[: item.shape[1]]  # [R, F]
        ids = {"item": rows, "user": user.unsqueeze(1).expand_as(rows)}
        halves = [(stored, ids[of]) for of, stored in zip(_HALVES[self.address], self._lists(), strict=True)]
        first, second = (stored.keys[of] for stored, of in halves)  # each [R, F, K]
        if K == 1 and self.activation == "softmax":  # the weight is 1 whatever the scores
            slots = first * N + second
            return Cells(slots, torch.ones_like(slots, dtype=self.item_codes.dtype))
        first_scores, second_scores = (stored.scores[of] for stored, of in halves)
        sums = first_scores.unsqueeze(-1) + second_scores.unsqueeze(-2)  # [R, F, K, K]
        scores, pairs = sums.flatten(2).topk(K, dim=-1)  # [R, F, K]
        slots = first.gather(2, pairs.div(K, rounding_mode="floor")) * N
        return Cells(slots + second.gather(2, pairs % K), activate(scores, self.activation))

    @torch.no_grad()
    def _flat_cells(self, item: Tensor, user: Tensor, keys: Tensor) -> Cells:
        """The K best of all M keys for each bound code."""
        if len(keys) != len(self.memory.values):
            raise ValueError(
                f"FactoredMemoryNetwork: a memory with keys 'flat' cannot grow, got {len(keys)} keys for "
                f"{len(self.memory.values)} slots"
            )
        codes = self._codes_of(item, user)
        bound = (codes["item"] * codes["user"]).flatten(0, 1)  # [R * F, D]
        found = best_keys(bound, keys, self.memory.top_k, self.metric)
        return Cells(
            found.keys.unflatten(0, item.shape), activate(found.scores, self.activation).unflatten(0, item.shape)
        )

    def _check_ids(self, item: Tensor, user: Tensor) -> None:
        for name, ids in (("item", item), ("user", user)):
            if ids.dtype != torch.int64:
                raise TypeError(f"FactoredMemoryNetwork: {name} must be int64, got {ids.dtype}")
        features = len(self.item_sizes)
        if item.ndim != 2 or item.shape[1] != features:
            raise ValueError(f"FactoredMemoryNetwork: item must be [B, F = {features}], got {list(item.shape)}")
        if user.ndim != 1 or user.shape[0] != item.shape[0]:
            raise ValueError(f"FactoredMemoryNetwork: user must be [B = {len(item)}], got {list(user.shape)}")
        if item.device.type != "cpu" or torch.compiler.is_compiling():
            return  # to look would be to wait for the device
        for name, ids, size in (("item", item, self.item_sizes), ("user", user, self.any_user)):
            if not torch.equal(ids % size, ids):
                wrong = (ids % size != ids).nonzero()[0]
                feature = f" of feature {int(wrong[1])}" if name == "item" else ""
                most = self.item_sizes[wrong[1]] if name == "item" else size
                raise ValueError(
                    f"FactoredMemoryNetwork: {name} must hold ids in [0, {int(most)}){feature}, "
                    f"got {int(ids[tuple(wrong)])}"
                )

    def _with_any(self, item: Tensor, user: Tensor) -> tuple[Tensor, Tensor]:
        """Pairs ``[2 R, F + 1]`` and ``[2 R]``: of each row those with the user, then those with any user."""
        item = F.pad(item, (0, 1)).repeat_interleave(2, dim=0)
        return item, torch.stack((user, torch.full_like(user, self.any_user)), dim=1).flatten()

    def _is_known(self, item: Tensor, user: Tensor) -> Tensor:
        """Bool ``[R, F]``: neither half of a pair is the id of the unseen. Any item and any user are known."""
        known = item != self.unseen
        if self.marginals:
            known[:, -1] = True  # any item
        return known & (user != self.unseen).unsqueeze(1)

    def _read(self, item: Tensor, user: Tensor, counted: bool = False) -> Tensor:
        """``[R, F, D]`` in the type of the values."""
        slots, weights = self.cells(item, user)
        usage = self.memory.usage
        if usage is not None and self.training and counted:
            queries = None if usage.sub_key_reads is None else self._queries(item, user)  # what reseeding asks for
            usage.record(slots.flatten(0, 1).unsqueeze(1), queries)
        answer = gather_aggregate(
            self.memory.values,
            slots.flatten(0, 1),
            weights.flatten(0, 1),
            sparse_grad=self.memory.sparse_grad,
            backend=self.memory.backend,
        )
        return answer.unflatten(0, slots.shape[:2])

    def _codes_of(self, item: Tensor, user: Tensor) -> dict[str, Tensor]:
        """Codes of items and of users, each ``[R, F, D]``."""
        items = self.item_codes[item + self.offsets[: item.shape[1]]]
        return {"item": items, "user": self.user_codes[user].unsqueeze(1).expand_as(items)}

    def _target(self, item: Tensor, user: Tensor) -> Tensor:
        codes = self._codes_of(item, user)
        if self.target == "bound":
            return codes["item"] * codes["user"]  # [R, F, D]
        half = self.item_codes.shape[1] // 2
        return torch.cat((codes["item"][..., :half], codes["user"][..., :half]), dim=-1)

    def _queries(self, item: Tensor, user: Tensor) -> Tensor:
        """``[R * F, 1, 2, D]``, for reseeding.

        Raises:
            ValueError: the keys are flat, so that there are no sub-keys to move.
        """
        if self.flat_keys is not None:
            raise ValueError("reseed_every must not be set for a memory with keys = 'flat': it has no sub-keys to move")
        codes = self._codes_of(item, user)
        return torch.stack([codes[of] for of in _HALVES[self.address]], dim=2).flatten(0, 1).unsqueeze(1)

    def _lists(self) -> tuple[StoredLists, StoredLists]:
        """The stored lists of the ids that each half comes from, made anew when the sub-keys have changed.

        Raises:
            RuntimeError: in ``torch.export``, which would have to make them at each call, if they are not made yet.
        """
        of = (self.memory.keys, self.memory.asleep)
        if torch.compiler.is_exporting():  # what stands for the parameters has no state
            if self._stored is None or self._stored.state != _state(*self._stored.of):
                raise RuntimeError(
                    "FactoredMemoryNetwork: call the network once before torch.export, to make its lists"
                )
            return self._stored.lists
        state = _state(*of)
        if self._stored is None or self._stored.state != state:
            codes = {"item": self.item_codes, "user": self.user_codes}
            first, second = (
                best_keys(codes[half], keys, self.memory.top_k, self.metric, asleep=asleep)
                for half, keys, asleep in zip(_HALVES[self.address], *(each[0] for each in of), strict=True)
            )
            self._stored = _Stored(of, state, (first, second))
        return self._stored.lists

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._stored = None  # codes may be others, and with assign=True all tensors


def _codes(ids: int, width: int) -> Tensor:
    return torch.randint(2, (ids, width)).mul_(2).sub_(1).to(torch.get_default_dtype())
