"""Forward-mode AD and ``torch.func``: what works gives the numbers of a loop, what does not raises."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, linearize, vjp, vmap

from lmn_kernels import gather_aggregate, memory_lookup, product_key_topk
from lmn_kernels.testing import make_bag_inputs, make_memory_inputs
from lmn_model import FactoredMemoryNetwork, MemoryLayer

Scalar = Callable[[Tensor], Tensor]


def scalar_of(op: str, backend: str, device: torch.device) -> tuple[Scalar, Tensor]:
    """A function of one floating input of an op, and that input."""
    queries, keys, table = make_memory_inputs(3, 2, 4, 3, 5, device=device)
    values, slots, weights = make_bag_inputs(3, 4, 9, 5, device=device)
    functions: dict[str, tuple[Scalar, Tensor]] = {
        "gather_aggregate of values": (lambda x: gather_aggregate(x, slots, weights, backend=backend), values),
        "gather_aggregate of weights": (lambda x: gather_aggregate(values, slots, x, backend=backend), weights),
        "product_key_topk of queries": (lambda x: product_key_topk(x, keys, 2, backend=backend).scores, queries),
        "product_key_topk of keys": (lambda x: product_key_topk(queries, x, 2, backend=backend).scores, keys),
        "memory_lookup of queries": (lambda x: memory_lookup(x, keys, table, 2, backend=backend).output, queries),
        "memory_lookup of keys": (lambda x: memory_lookup(queries, x, table, 2, backend=backend).weights, keys),
        "memory_lookup of values": (lambda x: memory_lookup(queries, keys, x, 2, backend=backend).output, table),
    }
    function, x = functions[op]
    return lambda x: function(x).square().sum(), x


OPS = [
    "gather_aggregate of values",
    "gather_aggregate of weights",
    "product_key_topk of queries",
    "product_key_topk of keys",
    "memory_lookup of queries",
    "memory_lookup of keys",
    "memory_lookup of values",
]


def tangent_of(function: Scalar, x: Tensor) -> Tensor | None:
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(x, torch.ones_like(x))
        return forward_ad.unpack_dual(function(dual)).tangent


FORWARD: dict[str, Callable[[Scalar, Tensor], object]] = {
    "forward_ad": tangent_of,
    "forward_ad of a leaf": lambda function, x: tangent_of(function, x.requires_grad_()),
    "jvp": lambda function, x: jvp(function, (x,), (torch.ones_like(x),)),
    "jacfwd": lambda function, x: jacfwd(function)(x),
    "jvp of vmap": lambda function, x: jvp(vmap(function), (torch.stack((x, x)),), (torch.ones(2, *x.shape),)),
    "linearize": lambda function, x: linearize(function, x),
    "compiled jvp": lambda function, x: torch.compile(
        lambda x: jvp(function, (x,), (torch.ones_like(x),)), backend="eager"
    )(x),
}


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("transform", FORWARD)
def test_forward_mode_is_refused(transform: str, op: str, backend: str, device: torch.device) -> None:
    torch.compiler.reset()
    with pytest.raises(NotImplementedError, match=f"^{op.split()[0]}: there is no forward-mode derivative"):
        FORWARD[transform](*scalar_of(op, backend, device))


REVERSE: dict[str, Callable[[Scalar, Tensor], object]] = {
    "grad": lambda function, x: grad(function)(x),
    "vjp": lambda function, x: vjp(function, x),
    "jacrev": lambda function, x: jacrev(function)(x),
    "hessian": lambda function, x: hessian(function)(x),
    "vmap of grad": lambda function, x: vmap(grad(function))(torch.stack((x, x))),
    "grad of vmap": lambda function, x: grad(lambda x: vmap(function)(torch.stack((x, x))).sum())(x),
}


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("transform", REVERSE)
def test_gradients_of_torch_func_are_refused(transform: str, op: str, backend: str, device: torch.device) -> None:
    with pytest.raises(NotImplementedError, match=rf"^{op.split()[0]}: torch\.func\.grad, vjp, jacrev and hessian are"):
        REVERSE[transform](*scalar_of(op, backend, device))


@pytest.mark.parametrize("op", OPS)
def test_vmap_gives_what_a_loop_gives(op: str, backend: str, device: torch.device) -> None:
    function, x = scalar_of(op, backend, device)
    batch = torch.stack((x, 2 * x, x.flip(0)))
    torch.testing.assert_close(vmap(function)(batch), torch.stack([function(each) for each in batch]))


def test_an_input_that_is_not_differentiated_passes_through_transforms() -> None:
    values, slots, weights = make_bag_inputs(3, 4, 9, 5)
    out = gather_aggregate(values, slots, weights)
    assert torch.equal(grad(lambda x: (gather_aggregate(values, slots, weights) * x).sum())(torch.ones(3, 5)), out)
    _, tangent = jvp(lambda x: gather_aggregate(values, slots, weights) * x, (out,), (torch.ones(3, 5),))
    assert torch.equal(tangent, out)


def test_a_read_without_a_gradient_passes_through_grad() -> None:
    values, slots, weights = make_bag_inputs(3, 4, 9, 5)

    def loss(x: Tensor) -> Tensor:
        with torch.no_grad():
            read = gather_aggregate(x, slots, weights)
        return (x.sum(0) * read).sum()

    assert torch.equal(grad(loss)(values), gather_aggregate(values, slots, weights).sum(0).expand(9, 5))


def test_functional_call_trains_by_autograd() -> None:
    layer = MemoryLayer(5, 4, sub_keys=4, top_k=2, value_std=1.0)
    parameters = {name: each.detach().clone().requires_grad_() for name, each in layer.named_parameters()}
    x = torch.randn(7, 5)
    loss = functional_call(layer, parameters, (x,)).square().sum()
    grads = torch.autograd.grad(loss, list(parameters.values()))
    expected = torch.autograd.grad(layer(x).square().sum(), list(layer.parameters()))
    for one, other in zip(grads, expected, strict=True):
        torch.testing.assert_close(one.to_dense(), other.to_dense())


def test_a_factored_memory_read_in_forward_mode_is_refused() -> None:
    network = FactoredMemoryNetwork([30, 6], 11, code_dim=8, sub_keys=4)
    ids = torch.zeros(5, 2, dtype=torch.int64), torch.zeros(5, dtype=torch.int64)
    values = network.block.values.detach()
    with pytest.raises(NotImplementedError, match="no forward-mode derivative"):
        jvp(lambda x: functional_call(network, {"block.values": x}, ids), (values,), (torch.ones_like(values),))
