"""The Large Memory Network: one global memory that all users write and read through a user-aware query.

For each position of a history the Smooth L1 memory loss trains the read-out of the query (item_t, user) towards the
embeddings [item_t ; user]. The model reads the memory for (candidate, user). The read-out of a pair that was written is
its own embedding, that of another pair what its neighbours wrote, or zeros. So its distance to the pair's embedding
measures familiarity: how strongly the pair was written, far beyond the history window.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lmn_kernels.checks import check_flag, check_int
from lmn_kernels.exported import exported
from lmn_model.modules.familiarity import embedding_familiarity
from lmn_model.modules.finite import check_finite as check_rows
from lmn_model.modules.memory_layer import MemoryLayer
from lmn_model.modules.old_names import rename_entries
from lmn_model.modules.reseeding import balance_loss
from lmn_model.modules.resetting import PairMap, reset_children

LOSSES = {"smooth_l1": F.smooth_l1_loss, "mse": F.mse_loss}
"""Memory losses by name. Near 0 the gradient of the squared error is twice that of Smooth L1, which is half of it."""


@exported
class MemoryReadOut(NamedTuple):
    """What the memory holds for (item, user).

    Attributes:
        output: ``[B, item_dim + user_dim]``.
        familiarity: ``[B, 6]``: for the item half and for the user half the cosine to its embedding, the
            projection on it (1 = as written, 0 = nothing there) and the distance over its length.
    """

    output: Tensor
    familiarity: Tensor


@exported
class MemoryLosses(NamedTuple):
    """Losses that train a memory, two scalars without their weights.

    Attributes:
        answer: the memory loss: mean over the real positions of loss(read-out of (item_t, user), [item_t ; user]); of a
            factored query, over the events and features, of loss(read-out, item * user).
        balance: see :func:`lmn_model.modules.reseeding.balance_loss`; None unless it was requested.
    """

    answer: Tensor
    balance: Tensor | None


class LargeMemoryNetwork(nn.Module):
    """User-aware memory with its memory loss.

    Args:
        item_dim: width of an item embedding.
        user_dim: width of a user embedding.
        positions: history positions of each row in the memory loss of one step, drawn at random; None for all. The
            loss over a draw costs less and, for rows with as many real positions, has the same expectation.
        balance: compute the balance loss too.
        loss: the memory loss: ``"smooth_l1"`` or ``"mse"``.
        check_finite: refuse embeddings with NaN or infinity, which would turn the query map and the keys into NaN; see
            :class:`MemoryLayer`.
        device: of the network; None for torch's default.
        **memory: settings of :class:`MemoryLayer`.

    Raises:
        TypeError: ``item_dim``, ``user_dim`` or ``positions`` is no integer, or as :class:`MemoryLayer`.
        ValueError: one of them is below 1, ``loss`` is unknown, or as :class:`MemoryLayer`.

    Source: Lu et al. 2025, arXiv 2502.05558 (user-aware query, global memory, Smooth L1 memory loss). Ours: the
    detached target, the draw of positions, the familiarity signals.
    """

    FAMILIARITY = 6

    def __init__(
        self,
        item_dim: int,
        user_dim: int,
        *,
        positions: int | None = None,
        balance: bool = False,
        loss: str = "smooth_l1",
        check_finite: bool = False,
        device: torch.device | str | None = None,
        **memory: object,
    ) -> None:
        super().__init__()
        if loss not in LOSSES:
            raise ValueError(f"LargeMemoryNetwork: loss must be one of {', '.join(LOSSES)}, got {loss!r}")
        item_dim = check_int("LargeMemoryNetwork", "item_dim", item_dim, low=1)
        user_dim = check_int("LargeMemoryNetwork", "user_dim", user_dim, low=1)
        if positions is not None:
            positions = check_int("LargeMemoryNetwork", "positions", positions, low=1)
        balance = check_flag("LargeMemoryNetwork", "balance", balance)
        self.loss = loss
        self.item_dim, self.user_dim, self.positions, self.balance = item_dim, user_dim, positions, balance
        self.check_finite = check_flag("LargeMemoryNetwork", "check_finite", check_finite)
        width = item_dim + user_dim
        self.block = MemoryLayer(width, width, check_finite=check_finite, device=device, **memory)  # type: ignore[arg-type]
        self.block.query = PairMap(self.block.query, item_dim)
        self.block.query.reset_parameters()

    def reset_parameters(self) -> None:
        """Reset the memory; see :meth:`MemoryLayer.reset_parameters`."""
        reset_children(self)

    def forward(self, item: Tensor, user: Tensor) -> MemoryReadOut:
        """Read the memory for items ``[B, item_dim]`` and users ``[B, user_dim]``.

        Raises:
            ValueError: ``check_finite`` is set and an embedding holds NaN or infinity.
        """
        if self.check_finite:
            check_rows("LargeMemoryNetwork", "item", item)
            check_rows("LargeMemoryNetwork", "user", user)
        pair = torch.cat((item, user), dim=-1)
        output = self.block(pair)
        signals: list[Tensor] = []
        sizes = [self.item_dim, self.user_dim]
        for half, embedding in zip(output.split(sizes, -1), pair.detach().split(sizes, -1), strict=True):
            signals += embedding_familiarity(half, embedding)
        return MemoryReadOut(output, torch.stack(signals, dim=-1))

    @property
    def signals(self) -> int:
        """Numbers that a read gives the tower: the read-out and its familiarity."""
        return self.item_dim + self.user_dim + self.FAMILIARITY

    def losses(self, history: Tensor, mask: Tensor, user: Tensor) -> MemoryLosses:
        """The losses of a batch of histories.

        Args:
            history: ``[B, T, item_dim]`` item embeddings.
            mask: ``[B, T]`` bool, True where real; padding has no part in the loss.
            user: ``[B, user_dim]``.

        Returns:
            Scalars; 0 where no position is real.

        Raises:
            ValueError: ``check_finite`` is set and an embedding of a drawn position holds NaN or infinity.
        """
        rows, places = self._drawn(mask)
        items, users = history[rows, places], user[rows]
        if self.check_finite:
            check_rows("LargeMemoryNetwork", "history", items, rows)
            check_rows("LargeMemoryNetwork", "user", users, rows)
        pair = torch.cat((items, users), dim=-1)  # [P, item_dim + user_dim]
        if pair.shape[0] == 0:
            return MemoryLosses(pair.sum(), pair.sum() if self.balance else None)
        found = self.block.read(pair)
        answer = LOSSES[self.loss](found.output.to(pair.dtype), pair.detach())
        return MemoryLosses(answer, balance_loss(found, self.block.keys.shape[2]) if self.balance else None)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        rename_entries(state_dict, prefix, {"memory.": "block."})
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _drawn(self, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Rows and places of the positions in the loss: all real ones, or at most ``positions`` of each row."""
        if self.positions is None or self.positions >= mask.shape[1]:
            return mask.nonzero(as_tuple=True)  # type: ignore[return-value]
        random_priority = torch.rand(mask.shape, device=mask.device).masked_fill_(~mask, -1.0)
        places = random_priority.topk(self.positions, dim=1).indices  # [B, positions]
        rows, columns = mask.gather(1, places).nonzero(as_tuple=True)
        return rows, places[rows, columns]
