"""A product-key memory as a layer: one line in any torch model."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lmn_kernels import MemoryLookup
from lmn_kernels.checks import check_int
from lmn_model.modules.finite import check_finite as check_rows
from lmn_model.modules.parametrized import refuse_hooks
from lmn_model.modules.product_key_memory import ProductKeyMemory
from lmn_model.modules.resetting import PairMap


class MemoryLayer(ProductKeyMemory):
    """Read ``out_features`` numbers for each input from ``sub_keys ** 2`` learnable slots.

    The query is a linear map of the input with a LayerNorm for each half and head; everything else is
    :class:`ProductKeyMemory`. Read-outs have the type of the input.

    Args:
        in_features: width of the input.
        check_finite: refuse inputs with NaN or infinity too, whose gradient would turn the query map into NaN.

    The other arguments are those of :class:`ProductKeyMemory`.

    Attributes:
        query: the linear map.
        norm: the LayerNorm, over the C numbers of a half.

    Raises:
        TypeError, ValueError: as :class:`ProductKeyMemory`, and for ``in_features``.

    Source: Lample et al. 2019, arXiv 1907.05242; memory block of LMN, arXiv 2502.05558.

    Example:
        >>> layer = MemoryLayer(32, 16, sub_keys=64, top_k=8)
        >>> layer(torch.randn(5, 10, 32)).shape
        torch.Size([5, 10, 16])
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        sub_keys: int = 1024,
        top_k: int = 32,
        key_dim: int = 64,
        heads: int = 1,
        concat_heads: bool = False,
        metric: str = "dot",
        activation: str = "softmax",
        value_std: float = 0.0,
        value_dtype: torch.dtype | None = None,
        sparse_grad: bool = True,
        backend: str = "auto",
        check_finite: bool = False,
        device: torch.device | str | None = None,
    ) -> None:
        name = type(self).__name__
        in_features = check_int(name, "in_features", in_features, low=0)
        key_dim = check_int(name, "key_dim", key_dim, low=1)
        heads = check_int(name, "heads", heads, low=1)
        query = nn.Linear(in_features, heads * 2 * key_dim, device=device)
        nn.Linear.reset_parameters(query)  # drawn twice and before the keys: seeds keep their results
        super().__init__(
            out_features,
            sub_keys=sub_keys,
            top_k=top_k,
            key_dim=key_dim,
            heads=heads,
            concat_heads=concat_heads,
            metric=metric,
            activation=activation,
            value_std=value_std,
            value_dtype=value_dtype,
            sparse_grad=sparse_grad,
            backend=backend,
            check_finite=check_finite,
            device=device,
        )
        self.query: nn.Linear = query
        self.norm = nn.LayerNorm(key_dim, device=device)

    def reset_parameters(self) -> None:
        """Draw the query map and the keys, empty the memory, activate all sub-keys, and set ``usage`` to no reads.

        Under one seed the layer is then, bit for bit, what its constructor makes of its present sizes.
        """
        for _ in range(2):
            nn.Linear.reset_parameters(self.query)
        self.norm.reset_parameters()
        super().reset_parameters()
        if isinstance(self.query, PairMap):
            self.query.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        """``[..., in_features]`` to ``[..., out_features]``."""
        output = self._read(x.reshape(-1, x.shape[-1])).output
        return output.view(*x.shape[:-1], output.shape[1]).to(x.dtype)

    def read(self, x: Tensor) -> MemoryLookup:
        """Output ``[B, out_features]`` of ``x [B, in_features]``, with its slots and weights ``[B, H, K]``.

        The output has the values' type. In training mode ``usage``, if it is set, counts the read.

        Raises:
            RuntimeError: a hook makes the keys or values when the layer is called.
            ValueError: ``check_finite`` is set and ``x`` holds NaN or infinity.
        """
        refuse_hooks(self, "keys", "values")
        return self._read(x)

    def _read(self, x: Tensor) -> MemoryLookup:
        if self.check_finite:
            check_rows(type(self).__name__, "x", x)
        queries = self.queries(x)
        found = self._look_up(queries)
        if self.usage is not None and self.training:
            self.usage.record(found.slots, queries)
        return found

    def queries(self, x: Tensor) -> Tensor:
        """Queries ``[B, H, 2, C]`` of ``x [B, in_features]``."""
        H, _, _, C = self.keys.shape
        queries: Tensor = self.norm(self.query(x).view(-1, H, 2, C)).to(self.keys.dtype)
        return queries
