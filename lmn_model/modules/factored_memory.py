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
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lmn_kernels import AxisTopK, axis_topk, combine_axes, gather_aggregate
from lmn_kernels.activation import ACTIVATIONS, activate
from lmn_kernels.checks import check_flag, check_int
from lmn_kernels.library import opaque
from lmn_kernels.product_key_topk.metric import METRICS
from lmn_model.modules.codes import Cells, draw_codes, draw_keys, id_offsets
from lmn_model.modules.factored_options import check_together
from lmn_model.modules.large_memory_network import LOSSES, MemoryLosses
from lmn_model.modules.old_names import rename_entries
from lmn_model.modules.pair_ids import checked_ids
from lmn_model.modules.parametrized import current
from lmn_model.modules.product_key_memory import ProductKeyMemory
from lmn_model.modules.stored_lists import ListStore

_NAME = "FactoredMemoryNetwork"
_HALVES = {"pair": ("item", "user"), "item": ("item", "item"), "user": ("user", "user")}
TARGETS = ("bound", "pair")
READ_OUTS = ("familiarity", "answer", "both")
KEYS = ("product", "flat")


class FactoredMemoryNetwork(nn.Module):
    """Memory with a factored query, fixed codes and bound targets. How to train a model with it: docs/own_model.md.

    Ids run from 0 to a size - 1 and are fixed for good, so leave room for those that are to come. On a GPU, and in
    ``torch.compile`` and ``torch.export``, an id out of range is not looked for: it reads and writes another's cell, or
    fails in the indexing.

    Args:
        item_sizes: how many ids each of the F features of an item has, the item's own id among them; each feature is
            read and written for itself.
        user_size: how many ids users have.
        code_dim: width of a code, D = C.
        sub_keys: N. The more pairs share one of the N * N cells, the more noise: sqrt(others / D) of one write.
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
        sparse_grad: give the values a sparse gradient, of the rows that were written; see :meth:`values_parameters`.
        top_k: K, slots of a read. One is best where nothing is learnt but the values: a pair has one place then.
        value_dtype: type of the value table. To cast the whole module, by ``.bfloat16()``, moves a few per cent of the
            addresses, and what was written there is lost.
        backend: ``"auto"``, ``"triton"`` or ``"torch"``.
        device: of the network; None for torch's default.

    Raises:
        TypeError: ``item_sizes`` is no sequence of integers, another size is no integer, or a flag no bool.
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
        sparse_grad: bool = True,
        sub_keys: int = 1024,
        top_k: int = 1,
        value_dtype: torch.dtype | None = None,
        backend: str = "auto",
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        try:
            item_sizes = tuple(check_int(_NAME, "item_sizes", size) for size in item_sizes)
        except TypeError:
            raise TypeError(
                f"FactoredMemoryNetwork: item_sizes must be a list of integers, got {item_sizes!r}"
            ) from None
        code_dim = check_int(_NAME, "code_dim", code_dim, low=1)
        user_size = check_int(_NAME, "user_size", user_size, low=1)
        sub_keys = check_int(_NAME, "sub_keys", sub_keys, low=1)
        marginals = check_flag(_NAME, "marginals", marginals)
        if unseen is not None:
            unseen = check_int(_NAME, "unseen", unseen)
        if min(item_sizes, default=0) < 1:
            raise ValueError(
                f"FactoredMemoryNetwork: item_sizes must hold a size of at least 1 for each feature, got {item_sizes}"
            )
        if unseen is not None and unseen < 0:
            raise ValueError(f"FactoredMemoryNetwork: unseen must be None or at least 0, got {unseen}")
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
        self.block = ProductKeyMemory(
            code_dim,
            sub_keys=sub_keys,
            top_k=top_k,
            key_dim=code_dim,
            metric=code_metric,
            activation=activation,
            value_dtype=value_dtype,
            sparse_grad=sparse_grad,
            backend=backend,
            device=device,
        )
        self.block.keys.requires_grad_(False)
        self.item_sizes, self.user_size, self.marginals = item_sizes, user_size, marginals
        self.item_codes: Tensor
        self.user_codes: Tensor
        self.offsets: Tensor
        # One feature's ids after another's; any item is one more feature, of one id, and any user one more id.
        self.register_buffer("item_codes", draw_codes(sum(item_sizes) + marginals, code_dim, device))
        self.register_buffer("user_codes", draw_codes(user_size + marginals, code_dim, device))
        self.register_buffer("offsets", id_offsets(item_sizes, marginals, device), persistent=False)
        flat = draw_keys(torch.empty(sub_keys**2, code_dim, device=device)) if keys == "flat" else None
        self.flat_keys: Tensor | None
        self.register_buffer("flat_keys", flat)  # [M, D]
        self._stored = ListStore()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw sub-keys and codes, which gives every pair another address, and empty the memory.

        Under one seed the network is then, bit for bit, what its constructor makes of its present sizes.
        """
        self.block.reset_parameters()
        for codes in (self.item_codes, self.user_codes):
            codes.copy_(draw_codes(*codes.shape, codes.device))
        self.offsets.copy_(id_offsets(self.item_sizes, self.marginals, self.offsets.device))
        if self.flat_keys is not None:
            draw_keys(self.flat_keys)
        self._stored = ListStore()

    def forward(self, item: Tensor, user: Tensor) -> Tensor:
        """How familiar the memory is with items ``[B, F]`` and users ``[B]``, both ids.

        Returns:
            ``[B, signals]`` without a gradient. Told of each pair are four numbers of order 1, all 0 where nothing was
            written: 2 p, of the projection p on what is written of the pair, which grows with the steps that wrote it;
            log(1 + 10 p); three times the cosine, which tells the pair's share of its cell; twice the answer's length.
            As ``view(B, 2, F + 1, 4)`` the pairs are: with the user, then with any user; the features, then any item.
            Without ``marginals`` it is ``view(B, F, 4)``. For ``read_out="answer"`` each has the answer, ``[D]``,
            in place of the four, for ``"both"`` after them.

        Raises:
            TypeError: ids are neither int64 nor int32.
            ValueError: ids are not of these shapes, or, on a CPU, out of range.
        """
        item, user = checked_ids(item, user, self.item_sizes, self.user_size)
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

    def values_parameters(self) -> list[nn.Parameter]:
        """What takes a sparse gradient, for an optimiser of ``lmn_kernels.optim``; nothing else here learns."""
        return self.block.values_parameters()

    def reset_values(self) -> None:
        """Empty the memory, as before another pass over the same events; what an optimiser knows of it is then void."""
        self.block.reset_values()

    @property
    def signals(self) -> int:
        """Numbers that a read gives the tower."""
        width = self.block.values.shape[1]
        told = {"familiarity": self.SIGNALS, "answer": width, "both": self.SIGNALS + width}[self.read_out]
        return told * len(self.offsets) * (2 if self.marginals else 1)

    def losses(self, item: Tensor, user: Tensor) -> MemoryLosses:
        """What events teach the memory: the loss of the answer against the target, 0 without events.

        To write them is to go down its gradient, in evaluation mode too. The first step of RowAdagrad moves a slot by
        the learning rate, whatever the size of its gradient, later ones by their gradient's share in all that came. So
        events of one pair in a step count hardly more than one, and as the loss is a mean, steps should have about
        equally many events.

        Args:
            item: ``[P, F]`` ids of the items.
            user: ``[P]`` ids of the users.

        Raises:
            TypeError, ValueError: as :meth:`forward`.
        """
        item, user = checked_ids(item, user, self.item_sizes, self.user_size)
        if self.marginals:
            item, user = self._with_any(item, user)
        target = self._target(item, user)
        answer = self._read(item, user, counted=True).to(target.dtype)
        if self.unseen is not None:
            known = self._is_known(item, user)
            answer, target = answer[known], target[known]
        if target.shape[0] == 0:
            return MemoryLosses(answer.sum(), None)
        return MemoryLosses(LOSSES[self.loss](answer, target), None)

    def cells(self, item: Tensor, user: Tensor) -> Cells:
        """Slots and weights of items ``[R, F]`` and users ``[R]``; with marginals a last column 0 is any item.

        Raises:
            ValueError: flat keys are not as many as the slots, because the memory has grown.
        """
        if self.flat_keys is not None:
            return self._flat_cells(item, user, self.flat_keys)
        N, K = self.block.keys.shape[2], self.block.top_k
        rows = item + self.offsets[: item.shape[1]]  # [R, F]
        ids = {"item": rows, "user": user.unsqueeze(1).expand_as(rows)}
        halves = [(stored, ids[of]) for of, stored in zip(_HALVES[self.address], self._lists(), strict=True)]
        first_keys, second_keys = (stored.sub_keys[of] for stored, of in halves)  # each [R, F, K]
        if K == 1 and self.activation == "softmax":  # the weight is 1 whatever the scores
            slots = first_keys * N + second_keys
            return Cells(slots, torch.ones_like(slots, dtype=self.item_codes.dtype))
        first, second = (AxisTopK(stored.scores[of], stored.sub_keys[of]) for stored, of in halves)
        scores, slots = combine_axes(first, second, N)
        return Cells(slots, activate(scores, self.activation))

    @torch.no_grad()
    def _flat_cells(self, item: Tensor, user: Tensor, keys: Tensor) -> Cells:
        """The K best of all M keys for each bound code."""
        if len(keys) != len(self.block.values):
            raise ValueError(
                f"FactoredMemoryNetwork: a memory with keys 'flat' cannot grow, got {len(keys)} keys for "
                f"{len(self.block.values)} slots"
            )
        codes = self._codes_of(item, user)
        bound = (codes["item"] * codes["user"]).flatten(0, 1)  # [R * F, D]
        found = axis_topk(bound, keys, self.block.top_k, metric=self.metric)
        return Cells(
            found.sub_keys.unflatten(0, item.shape), activate(found.scores, self.activation).unflatten(0, item.shape)
        )

    def _with_any(self, item: Tensor, user: Tensor) -> tuple[Tensor, Tensor]:
        """Pairs ``[2 R, F + 1]`` and ``[2 R]``: of each row those with the user, then those with any user."""
        item = F.pad(item, (0, 1)).repeat_interleave(2, dim=0)
        return item, torch.stack((user, torch.full_like(user, self.user_size)), dim=1).flatten()

    def _is_known(self, item: Tensor, user: Tensor) -> Tensor:
        """Bool ``[R, F]``: neither half of a pair is the id of the unseen. Any item and any user are known."""
        known = item != self.unseen
        if self.marginals:
            known[:, -1] = True  # any item
        return known & (user != self.unseen).unsqueeze(1)

    def _read(self, item: Tensor, user: Tensor, counted: bool = False) -> Tensor:
        """``[R, F, D]`` in the type of the values."""
        slots, weights = self.cells(item, user)
        usage = self.block.usage
        if usage is not None and self.training and counted:
            queries = None if usage.sub_key_reads is None else self._queries(item, user)  # what reseeding asks for
            usage.record(slots.flatten(0, 1).unsqueeze(1), queries)
        values = current(self.block, "values")
        answer = gather_aggregate(
            values,
            slots.flatten(0, 1),
            weights.flatten(0, 1),
            sparse_grad=self.block.sparse_grad and values.is_leaf,
            backend=self.block.backend,
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

    def _lists(self) -> tuple[AxisTopK, ...]:
        # Only the compiler goes through a function that it must leave alone, for each call of one costs time.
        return _lists_outside(self) if torch.compiler.is_dynamo_compiling() else self._current_lists()

    def _current_lists(self) -> tuple[AxisTopK, ...]:
        """The stored lists of the ids that each half comes from, made anew when the sub-keys have changed.

        Raises:
            RuntimeError: in ``torch.export``, which would have to make them at each call, if they are not made yet.
        """
        codes = {"item": self.item_codes, "user": self.user_codes}
        return self._stored.get(
            (current(self.block, "keys"), self.block.inactive, *codes.values()), self.block.top_k, self._make_lists
        )

    @torch.no_grad()
    def _make_lists(self) -> list[AxisTopK]:
        codes, K = {"item": self.item_codes, "user": self.user_codes}, self.block.top_k
        keys = self.block.searched_keys()[0]
        dtype = torch.promote_types(keys.dtype, self.item_codes.dtype)
        return [
            axis_topk(codes[half].to(dtype), keys[axis].to(dtype), K, metric=self.metric)
            for axis, half in enumerate(_HALVES[self.address])
        ]

    def extra_repr(self) -> str:
        return f"item_sizes={list(self.item_sizes)}, user_size={self.user_size}, signals={self.signals}"

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        rename_entries(state_dict, prefix, {"memory.": "block."})
        super()._load_from_state_dict(state_dict, prefix, *args)
        self.offsets = id_offsets(self.item_sizes, self.marginals, self.item_codes.device)  # it may be on "meta"
        self._stored = ListStore()


@opaque  # whether the stored lists are those of the sub-keys is seen from outside a graph
def _lists_outside(network: FactoredMemoryNetwork) -> tuple[AxisTopK, ...]:
    return network._current_lists()
