"""A factored memory with the choices that the study has settled: other addresses, targets, read-outs, keys, losses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from benchmarks.study.ablation_options import check_together
from lmn_kernels import axis_topk
from lmn_kernels.activation import activate
from lmn_kernels.checks import check_choice
from lmn_kernels.product_key_topk.metric import METRICS
from lmn_model.modules import FactoredMemoryNetwork
from lmn_model.modules.factored_memory import PairSlots
from lmn_model.modules.large_memory_network import LOSSES

_NAME = "AblatedMemoryNetwork"
HALVES = {"pair": ("item", "user"), "item": ("item", "item"), "user": ("user", "user")}


class AblatedMemoryNetwork(FactoredMemoryNetwork):
    """A factored memory of which one choice or several are others; at the defaults it is the library's, bit for bit.

    Args:
        item_sizes, user_size: as :class:`FactoredMemoryNetwork`.
        address: where the two halves come from: ``"pair"``, item and user; ``"item"`` or ``"user"``, that one alone.
        target: what is written: ``"bound"``, item * user; or ``"pair"``, [item ; user], of each half a code.
        read_out: what a read gives: ``"familiarity"``, the ``"answer"`` itself, or ``"both"``.
        keys: what finds slots: ``"product"``, the best sub-keys of each half; or ``"flat"``, by exact search the best
            for item * user of N * N keys of width D, the buffer ``flat_keys``, to see what product keys cost in
            quality. A flat search uses no sub-keys, so such a memory cannot be reseeded or grown.
        code_metric: score of a key: ``"cosine"``, ``"dot"`` or ``"l2"``, the negative squared distance.
        loss: the memory loss: ``"smooth_l1"`` or ``"mse"``.
        **network: the other arguments of :class:`FactoredMemoryNetwork`.

    Raises:
        TypeError: as :class:`FactoredMemoryNetwork`.
        ValueError: as :class:`FactoredMemoryNetwork`, an option is unknown, ``code_dim`` is odd for ``target="pair"``,
            or with ``keys="flat"`` ``sub_keys`` is above 256 or ``address`` is not ``"pair"``.
    """

    def __init__(
        self,
        item_sizes: Sequence[int],
        user_size: int,
        *,
        address: str = "pair",
        target: str = "bound",
        read_out: str = "familiarity",
        keys: str = "product",
        code_metric: str = "cosine",
        loss: str = "smooth_l1",
        code_dim: int = 64,
        sub_keys: int = 1024,
        **network: Any,
    ) -> None:
        check_choice(_NAME, "address", address, tuple(HALVES))
        check_choice(_NAME, "target", target, ("bound", "pair"))
        check_choice(_NAME, "read_out", read_out, ("familiarity", "answer", "both"))
        check_choice(_NAME, "keys", keys, ("product", "flat"))
        check_choice(_NAME, "code_metric", code_metric, METRICS)
        check_choice(_NAME, "loss", loss, tuple(LOSSES))
        check_together(code_dim=code_dim, target=target, keys=keys, sub_keys=sub_keys, address=address)
        super().__init__(item_sizes, user_size, code_dim=code_dim, sub_keys=sub_keys, **network)
        self.block.metric = code_metric
        self.halves = () if keys == "flat" else HALVES[address]
        self.target, self.read_out, self.loss = target, read_out, loss
        self.flat_keys: Tensor | None
        device = network.get("device")
        flat = draw_keys(torch.empty(sub_keys**2, code_dim, device=device)) if keys == "flat" else None
        self.register_buffer("flat_keys", flat)  # [M, D]

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw sub-keys, codes and flat keys, and empty the memory."""
        super().reset_parameters()
        if self.flat_keys is not None:
            draw_keys(self.flat_keys)

    @property
    def signals(self) -> int:
        """Numbers that a read gives the tower."""
        width = self.block.values.shape[1]
        per_pair = {"familiarity": self.SIGNALS, "answer": width, "both": self.SIGNALS + width}[self.read_out]
        return per_pair * len(self.offsets) * (2 if self.marginals else 1)

    @torch.no_grad()
    def pair_slots(self, item: Tensor, user: Tensor) -> PairSlots:
        """Slots and weights of items ``[R, F]`` and users ``[R]``; with marginals a last column 0 is any item.

        Raises:
            ValueError: flat keys are not as many as the slots, because the memory has grown.
        """
        if self.flat_keys is None:
            return super().pair_slots(item, user)
        if len(self.flat_keys) != len(self.block.values):
            raise ValueError(
                f"{_NAME}: a memory with keys 'flat' cannot grow, got {len(self.flat_keys)} keys for "
                f"{len(self.block.values)} slots"
            )
        codes = self._codes_of(item, user)
        bound = (codes["item"] * codes["user"]).flatten(0, 1)  # [R * F, D]
        found = axis_topk(bound, self.flat_keys, self.block.top_k, metric=self.block.metric)
        weights = activate(found.scores, self.block.activation)
        return PairSlots(found.sub_keys.unflatten(0, item.shape), weights.unflatten(0, item.shape))

    def _target(self, item: Tensor, user: Tensor) -> Tensor:
        if self.target == "bound":
            return super()._target(item, user)
        codes, half = self._codes_of(item, user), self.item_codes.shape[1] // 2
        return torch.cat((codes["item"][..., :half], codes["user"][..., :half]), dim=-1)

    def _features(self, output: Tensor, target: Tensor) -> Tensor:
        if self.read_out == "answer":
            return output
        features = super()._features(output, target)
        return features if self.read_out == "familiarity" else torch.cat((features, output), dim=-1)

    def _queries(self, item: Tensor, user: Tensor) -> Tensor:
        """``[R * F, 1, 2, D]``, for reseeding.

        Raises:
            ValueError: the keys are flat, so that there are no sub-keys to move.
        """
        if self.flat_keys is not None:
            raise ValueError("reseed_every must not be set for a memory with keys = 'flat': it has no sub-keys to move")
        return super()._queries(item, user)


def draw_keys(keys: Tensor) -> Tensor:
    """Draw flat keys ``[M, D]`` in place, as sub-keys are drawn."""
    return keys.normal_().mul_(keys.shape[1] ** -0.5)
