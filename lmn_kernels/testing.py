"""What tests of an op need: inputs, an oracle of the selection, plain torch formulas and the error bound.

The oracle shares no code with the ops: NumPy, the full product of both axes, a sort by the contract's keys. The plain
formulas are what one would write without this library. In float64 they are the truth; an op may err twice as much as
they do in its own type.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .dtypes import accumulator


class RouterInputs(NamedTuple):
    """``queries [B, H, 2, C]`` and ``keys [H, 2, N, C]``."""

    queries: Tensor
    keys: Tensor


class BagInputs(NamedTuple):
    """``values [M, D]``, ``slots [B, L]`` and ``weights [B, L]``."""

    values: Tensor
    slots: Tensor
    weights: Tensor


class MemoryInputs(NamedTuple):
    """``queries [B, H, 2, C]``, ``keys [H, 2, N, C]`` and ``values [N * N, D]``."""

    queries: Tensor
    keys: Tensor
    values: Tensor


def make_router_inputs(
    B: int,
    H: int,
    N: int,
    C: int,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    ties: bool = False,
    requires_grad: bool = False,
    seed: int = 0,
) -> RouterInputs:
    """Random queries and keys, the same for the same arguments on every device.

    Args:
        B, H, N, C: sizes, see :class:`RouterInputs`.
        dtype: type of both.
        device: device of both.
        ties: draw integers of -2 to 2, so that sums are exact and many scores are equal.
        requires_grad: make both leaves that need a gradient.
        seed: of the draws.
    """
    generator = torch.Generator().manual_seed(seed)
    shapes = ((B, H, 2, C), (H, 2, N, C))
    return RouterInputs(*(_draw(shape, generator, dtype, device, ties, requires_grad) for shape in shapes))


def make_bag_inputs(
    B: int,
    L: int,
    M: int,
    D: int,
    *,
    dtype: torch.dtype = torch.float32,
    weights_dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    ties: bool = False,
    requires_grad: bool = False,
    seed: int = 0,
) -> BagInputs:
    """Random values, slots and weights, the same for the same arguments on every device.

    Args:
        B, L, M, D: sizes, see :class:`BagInputs`.
        dtype: type of the values.
        weights_dtype: type of the weights, by default that of the values.
        device: device of all.
        ties: draw integers of -2 to 2 for values and weights, so that sums are exact in any order.
        requires_grad: make values and weights leaves that need a gradient.
        seed: of the draws.
    """
    generator = torch.Generator().manual_seed(seed)
    values = _draw((M, D), generator, dtype, device, ties, requires_grad)
    weights = _draw((B, L), generator, weights_dtype or dtype, device, ties, requires_grad)
    return BagInputs(values, torch.randint(max(M, 1), (B, L), generator=generator).to(device), weights)


def make_memory_inputs(
    B: int,
    H: int,
    N: int,
    C: int,
    D: int,
    *,
    dtype: torch.dtype = torch.float32,
    values_dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    ties: bool = False,
    requires_grad: bool = False,
    seed: int = 0,
) -> MemoryInputs:
    """Random queries, keys and values; arguments as for :func:`make_router_inputs` and :func:`make_bag_inputs`."""
    router = make_router_inputs(
        B, H, N, C, dtype=dtype, device=device, ties=ties, requires_grad=requires_grad, seed=seed
    )
    generator = torch.Generator().manual_seed(seed + 1)
    values = _draw((N * N, D), generator, values_dtype or dtype, device, ties, requires_grad)
    return MemoryInputs(*router, values)


def brute_force_topk(queries: Tensor, keys: Tensor, k: int, metric: str = "dot") -> tuple[Tensor, Tensor]:
    """Scores and slots ``[B, H, K]`` of the K best of all N * N pairs, on the device of ``queries``.

    Order: on an axis higher score, NaN last, lower index; over pairs higher sum, NaN last, lower rank on axis 0, lower
    rank on axis 1; -inf wins over +inf; a NaN that is chosen comes back as -inf. The scores are those of the ops, bit
    by bit, wherever the dot products are exact.
    """
    wide = np.float64 if accumulator(queries.dtype) == torch.float64 else np.float32
    tensors = [x.detach().to(accumulator(x.dtype)) for x in (queries, keys)]
    q, s = (x.cpu().numpy() for x in tensors)
    # torch takes the roots: on some CPUs its float32 ones differ from NumPy's in the last bit.
    q_norm, s_norm = (np.maximum(x.square().sum(-1).sqrt().cpu().numpy(), wide(1e-12)) for x in tensors)
    B, H = q.shape[:2]
    scores, slots = np.empty((B, H, k), dtype=wide), np.empty((B, H, k), dtype=np.int64)
    with np.errstate(all="ignore"):
        for b, h in np.ndindex(B, H):
            first, second = (
                _axis_scores(q[b, h, axis], s[h, axis], q_norm[b, h, axis], s_norm[h, axis], metric) for axis in (0, 1)
            )
            sums = np.add.outer(first, second)  # [N, N]
            sums[np.isneginf(first)[:, None] & ~np.isnan(second)] = -np.inf
            sums[~np.isnan(first)[:, None] & np.isneginf(second)] = -np.inf
            undefined = np.isnan(sums)
            ranks = np.broadcast_arrays(_ranks(first)[:, None], _ranks(second)[None, :])
            by = (ranks[1], ranks[0], np.where(undefined, 0, -sums), undefined)  # the last one decides first
            chosen = np.lexsort([part.ravel() for part in by])[:k]
            scores[b, h] = np.where(undefined, -np.inf, sums).ravel()[chosen]
            slots[b, h] = chosen
    return torch.from_numpy(scores).to(queries.device), torch.from_numpy(slots).to(queries.device)


def score_slots(queries: Tensor, keys: Tensor, slots: Tensor, metric: str = "dot") -> Tensor:
    """Scores ``[B, H, K]`` of given slots by the textbook formula, differentiable in plain torch.

    Sums and results are in float32, or float64 for float64 inputs.
    """
    dtype = accumulator(queries.dtype)
    N = keys.shape[2]
    heads = torch.arange(keys.shape[0], device=keys.device)[:, None]
    total = torch.zeros((), dtype=dtype, device=queries.device)
    for axis, sub_keys in enumerate((slots // N, slots % N)):
        query = queries[:, :, axis, None].to(dtype)  # [B, H, 1, C]
        key = keys[heads, axis, sub_keys].to(dtype)  # [B, H, K, C]
        if metric == "cosine":
            query, key = F.normalize(query, dim=-1), F.normalize(key, dim=-1)
        total = total + (-(query - key).square() if metric == "l2" else query * key).sum(-1)
    return total


def sum_rows(values: Tensor, slots: Tensor, weights: Tensor) -> Tensor:
    """``sum_l weights[b, l] * values[slots[b, l]]``, ``[B, D]``, differentiable in plain torch; wide sums."""
    dtype = accumulator(values.dtype, weights.dtype)
    rows = values[slots.long()].to(dtype)  # [B, L, D]
    return (rows * weights.to(dtype).unsqueeze(-1)).sum(1).to(values.dtype)


def grads_of(output: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    """Gradients of a fixed weighted sum of ``output`` by each of ``inputs``; the graph is kept.

    The weights differ from element to element, so that a gradient sent to the wrong place shows.
    """
    weights = torch.arange(1, output.numel() + 1, device=output.device, dtype=torch.float64).cos()
    return torch.autograd.grad(output, inputs, weights.view(output.shape).to(output.dtype), retain_graph=True)


def assert_within_reference_error(
    actual: Tensor, reference: Tensor, truth: Tensor, *, eps_band: float = 2.0, name: str = "output"
) -> None:
    """Raise ``AssertionError`` unless ``actual`` errs at most twice as much as ``reference``, plus a band.

    Args:
        actual: the op's result.
        reference: that of plain torch in the same type.
        truth: that of plain torch in float64, all finite.
        eps_band: width of the band, in units of the type's eps times the largest true element.
        name: what to call it in the message.

    Raises:
        AssertionError: the largest error is above that bound or not finite, or a shape or type differs.
        ValueError: ``truth`` is not finite, so there is nothing to compare with.
    """
    if actual.shape != truth.shape or actual.dtype != reference.dtype:
        raise AssertionError(
            f"{name}: expected {reference.dtype} {list(truth.shape)}, got {actual.dtype} {list(actual.shape)}"
        )
    if not bool(truth.isfinite().all()):
        raise ValueError(f"{name}: truth must be finite")
    if truth.numel() == 0:
        return
    error, allowed = (float((x.detach().double() - truth.detach()).abs().max()) for x in (actual, reference))
    bound = 2 * allowed + eps_band * torch.finfo(actual.dtype).eps * float(truth.detach().abs().max())
    if not error <= bound:
        raise AssertionError(f"{name}: error {error:.3e} is above {bound:.3e}; plain torch errs by {allowed:.3e}")


def _draw(
    shape: tuple[int, ...],
    generator: torch.Generator,
    dtype: torch.dtype,
    device: torch.device | str,
    ties: bool,
    requires_grad: bool,
) -> Tensor:
    if ties:
        drawn = torch.randint(-2, 3, shape, generator=generator).to(torch.float64)
    else:
        drawn = torch.randn(shape, generator=generator, dtype=torch.float64)
    return drawn.to(device, dtype).requires_grad_(requires_grad)


def _axis_scores(query: Any, keys: Any, query_norm: Any, key_norms: Any, metric: str) -> Any:
    """Scores ``[N]`` of one query half ``[C]`` against ``keys [N, C]``, in their type."""
    dots = (keys * query).sum(-1)
    if metric == "dot":
        return dots
    if metric == "l2":
        return 2 * dots - np.square(keys).sum(-1) - np.square(query).sum()
    one = query.dtype.type(1)
    return dots * (one / query_norm) * (one / key_norms)


def _ranks(scores: Any) -> Any:
    """Place of each of ``[N]`` in the order of its axis."""
    undefined = np.isnan(scores)
    order = np.lexsort([np.arange(len(scores)), np.where(undefined, 0, -scores), undefined])
    ranks = np.empty(len(scores), dtype=np.int64)
    ranks[order] = np.arange(len(scores))
    return ranks
