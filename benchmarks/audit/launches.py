"""The kernel launches that the ops make for a problem size, recorded without running them and without a GPU.

The launchers run on meta tensors, so no memory is needed either; what is recorded is what they would launch.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from contextlib import contextmanager

import torch

import lmn_kernels
from benchmarks.kernels.shapes import Shape
from lmn_kernels.gather_aggregate.triton import (
    launch_gather_aggregate,
    launch_touched_rows,
    launch_values_backward,
    launch_weights_backward,
)
from lmn_kernels.launch import Launch, record_launches
from lmn_kernels.optim.rounding import Rounding
from lmn_kernels.optim.triton import launch_adagrad, launch_adam, launch_sgd
from lmn_kernels.product_key_topk.triton import launch_product_key_topk, launch_product_key_topk_backward

Launches = dict[str, list[Launch]]


def collect_launches(
    shape: Shape, dtype: torch.dtype, metric: str = "dot", activation: str | None = "softmax", *, amd: bool = False
) -> Launches:
    """Record every launch of the forward and backward passes at ``shape``, all tensors but the scores in ``dtype``,
    as they would be on an NVIDIA or an ``amd`` GPU.

    Returns:
        Launches by part: ``router`` (to weights by ``activation``, or to scores where that is None),
        ``router_backward``, ``bag``, ``bag_backward`` (with the dense and with the sparse gradient of the values) and
        ``optimizer`` (each of them, on as many rows as there are entries).
    """
    B, H, C, N, K, D = shape.B, shape.H, shape.C, shape.N, shape.K, shape.D
    with torch.device("meta"):
        queries = torch.empty(B, H, 2, C, dtype=dtype)
        keys = torch.empty(H, 2, N, C, dtype=dtype)
        values = torch.empty(shape.slots, D, dtype=dtype)
        grad = torch.empty(B, D, dtype=dtype)
    parts: Launches = {}
    with _part(parts, "router", amd):
        weights, slots = launch_product_key_topk(queries, keys, K, metric, activation)
    with _part(parts, "router_backward", amd):
        launch_product_key_topk_backward(weights, queries, keys, slots, weights, metric, activation, (True, True))
    bag_slots, bag_weights = slots.flatten(1), weights.flatten(1)
    with _part(parts, "bag", amd):
        launch_gather_aggregate(values, bag_slots, bag_weights)
    with _part(parts, "bag_backward", amd):
        launch_weights_backward(grad, values, bag_slots, weights.dtype)
        for table in (None, values):  # the values' gradient alone, and the weights' with it
            arguments = (grad, bag_slots, bag_weights, shape.slots, dtype, table)
            launch_values_backward(*arguments)
            launch_touched_rows(*arguments, padded=True)  # otherwise it counts rows on the host, for like launches
    with torch.device("meta"):
        rows = (values, bag_slots.reshape(-1), torch.empty(bag_slots.numel(), D, dtype=dtype))
        state = torch.float64 if dtype == torch.float64 else torch.float32
        moments, row_state = torch.empty(shape.slots, D, dtype=state), torch.empty(shape.slots, dtype=state)
        step, lr = torch.empty((), dtype=torch.int64), torch.empty((), dtype=state)
    rounding = Rounding.of({"stochastic_rounding": True, "seed": 0}, dtype)
    with _part(parts, "optimizer", amd):
        launch_adagrad(*rows, row_state, step, lr, 1e-10, 0.0, rounding)
        for square in (moments, row_state):
            launch_adam(*rows, moments, square, step, lr, (0.9, 0.999), 1e-8, 0.0, rounding)
        launch_sgd(*rows, moments, step, lr, 0.9, True, 0.1, rounding)
    return parts


def kernel_names() -> list[str]:
    """The names of all Triton kernels in ``lmn_kernels``: the audit must have compiled each of them."""
    names = set()
    for info in pkgutil.walk_packages(lmn_kernels.__path__, f"{lmn_kernels.__name__}."):
        if "triton" in info.name.split("."):
            names |= {name for name in vars(importlib.import_module(info.name)) if _is_kernel_name(name)}
    return sorted(names)


@contextmanager
def _part(parts: Launches, name: str, amd: bool) -> Iterator[None]:
    with record_launches(amd=amd) as launches:
        yield
    parts[name] = launches


def _is_kernel_name(name: str) -> bool:
    return name.startswith("_") and name.endswith("_kernel")
