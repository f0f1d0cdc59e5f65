"""A product-key memory as a layer: one line in any torch model.

It owns the sub-keys and the values and makes the queries; everything else is ``lmn_kernels.memory_lookup``. A sub-key
may sleep: it ranks below every other until ``reseeding`` wakes it, which is how a memory grows without a jump.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lmn_kernels import MemoryLookup, huge_zeros, memory_lookup
from lmn_kernels.activation import ACTIVATIONS
from lmn_kernels.backend import check_backend
from lmn_kernels.checks import check_choice, check_flag, check_int, check_number
from lmn_kernels.dtypes import FLOATS, names
from lmn_kernels.product_key_topk.metric import METRICS
from lmn_model.modules.finite import check_finite as check_rows
from lmn_model.modules.parametrized import ParametrizationDict, draw, refuse_hooks
from lmn_model.modules.resetting import PairMap
from lmn_model.modules.usage import MemoryUsage

_NAME = "MemoryLayer"


class MemoryLayer(nn.Module):
    """Read ``out_features`` numbers for each input from ``sub_keys ** 2`` learnable slots.

    The query is a linear map of the input with a LayerNorm for each half and head; the read-out is the weighted sum of
    the ``top_k`` best slots of each head. The values take a coalesced sparse gradient, so that a step costs what it
    touches: give :meth:`values_parameters` to an optimiser of ``lmn_kernels.optim`` (or to ``torch.optim.SparseAdam``,
    ``Adagrad`` or ``SGD``), or pass ``sparse_grad=False`` and use any.

    Args:
        in_features: width of the input; None for a layer without a query map, which :meth:`look_up` alone can read.
        out_features: width D of the output.
        sub_keys: N, sub-keys on each axis; the memory has M = N * N slots.
        top_k: K, slots read by each head, 1 to N.
        key_dim: C, width of one query half.
        heads: H, independent routers over the one value table.
        concat_heads: concatenate the heads' read-outs, each D / H wide, instead of adding them.
        metric: ``"dot"``, ``"cosine"`` or ``"l2"``.
        activation: ``"softmax"``, ``"sigmoid"`` or ``"relu"``.
        value_std: standard deviation of the initial values; 0 makes a slot that nobody wrote read as zero.
        value_dtype: type of the value table; None for torch's default. Read-outs have the type of the input.
        sparse_grad: see above.
        backend: ``"auto"``, ``"triton"`` or ``"torch"``.
        check_finite: refuse inputs and queries with NaN or infinity. Without it a row with NaN reads some slots all the
            same, for NaN scores rank last, and its gradient turns the query map and the keys into NaN while the loss
            stays finite. The check waits for the device and breaks a graph of ``torch.compile``.
        device: of the layer; None for torch's default.

    Attributes:
        keys: sub-keys ``[H, 2, N, C]``.
        values: table ``[N * N, D]``.
        asleep: bool ``[H, 2, N]``, sub-keys that no query can choose, none at first; K of an axis must be awake.
        usage: counts the reads in training mode if it is set; see :class:`MemoryUsage`.

    Sizes may be NumPy's numbers; the layer keeps plain ones.

    Raises:
        TypeError: a size is no integer, ``value_std`` no number, or a flag no bool.
        ValueError: a size is out of range, a choice is unknown, or ``concat_heads`` and ``heads`` does not divide
            ``out_features``.

    Source: Lample et al. 2019, arXiv 1907.05242; memory block of LMN, arXiv 2502.05558.

    Example:
        >>> layer = MemoryLayer(32, 16, sub_keys=64, top_k=8)
        >>> layer(torch.randn(5, 10, 32)).shape
        torch.Size([5, 10, 16])
    """

    def __init__(
        self,
        in_features: int | None,
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
        super().__init__()
        if in_features is not None:
            in_features = check_int(_NAME, "in_features", in_features, low=0)
        out_features = check_int(_NAME, "out_features", out_features, low=0)
        sub_keys = check_int(_NAME, "sub_keys", sub_keys, low=1)
        key_dim = check_int(_NAME, "key_dim", key_dim, low=1)
        heads = check_int(_NAME, "heads", heads, low=1)
        top_k = check_int(_NAME, "top_k", top_k)
        concat_heads = check_flag(_NAME, "concat_heads", concat_heads)
        sparse_grad = check_flag(_NAME, "sparse_grad", sparse_grad)
        self.check_finite = check_flag(_NAME, "check_finite", check_finite)
        value_std = check_number(_NAME, "value_std", value_std, low=0)
        check_choice(_NAME, "metric", metric, METRICS)
        check_choice(_NAME, "activation", activation, ACTIVATIONS)
        check_backend(_NAME, backend)
        if value_dtype is not None and value_dtype not in FLOATS:
            raise ValueError(f"MemoryLayer: value_dtype must be {names(FLOATS)} or None, got {value_dtype}")
        if not 1 <= top_k <= sub_keys:
            raise ValueError(f"MemoryLayer: top_k must lie in [1, sub_keys = {sub_keys}], got {top_k}")
        if concat_heads and out_features % heads:
            raise ValueError(f"MemoryLayer: heads must divide out_features = {out_features}, got {heads}")
        self.heads, self.top_k, self.concat_heads = heads, top_k, concat_heads
        self.metric, self.activation, self.sparse_grad, self.backend = metric, activation, sparse_grad, backend
        self.query = None if in_features is None else nn.Linear(in_features, heads * 2 * key_dim, device=device)
        self.norm = None if in_features is None else nn.LayerNorm(key_dim, device=device)
        self.keys = nn.Parameter(torch.empty(heads, 2, sub_keys, key_dim, device=device))
        width = out_features // heads if concat_heads else out_features
        self.values = nn.Parameter(huge_zeros(sub_keys**2, width, dtype=value_dtype, device=device))
        self.asleep: Tensor
        self.register_buffer("asleep", torch.zeros(heads, 2, sub_keys, dtype=torch.bool, device=device))
        self.usage: MemoryUsage | None = None
        self.value_std = value_std
        self._reset_router()
        if value_std:  # zeros that nobody writes take no memory
            self.reset_values()

    def reset_parameters(self) -> None:
        """Draw the query map and the keys, empty the memory, activate all sub-keys, and set ``usage`` to no reads.

        Under one seed the layer is then, bit for bit, what its constructor makes of its present sizes.
        """
        if self.query is not None:
            nn.Linear.reset_parameters(self.query)  # a new layer draws its map twice
        self._reset_router()
        self.reset_values()
        self.asleep.zero_()
        if self.usage is not None:
            self.usage.reset()
        if isinstance(self.query, PairMap):
            self.query.reset_parameters()

    def _reset_router(self) -> None:
        if self.query is not None and self.norm is not None:
            nn.Linear.reset_parameters(self.query)
            self.norm.reset_parameters()
        draw(self, "keys", self.keys.shape[-1] ** -0.5)

    def reset_values(self) -> None:
        """Empty the memory: values as at the start, everything else as it is."""
        draw(self, "values", self.value_std)

    def initial_values(self, rows: int) -> Tensor:
        """``[rows, D]`` as a slot is at the start."""
        values = huge_zeros(rows, self.values.shape[1], dtype=self.values.dtype, device=self.values.device)
        return values.normal_(std=self.value_std) if self.value_std else values

    def values_parameters(self) -> list[nn.Parameter]:
        """The parameters that take a sparse gradient; empty if ``sparse_grad`` is off, or the values are computed."""
        return [self.values] if self.sparse_grad and "values" in self._parameters else []

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
            check_rows(_NAME, "x", x)
        queries = self.queries(x)
        found = self._look_up(queries)
        if self.usage is not None and self.training:
            self.usage.record(found.slots, queries)
        return found

    def queries(self, x: Tensor) -> Tensor:
        """Queries ``[B, H, 2, C]`` of ``x [B, in_features]``.

        Raises:
            RuntimeError: the layer has no query map.
        """
        if self.query is None or self.norm is None:
            raise RuntimeError("MemoryLayer: in_features is None, so there is no query map; give queries to look_up")
        H, _, _, C = self.keys.shape
        queries: Tensor = self.norm(self.query(x).view(-1, H, 2, C)).to(self.keys.dtype)
        return queries

    def look_up(self, queries: Tensor) -> MemoryLookup:
        """As :meth:`read`, of queries ``[B, H, 2, C]``, without counting."""
        refuse_hooks(self, "keys", "values")
        return self._look_up(queries)

    def _look_up(self, queries: Tensor) -> MemoryLookup:
        if self.check_finite:
            check_rows(_NAME, "queries", queries)
        keys = self.keys.masked_fill(self.asleep.unsqueeze(-1), torch.nan)  # NaN ranks below every score
        values = self.values
        if not self.concat_heads:
            return self._lookup(queries, keys, values)
        reads = [self._lookup(queries[:, h : h + 1], keys[h : h + 1], values) for h in range(len(keys))]
        return MemoryLookup(
            torch.cat([read.output for read in reads], dim=1),
            torch.cat([read.slots for read in reads], dim=1),
            torch.cat([read.weights for read in reads], dim=1),
        )

    def _lookup(self, queries: Tensor, keys: Tensor, values: Tensor) -> MemoryLookup:
        return memory_lookup(
            queries,
            keys,
            values,
            self.top_k,
            metric=self.metric,
            activation=self.activation,
            sparse_grad=self.sparse_grad and values.is_leaf,  # what values are computed from takes dense gradients
            backend=self.backend,
        )

    def __setattr__(self, name: str, value: object) -> None:
        if name == "parametrizations" and type(value) is nn.ModuleDict:
            value = ParametrizationDict()  # torch sets an empty one, which would refuse the names of our tensors
        super().__setattr__(name, value)

    def extra_repr(self) -> str:
        H, _, N, C = self.keys.shape
        read = f"top_k={self.top_k}, heads={H}, key_dim={C}, metric={self.metric}, activation={self.activation}"
        return f"slots={N * N}, value_dim={self.values.shape[1]}, {read}"
