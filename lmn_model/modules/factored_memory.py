"""The Large Memory Network with a factored query: half of an address from the item, half from the user.

The joint query of the paper mixes item and user before it makes either half, and its embeddings keep training: what was
written early has another address later. Here half 0 comes from a feature of the item alone and half 1 from the user
alone, so a slot stands for a group of items and a group of users. Both come from *codes*: random signs, one vector for
each id, that never change. So an address is permanent, the best sub-keys of every id are found once and stored, and a
read costs a gather.

Each event of a history is written once, when it is new, for each feature of its item: as (product, user), as (category,
user) and so on. The memory loss writes the *bound* code, item * user. In a slot that many pairs share their bound codes
add up. They are nearly orthogonal, so the projection on one of them still estimates how often that pair was written,
with a noise of sqrt(others / D), and a table holds many more pairs than it has slots.

How often a pair is expected depends on how common the item is and how busy the user. With ``marginals`` an event is
also written as (product, any user) and (any item, user), and a read has these counts beside the pair's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lmn_kernels import AxisTopK, combine_axes, gather_aggregate
from lmn_kernels.activation import ACTIVATIONS, activate
from lmn_kernels.checks import check_choice, check_flag, check_int
from lmn_kernels.exported import exported
from lmn_model.modules.codes import IdCodes, draw_codes, id_offsets
from lmn_model.modules.familiarity import pair_familiarity
from lmn_model.modules.hashing import hashed_signs
from lmn_model.modules.large_memory_network import LOSSES, MemoryLosses
from lmn_model.modules.old_names import rename_entries
from lmn_model.modules.pair_ids import checked_ids, checked_sizes, known_pairs, with_marginals
from lmn_model.modules.parametrized import current
from lmn_model.modules.product_key_memory import ProductKeyMemory
from lmn_model.modules.stored_lists import ListStore, best_sub_keys
from lmn_model.modules.tensor_state import has_data

_NAME = "FactoredMemoryNetwork"
_ANY_USER = torch.iinfo(torch.int64).min
"""Stands for any user where all other integers may be ids."""


@exported
class PairSlots(NamedTuple):
    """The slots of pairs: slots ``[R, F, K]`` int64 and their weights ``[R, F, K]``."""

    slots: Tensor
    weights: Tensor


class FactoredMemoryNetwork(nn.Module):
    """Memory with a factored query, fixed codes and bound targets. See docs/guides/recommender.md.

    Ids run from 0 to a size - 1 and are fixed for good; with ``open_ids`` any other integer is an id too. Without it
    the range of ids is not checked on a GPU, and in ``torch.compile`` and ``torch.export``: an id out of range reads
    and writes the slots of another, or fails in the indexing.

    Args:
        item_sizes: how many ids each of the F features of an item has, the item's own id among them; each feature is
            read and written for itself. With ``open_ids`` the codes and lists of so many are stored; 0 stores none.
        user_size: how many ids users have; the same.
        code_dim: width of a code, D = C.
        sub_keys: N. The more pairs share one of the N * N slots, the more noise: sqrt(others / D) of one write.
        marginals: write and read the pairs with any user and any item too.
        open_ids: take any integer as an id, such as a hash of a name: an id beyond a size has a hash of itself for a
            code, and its sub-keys are found when it is read or written. On a GPU it waits for the device.
        activation: what makes weights of the K scores: ``"softmax"``, ``"sigmoid"`` or ``"relu"``.
        unseen: the id shared by all values that training had no id for, of users and of item features; None if there
            is none. Pairs with this id are never written and read as zeros.
        sparse_grad: give the values a sparse gradient, of the rows that were written; see :meth:`values_parameters`.
        top_k: K, slots of a read. One is best where nothing but the values trains: a pair has one place then.
        value_dtype: type of the value table. To cast the whole module, by ``.bfloat16()``, moves a few per cent of the
            addresses, and what was written there is lost.
        backend: ``"auto"``, ``"triton"`` or ``"torch"``.
        device: of the network; None for torch's default.

    Attributes:
        block: the sub-keys and values, a :class:`ProductKeyMemory` with cosine scores.
        halves: what each half of an address comes from.

    Raises:
        TypeError: ``item_sizes`` is no sequence of integers, another size is no integer, or a flag no bool.
        ValueError: a size is out of range, or an option is unknown.

    Source: the memory block, the memory loss and the user-aware query of Lu et al. 2025, arXiv 2502.05558. Ours: the
    factored query, codes instead of embeddings, writing an event once, and binding by the elementwise product, which
    is that of Gayler 2003 (multiply-add-permute; arXiv cs/0412059).
    """

    SIGNALS = 4
    halves: tuple[str, ...] = ("item", "user")
    loss = "smooth_l1"

    def __init__(
        self,
        item_sizes: Sequence[int],
        user_size: int,
        *,
        code_dim: int = 64,
        marginals: bool = True,
        open_ids: bool = False,
        activation: str = "softmax",
        unseen: int | None = None,
        sparse_grad: bool = True,
        sub_keys: int = 1024,
        top_k: int = 1,
        value_dtype: torch.dtype | None = None,
        backend: str = "auto",
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self.open_ids = check_flag(_NAME, "open_ids", open_ids)
        low = 0 if open_ids else 1
        item_sizes, user_size, unseen = checked_sizes(item_sizes, user_size, unseen, name=_NAME, low=low)
        code_dim = check_int(_NAME, "code_dim", code_dim, low=1)
        sub_keys = check_int(_NAME, "sub_keys", sub_keys, low=1)
        marginals = check_flag(_NAME, "marginals", marginals)
        check_choice(_NAME, "activation", activation, ACTIVATIONS)
        self.unseen = unseen
        self.block = ProductKeyMemory(
            code_dim,
            sub_keys=sub_keys,
            top_k=top_k,
            key_dim=code_dim,
            metric="cosine",
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
        extra = marginals or open_ids  # a table is never empty
        self.register_buffer("item_codes", draw_codes(sum(item_sizes) + extra, code_dim, device))
        self.register_buffer("user_codes", draw_codes(user_size + extra, code_dim, device))
        self.register_buffer("offsets", id_offsets(item_sizes, marginals, device), persistent=False)
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
        self._stored = ListStore()

    def forward(self, item: Tensor, user: Tensor) -> Tensor:
        """How strongly the pairs of items ``[B, F]`` and users ``[B]``, both ids, were written.

        Returns:
            ``[B, signals]`` without a gradient. Each pair has four numbers of order 1, all 0 where nothing was
            written: 2 p, of the projection p on what is written of the pair, which grows with the steps that wrote it;
            log(1 + 10 p); three times the cosine, which is the pair's share of its slot; twice the read-out's length.
            As ``view(B, 2, F + 1, 4)`` the pairs are: with the user, then with any user; the features, then any item.
            Without ``marginals`` it is ``view(B, F, 4)``.

        Raises:
            TypeError: ids are neither int64 nor int32.
            ValueError: ids are not of these shapes, or, on a CPU, out of range.
        """
        rows = item.shape[0]  # len() would fix it in an export
        item, user = self._pairs(item, user)
        with torch.no_grad():
            target = self._target(item, user)
            output = self._read(item, user).to(target.dtype)
            if self.unseen is not None:
                output = output * known_pairs(item, user, self.unseen, self.marginals).unsqueeze(-1)
            return self._features(output, target).reshape(rows, self.signals)

    def values_parameters(self) -> list[nn.Parameter]:
        """What takes a sparse gradient, for an optimiser of ``lmn_kernels.optim``; nothing else here trains."""
        return self.block.values_parameters()

    def reset_values(self) -> None:
        """Empty the memory, as before another pass over the same events; reset its optimiser's state too."""
        self.block.reset_values()

    @property
    def signals(self) -> int:
        """Numbers that a read gives the tower."""
        return self.SIGNALS * len(self.offsets) * (2 if self.marginals else 1)

    def losses(self, item: Tensor, user: Tensor) -> MemoryLosses:
        """The memory loss of events: that of the read-out against the target, 0 without events.

        A step down its gradient writes them, in evaluation mode too. The first step of RowAdagrad moves a slot by the
        learning rate, whatever the size of its gradient, later ones by their gradient's share in all that came. So
        events of one pair in a step count hardly more than one, and as the loss is a mean, steps should have about
        equally many events.

        Args:
            item: ``[P, F]`` ids of the items.
            user: ``[P]`` ids of the users.

        Raises:
            TypeError, ValueError: as :meth:`forward`.
        """
        item, user = self._pairs(item, user)
        target = self._target(item, user)
        output = self._read(item, user, counted=True).to(target.dtype)
        if self.unseen is not None:
            known = known_pairs(item, user, self.unseen, self.marginals)
            output, target = output[known], target[known]
        if target.shape[0] == 0:
            return MemoryLosses(output.sum(), None)
        return MemoryLosses(LOSSES[self.loss](output, target), None)

    def pair_slots(self, item: Tensor, user: Tensor) -> PairSlots:
        """Slots and weights of items ``[R, F]`` and users ``[R]``; with marginals a last column 0 is any item."""
        N, K = self.block.keys.shape[2], self.block.top_k
        weighted = K > 1 or self.block.activation != "softmax"  # else the weight is 1 whatever the scores
        tables, of = {"item": self.item_codes, "user": self.user_codes}, self._id_codes(item, user)
        lists = self._stored.lists(self.block, [tables[half] for half in self.halves])
        names = ("sub_keys", "scores") if weighted else ("sub_keys",)
        found = [
            self._listed(axis, of[half], stored, names)
            for axis, (half, stored) in enumerate(zip(self.halves, lists, strict=True))
        ]
        if not weighted:
            slots = found[0][0] * N + found[1][0]
            return PairSlots(slots, torch.ones_like(slots, dtype=self.item_codes.dtype))
        best, slots = combine_axes(*(AxisTopK(scores, sub_keys) for sub_keys, scores in found), N)
        return PairSlots(slots, activate(best, self.block.activation))

    def _listed(self, axis: int, of: IdCodes, stored: AxisTopK, names: tuple[str, ...]) -> tuple[Tensor, ...]:
        """Fields ``[R, F, K]`` of the lists of ids, those of open ids made now."""

        def made(keys: Tensor) -> tuple[Tensor, ...]:
            new = best_sub_keys(self.block, axis, hashed_signs(keys, self.item_codes.shape[1]))
            return tuple(getattr(new, name) for name in names)

        return of.replaced(tuple(getattr(stored, name)[of.rows] for name in names), made)

    def _pairs(self, item: Tensor, user: Tensor) -> tuple[Tensor, Tensor]:
        """The pairs that are read or written of ids: themselves, and those with any item or any user."""
        sizes = ((None,) * len(self.item_sizes), None) if self.open_ids else (self.item_sizes, self.user_size)
        item, user = checked_ids(item, user, *sizes, name=_NAME)
        any_user = _ANY_USER if self.open_ids else self.user_size
        readable = user.device.type == "cpu" and not torch.compiler.is_compiling() and has_data(user)
        if self.open_ids and readable and (user == any_user).any():
            raise ValueError(f"{_NAME}: user must be above {any_user}, which is any user, got {any_user}")
        return with_marginals(item, user, any_user) if self.marginals else (item, user)

    def _id_codes(self, item: Tensor, user: Tensor) -> dict[str, IdCodes]:
        """Where the codes of items and of users are, each of ``[R, F]`` ids."""
        offsets, users = self.offsets[: item.shape[1]], user.unsqueeze(1).expand_as(item)
        if not self.open_ids:
            return {"item": IdCodes(item + offsets), "user": IdCodes(users)}
        sizes = (*self.item_sizes, 1)[: item.shape[1]]  # of any item 1
        items = IdCodes.of_items(item, sizes, offsets)
        return {"item": items, "user": IdCodes.of_users(users, self.user_size, _ANY_USER)}

    def _read(self, item: Tensor, user: Tensor, counted: bool = False) -> Tensor:
        """``[R, F, D]`` in the type of the values."""
        slots, weights = self.pair_slots(item, user)
        usage = self.block.usage
        if usage is not None and self.training and counted:
            queries = None if usage.sub_key_reads is None else self._queries(item, user)  # for reseeding
            usage.record(slots.flatten(0, 1).unsqueeze(1), queries)
        values = current(self.block, "values")
        output = gather_aggregate(
            values,
            slots.flatten(0, 1),
            weights.flatten(0, 1),
            sparse_grad=self.block.sparse_grad and values.is_leaf,
            backend=self.block.backend,
        )
        return output.unflatten(0, slots.shape[:2])

    def _codes_of(self, item: Tensor, user: Tensor) -> dict[str, Tensor]:
        """Codes of items and of users, each ``[R, F, D]``."""
        of = self._id_codes(item, user)
        return {"item": of["item"].codes(self.item_codes), "user": of["user"].codes(self.user_codes)}

    def _target(self, item: Tensor, user: Tensor) -> Tensor:
        """What is written of each pair, ``[R, F, D]``."""
        codes = self._codes_of(item, user)
        return codes["item"] * codes["user"]

    def _features(self, output: Tensor, target: Tensor) -> Tensor:
        """What the tower gets of each pair, ``[R, F, 4]``."""
        return pair_familiarity(output, target)

    def _queries(self, item: Tensor, user: Tensor) -> Tensor:
        """``[R * F, 1, 2, D]``, for reseeding."""
        codes = self._codes_of(item, user)
        return torch.stack([codes[half] for half in self.halves], dim=2).flatten(0, 1).unsqueeze(1)

    def extra_repr(self) -> str:
        return f"item_sizes={list(self.item_sizes)}, user_size={self.user_size}, signals={self.signals}"

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        rename_entries(state_dict, prefix, {"memory.": "block."})
        super()._load_from_state_dict(state_dict, prefix, *args)
        self.offsets = id_offsets(self.item_sizes, self.marginals, self.item_codes.device)  # it may be on "meta"
        self._stored = ListStore()
