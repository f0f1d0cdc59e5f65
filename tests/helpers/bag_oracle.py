"""The oracle of ``gather_aggregate``, in loops, and the names of its kernels."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lmn_kernels import gather_aggregate
from lmn_kernels.testing import BagInputs

OPS = torch.ops.lmn_kernels
FORWARD = "_gather_aggregate_fwd_kernel"
BACKWARD_WEIGHTS = "_gather_aggregate_bwd_weights_kernel"
BACKWARD_ENTRIES = "_gather_aggregate_bwd_entries_kernel"
BACKWARD_PARTS = "_gather_aggregate_bwd_parts_kernel"
COUNT_RUNS = "_gather_aggregate_count_runs_kernel"
SORT = {"_gather_aggregate_sort_keys_kernel": 1}
CHUNK = 64  # entries that a program adds before it leaves the rest of a run to another


def loop_over_rows(bag: BagInputs) -> Tensor:
    """The formula, one addition at a time, in float64."""
    values, slots, weights = (x.detach().cpu().double().numpy() for x in bag)
    out = np.zeros((slots.shape[0], values.shape[1]))
    for b, l in np.ndindex(*slots.shape):
        out[b] += weights[b, l] * values[int(slots[b, l])]
    return torch.from_numpy(out)


def loop_over_rows_backward(bag: BagInputs, grad: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of values and weights, one addition at a time, in float64."""
    values, slots, weights = (x.detach().cpu().double().numpy() for x in bag)
    upstream = grad.detach().cpu().double().numpy()
    grad_values, grad_weights = np.zeros_like(values), np.zeros_like(weights)
    for b, l in np.ndindex(*slots.shape):
        grad_values[int(slots[b, l])] += weights[b, l] * upstream[b]
        grad_weights[b, l] = upstream[b] @ values[int(slots[b, l])]
    return torch.from_numpy(grad_values), torch.from_numpy(grad_weights)


def assert_equals_the_loops(bag: BagInputs, *, sparse_grad: bool, backend: str) -> None:
    """Output and both gradients, bit by bit: inputs must be small integers."""
    out = gather_aggregate(*bag, sparse_grad=sparse_grad, backend=backend)
    assert out.dtype == bag.values.dtype
    torch.testing.assert_close(out.cpu().double(), loop_over_rows(bag), rtol=0, atol=0)
    upstream = torch.randint(-2, 3, out.shape, device=out.device).to(out.dtype)
    grads = torch.autograd.grad(out, (bag.values, bag.weights), upstream)
    for grad, like, truth in zip(grads, (bag.values, bag.weights), loop_over_rows_backward(bag, upstream), strict=True):
        assert grad.dtype == like.dtype
        torch.testing.assert_close(grad.to_dense().cpu().double(), truth, rtol=0, atol=0)
