"""Embeddings of categorical features, a table each, and their gradient on a CPU.

The gradient of a table is the sum of what comes back for each id. On a CPU ``torch.nn.Embedding`` walks over all ids
for it, one short row at a time. Where PyTorch has FBGEMM (x86), ``index_add`` sorts the ids first and is about twice as
fast. In float32 and float64 the sums are the same to the last bit; in narrower types they are nearer the truth, for
their partial sums are not rounded to the type.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lmn_kernels.checks import check_int, check_number
from lmn_model.data import CategoricalFeature
from lmn_model.data.features import FIRST_OPEN, UNSEEN
from lmn_model.modules.parametrized import current
from lmn_model.modules.resetting import EmbeddingTable


class FeatureEmbedding(nn.Module):
    """One table for each categorical feature; concatenates their rows. Id 0, padding, is zeros and has no gradient.

    An open id has the row of the unseen. On a CPU the rows are taken from the tables' weights: hooks on a table do not
    run.

    Args:
        features: what is embedded; ids run from 0 to ``feature.size - 1``.
        width: columns of one feature's embedding.
        std: standard deviation of the embeddings at the start.
        open_ids: take open ids.
    """

    def __init__(
        self, features: tuple[CategoricalFeature, ...], width: int, std: float, open_ids: bool = False
    ) -> None:
        super().__init__()
        self.open_ids = open_ids
        width = check_int("FeatureEmbedding", "width", width, low=1)
        std = check_number("FeatureEmbedding", "std", std, low=0)
        self.tables = nn.ModuleList(
            EmbeddingTable(check_int("FeatureEmbedding", "size", each.size, low=1), width, padding_idx=0)
            for each in features
        )
        self.width = width * len(features)
        for table in self.tables:
            table.std = std
            table.reset_parameters()  # type: ignore[operator]

    def reset_parameters(self) -> None:
        """Draw all tables as the constructor does, which draws each twice."""
        for table in self.tables:
            nn.Embedding.reset_parameters(table)  # type: ignore[arg-type]
        for table in self.tables:
            table.reset_parameters()  # type: ignore[operator]

    def forward(self, ids: Tensor) -> Tensor:
        """``[..., F]`` ids to ``[..., F * width]``; open ids, from ``FIRST_OPEN`` on, have the row of ``UNSEEN``.

        Raises:
            IndexError: on a CPU, an id is outside its table.
        """
        if not self.tables:
            return ids.new_zeros(*ids.shape[:-1], 0, dtype=torch.float32)
        if self.open_ids:
            ids = torch.where(ids < FIRST_OPEN, ids, UNSEEN)
        if ids.device.type == "cpu":
            return _Rows.apply(ids, *[current(table, "weight") for table in self.tables])  # type: ignore[no-any-return]
        return torch.cat([table(ids[..., place]) for place, table in enumerate(self.tables)], dim=-1)


class _Rows(torch.autograd.Function):
    """Rows of tables side by side: ids ``[..., F]`` and F tables ``[V_f, width]`` to ``[..., F * width]``."""

    @staticmethod
    def forward(ids: Tensor, *tables: Tensor) -> Tensor:
        flat = ids.reshape(-1, len(tables)).unbind(1)
        rows = torch.cat([table.index_select(0, each) for table, each in zip(tables, flat, strict=True)], dim=1)
        return rows.view(*ids.shape[:-1], rows.shape[1])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ids, *tables = inputs
        ctx.save_for_backward(ids)
        ctx.sizes = [table.shape for table in tables]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (ids,) = ctx.saved_tensors
        flat = ids.reshape(-1, len(ctx.sizes)).unbind(1)
        parts = grad.reshape(-1, grad.shape[-1]).split([width for _, width in ctx.sizes], dim=1)
        sums: list[Tensor | None] = []
        for each, part, size, needed in zip(flat, parts, ctx.sizes, ctx.needs_input_grad[1:], strict=True):
            if not needed:
                sums.append(None)
                continue
            total = part.new_zeros(size).index_add(0, each, part.contiguous())
            total[0] = 0  # padding
            sums.append(total)
        return None, *sums
