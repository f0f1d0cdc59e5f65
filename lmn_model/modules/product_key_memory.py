"""Sub-keys and values of a product-key memory: what every network with such a memory holds.

A query finds its slots through ``lmn_kernels.memory_lookup``; where queries come from is the network's choice. A
sub-key can be inactive: it ranks below every other until ``reseeding`` activates it, which is how a memory grows
without a jump.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lmn_kernels import MemoryLookup, huge_zeros, memory_lookup
from lmn_kernels.activation import ACTIVATIONS
from lmn_kernels.backend import check_backend
from lmn_kernels.checks import check_choice, check_flag, check_int, check_number
from lmn_kernels.dtypes import FLOATS, names
from lmn_kernels.product_key_topk.metric import METRICS
from lmn_model.modules.finite import check_finite as check_rows
from lmn_model.modules.old_names import rename_entries
from lmn_model.modules.parametrized import ParametrizationDict, draw, refuse_hooks
from lmn_model.modules.tensor_state import EmptyMask
from lmn_model.modules.usage import MemoryUsage


class ProductKeyMemory(nn.Module):
    """``sub_keys ** 2`` learnable slots, found by product keys, for networks that make their own queries.

    :meth:`look_up` reads the weighted sum of the ``top_k`` best slots of each head. The values take a coalesced sparse
    gradient, so that a step costs what it touches: give :meth:`values_parameters` to an optimiser of
    ``lmn_kernels.optim`` (or to ``torch.optim.SparseAdam``, ``Adagrad`` or ``SGD``), or pass ``sparse_grad=False`` and
    use any.

    Args:
        out_features: width D of the read-out.
        sub_keys: N, sub-keys on each axis; the memory has M = N * N slots.
        top_k: K, slots read by each head, 1 to N.
        key_dim: C, width of one query half.
        heads: H, independent routers over the one value table.
        concat_heads: concatenate the heads' read-outs, each D / H wide, instead of adding them.
        metric: ``"dot"``, ``"cosine"`` or ``"l2"``.
        activation: ``"softmax"``, ``"sigmoid"`` or ``"relu"``.
        value_std: standard deviation of the initial values; 0 makes a slot that was never written read as zero.
        value_dtype: type of the value table; None for torch's default.
        sparse_grad: see above.
        backend: ``"auto"``, ``"triton"`` or ``"torch"``.
        check_finite: refuse queries with NaN or infinity. Without it a row with NaN reads some slots all the same, for
            NaN scores rank last, and its gradient turns the keys into NaN while the loss stays finite. The check waits
            for the device and breaks a graph of ``torch.compile``.
        device: of the memory; None for torch's default.

    Attributes:
        keys: sub-keys ``[H, 2, N, C]``.
        values: table ``[N * N, D]``.
        inactive: bool ``[H, 2, N]``, sub-keys that no query can choose, none at first; K of an axis must be active.
        usage: counts the reads in training mode if it is set; see :class:`MemoryUsage`.

    Sizes may be NumPy's numbers; the memory keeps plain ones.

    Raises:
        TypeError: a size is no integer, ``value_std`` no number, or a flag no bool.
        ValueError: a size is out of range, a choice is unknown, or ``concat_heads`` and ``heads`` does not divide
            ``out_features``.

    Notes:
        Write ``inactive`` as you like: every look-up that follows applies it. While the mask is known to be empty, a
        look-up passes the keys on as they are; after a write from outside it copies them with the mask applied, as a
        compiled, exported or CUDA graph always does, until :meth:`refresh_inactive` has read the mask again. Wrapping
        in ``DistributedDataParallel`` is such a write.

    Source: Lample et al. 2019, arXiv 1907.05242; memory block of LMN, arXiv 2502.05558.

    Example:
        >>> memory = ProductKeyMemory(16, sub_keys=64, top_k=8, key_dim=32)
        >>> memory.look_up(torch.randn(5, 1, 2, 32)).output.shape
        torch.Size([5, 16])
    """

    def __init__(
        self,
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
        name = type(self).__name__
        out_features = check_int(name, "out_features", out_features, low=0)
        sub_keys = check_int(name, "sub_keys", sub_keys, low=1)
        key_dim = check_int(name, "key_dim", key_dim, low=1)
        heads = check_int(name, "heads", heads, low=1)
        top_k = check_int(name, "top_k", top_k)
        concat_heads = check_flag(name, "concat_heads", concat_heads)
        sparse_grad = check_flag(name, "sparse_grad", sparse_grad)
        self.check_finite = check_flag(name, "check_finite", check_finite)
        self.value_std = check_number(name, "value_std", value_std, low=0)
        check_choice(name, "metric", metric, METRICS)
        check_choice(name, "activation", activation, ACTIVATIONS)
        check_backend(name, backend)
        if value_dtype is not None and value_dtype not in FLOATS:
            raise ValueError(f"{name}: value_dtype must be {names(FLOATS)} or None, got {value_dtype}")
        if not 1 <= top_k <= sub_keys:
            raise ValueError(f"{name}: top_k must lie in [1, sub_keys = {sub_keys}], got {top_k}")
        if concat_heads and out_features % heads:
            raise ValueError(f"{name}: heads must divide out_features = {out_features}, got {heads}")
        self.heads, self.top_k, self.concat_heads = heads, top_k, concat_heads
        self.metric, self.activation, self.sparse_grad, self.backend = metric, activation, sparse_grad, backend
        self.keys = nn.Parameter(torch.empty(heads, 2, sub_keys, key_dim, device=device))
        width = out_features // heads if concat_heads else out_features
        self.values = nn.Parameter(huge_zeros(sub_keys**2, width, dtype=value_dtype, device=device))
        self.inactive: Tensor
        self.register_buffer("inactive", torch.zeros(heads, 2, sub_keys, dtype=torch.bool, device=device))
        self.usage: MemoryUsage | None = None
        self._no_inactive = EmptyMask()
        self.refresh_inactive()
        self._reset_keys()
        if self.value_std:  # untouched zeros take no memory
            self.reset_values()

    def reset_parameters(self) -> None:
        """Draw the keys, empty the memory, activate all sub-keys, and set ``usage`` to no reads.

        Under one seed the module is then, bit for bit, what its constructor makes of its present sizes.
        """
        self._reset_keys()
        self.reset_values()
        self.inactive.zero_()
        self.refresh_inactive()
        if self.usage is not None:
            self.usage.reset()

    def _reset_keys(self) -> None:
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

    def refresh_inactive(self) -> None:
        """Read once whether any sub-key is inactive, which waits for the device; see the notes of the class."""
        self._no_inactive.read(self.inactive)

    def look_up(self, queries: Tensor) -> MemoryLookup:
        """Output ``[B, out_features]`` of queries ``[B, H, 2, C]``, with its slots and weights ``[B, H, K]``.

        The output has the values' type. Reads are not counted in ``usage``.

        Raises:
            RuntimeError: a hook makes the keys or values when the module is called.
            ValueError: ``check_finite`` is set and ``queries`` holds NaN or infinity.
        """
        refuse_hooks(self, "keys", "values")
        return self._look_up(queries)

    def _look_up(self, queries: Tensor) -> MemoryLookup:
        if self.check_finite:
            check_rows(type(self).__name__, "queries", queries)
        keys, values = self.searched_keys(), self.values
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

    def searched_keys(self) -> Tensor:
        """The keys ``[H, 2, N, C]`` as a look-up searches them: NaN, which ranks below every score, where inactive.

        A graph of ``torch.compile``, ``torch.export`` or CUDA keeps the mask: the buffer may be written before it runs
        again.
        """
        recorded = torch.compiler.is_compiling() or (self.keys.is_cuda and torch.cuda.is_current_stream_capturing())
        if not recorded and self._no_inactive.still_empty(self.inactive):
            return self.keys
        return self.keys.masked_fill(self.inactive.unsqueeze(-1), torch.nan)

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> ProductKeyMemory:
        super()._apply(fn, recurse)  # moves or casts, and so replaces the buffer
        self.refresh_inactive()
        return self

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        rename_entries(state_dict, prefix, {"asleep": "inactive"})  # a former name
        super()._load_from_state_dict(state_dict, prefix, *args)
        self.refresh_inactive()

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.refresh_inactive()

    def __setattr__(self, name: str, value: object) -> None:
        if name == "parametrizations" and type(value) is nn.ModuleDict:
            value = ParametrizationDict()  # torch sets an empty one, which would refuse the names of our tensors
        super().__setattr__(name, value)

    def extra_repr(self) -> str:
        H, _, N, C = self.keys.shape
        read = f"top_k={self.top_k}, heads={H}, key_dim={C}, metric={self.metric}, activation={self.activation}"
        return f"slots={N * N}, value_dim={self.values.shape[1]}, {read}"
