"""Growing a trained memory from N to 2 N sub-keys on each axis without changing its read-outs.

The new sub-keys are inactive, so every query finds the slots it found before, under their new numbers, with the same
weights but for the rounding of a matrix product of another size. :func:`lmn_model.modules.reseeding.reseed` activates
them in turn, at recent queries, and then the new three quarters of the slots begin to be written.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.utils import swap_tensors

from lmn_kernels import huge_zeros
from lmn_model.modules.parametrized import require_parameters
from lmn_model.modules.product_key_memory import ProductKeyMemory
from lmn_model.modules.usage import MemoryUsage


@torch.no_grad()
def grow(layer: ProductKeyMemory, optimizers: Iterable[torch.optim.Optimizer] = ()) -> None:
    """Double the sub-keys of each axis in place: N * N slots become 4 * N * N, slot i * N + j becomes i * 2 N + j.

    The parameters stay the same objects with new, larger data, so references to them stay valid; the state that
    ``optimizers`` have for them grows alike. While a table grows, the old and the new one are in memory together, five
    quarters of the new.

    Args:
        layer: to grow; its gradients are dropped.
        optimizers: those of the layer's keys and values.

    Raises:
        RuntimeError: keys or values are computed from other parameters, or a graph of an earlier forward pass is still
            alive, whose gradients would have the old shape; nothing has changed then.

    Example:
        >>> from lmn_model import MemoryLayer
        >>> layer = MemoryLayer(8, 4, sub_keys=16, top_k=2)
        >>> x = torch.randn(5, 8)
        >>> before = layer(x).detach()
        >>> grow(layer)
        >>> layer.values.shape
        torch.Size([1024, 4])
        >>> torch.allclose(layer(x), before)
        True
    """
    require_parameters("grow", layer, "keys", "values")
    N = layer.keys.shape[2]
    layer.keys.grad = layer.values.grad = None
    keys = nn.Parameter(_widen(layer.keys.detach()), requires_grad=layer.keys.requires_grad)
    values = nn.Parameter(
        _spread(layer.values.detach(), N, layer.initial_values(4 * N * N)), requires_grad=layer.values.requires_grad
    )
    swap_tensors(layer.values, values)
    try:
        swap_tensors(layer.keys, keys)
    except RuntimeError:
        swap_tensors(layer.values, values)
        raise
    for optimizer in optimizers:
        for state, name, value in _state_tensors(optimizer, layer.keys):
            if value.shape == keys.shape:
                state[name] = _widen(value)
        for state, name, value in _state_tensors(optimizer, layer.values):
            if value.shape[:1] == values.shape[:1]:
                start = huge_zeros(4 * N * N, *value.shape[1:], dtype=value.dtype, device=value.device)
                if initial := _initial_state(optimizer, layer.values, name):
                    start.fill_(initial)
                state[name] = _spread(value, N, start)
    layer.inactive = torch.cat((layer.inactive, torch.ones_like(layer.inactive)), dim=2)
    layer.refresh_inactive()
    if layer.usage is not None:
        layer.usage = _grown_usage(layer.usage)


def _state_tensors(optimizer: torch.optim.Optimizer, parameter: Tensor) -> list[tuple[dict[str, Tensor], str, Tensor]]:
    state = optimizer.state.get(parameter, {})
    return [(state, name, value) for name, value in state.items() if isinstance(value, Tensor)]


def _initial_state(optimizer: torch.optim.Optimizer, parameter: Tensor, name: str) -> float:
    """The state ``name`` of a new row: 0 but for the accumulators of RowAdagrad and of torch's Adagrad."""
    for group in optimizer.param_groups:
        if name in ("total", "sum") and any(each is parameter for each in group["params"]):
            return float(group.get("initial_accumulator_value", 0.0))
    return 0.0


def _grown_usage(usage: MemoryUsage) -> MemoryUsage:
    N = usage.sub_keys
    grown = MemoryUsage(2 * N, usage.heads, usage.slot_reads.device, by_sub_key=usage.sub_key_reads is not None)
    state = usage.state()
    for name in ("slot_reads", "last_read"):
        state[name] = _spread(state[name], N, getattr(grown, name).to(state[name].dtype))
    if usage.sub_key_reads is not None:
        state["sub_key_reads"] = torch.cat((usage.sub_key_reads, torch.zeros_like(usage.sub_key_reads)), dim=2)
    grown.load_state(state)
    grown.queries = usage.queries
    return grown


def _widen(keys: Tensor) -> Tensor:
    """``[H, 2, N, C]`` with N rows of zeros behind."""
    return torch.cat((keys, torch.zeros_like(keys)), dim=2)


def _spread(rows: Tensor, N: int, into: Tensor) -> Tensor:
    """Copy rows ``[N * N, ...]`` to their places among ``[4 * N * N, ...]``."""
    into.view(2 * N, 2 * N, *rows.shape[1:])[:N, :N] = rows.view(N, N, *rows.shape[1:])
    return into
