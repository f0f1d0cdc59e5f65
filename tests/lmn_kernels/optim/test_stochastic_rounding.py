"""Stochastic rounding: unbiased, between the two neighbours, and the same whoever computes it."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from lmn_kernels.optim import RowSGD
from lmn_kernels.optim.rounding import random_bits, round_stochastically

TYPES = [torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("value", [1.0011, -0.3337, 3.3e-5, 1e-6, 123.456, 2e-8])
def test_mean_of_many_roundings_is_the_value(dtype: torch.dtype, value: float) -> None:
    count = 100_000
    bits = random_bits(5, 1, torch.arange(count // 100), 100)
    rounded = round_stochastically(torch.full((count // 100, 100), value), dtype, bits).double()
    exact = float(torch.tensor(value))
    below, above = rounded.min().item(), rounded.max().item()
    assert below <= exact <= above
    assert len(rounded.unique()) == 2
    up = (exact - below) / (above - below)
    sigma = (above - below) * math.sqrt(up * (1 - up) / count)
    assert abs(rounded.mean().item() - exact) <= 3 * sigma


@pytest.mark.parametrize("dtype", TYPES)
def test_what_the_type_holds_stays(dtype: torch.dtype) -> None:
    exact = torch.tensor([0.0, 1.0, -2.5, 0.125, float("inf"), float("-inf"), float("nan"), 6.103515625e-05, 2.0**-24])
    exact = exact.repeat(50, 1)
    rounded = round_stochastically(exact, dtype, random_bits(0, 1, torch.arange(50), exact.shape[1]))
    assert torch.equal(rounded.float().nan_to_num(7.0), exact.nan_to_num(7.0))


def test_every_subnormal_stays_whatever_the_bits() -> None:
    exact = (torch.arange(1025) * 2.0**-24).expand(2, -1)
    bits = torch.tensor([[-1], [0]], dtype=torch.int32).expand(2, 1025)
    assert torch.equal(round_stochastically(exact, torch.float16, bits).float(), exact)


@pytest.mark.parametrize("dtype", TYPES)
def test_numbers_whose_nearest_is_finite_stay_finite(dtype: torch.dtype) -> None:
    largest = torch.finfo(dtype).max
    near = torch.tensor([[largest * (1 + 2**-13), largest, -largest * (1 + 2**-13)]])
    assert torch.equal(near.to(dtype).float(), torch.tensor([[largest, largest, -largest]]))
    for bits in (-1, 0, 1 << 30):
        rounded = round_stochastically(near, dtype, torch.full((1, 3), bits, dtype=torch.int32))
        assert torch.equal(rounded, near.to(dtype))


def test_bits_depend_on_everything_and_on_nothing_else() -> None:
    slots = torch.tensor([0, 1, 5, 2**33 + 5])
    bits = random_bits(3, 9, slots, 16)
    assert torch.equal(bits[[2, 0]], random_bits(3, 9, slots[[2, 0]], 16))
    assert torch.equal(bits[:, :7], random_bits(3, 9, slots, 7))
    others = [random_bits(4, 9, slots, 16), random_bits(3 + 2**32, 9, slots, 16), random_bits(3, 10, slots, 16)]
    others += [bits.roll(1, 0), bits.roll(1, 1)]
    for other in others:
        assert (other == bits).sum() <= 1


def test_bits_are_even_and_unrelated() -> None:
    bits = random_bits(1, 2, torch.arange(2000), 64)
    planes = torch.stack([(bits >> place) & 1 for place in range(32)]).double()  # [32, 2000, 64]
    sigma = 0.5 / math.sqrt(planes[0].numel())
    assert ((planes.mean((1, 2)) - 0.5).abs() < 5 * sigma).all()
    signs = 2 * planes - 1
    neighbours = [(signs[:, :, 1:] * signs[:, :, :-1]).mean((1, 2)), (signs[:, 1:] * signs[:, :-1]).mean((1, 2))]
    neighbours += [(signs[1:] * signs[:-1]).mean((1, 2))]
    later = 2 * torch.stack([(random_bits(1, 3, torch.arange(2000), 64) >> place) & 1 for place in range(32)]) - 1
    neighbours += [(signs * later).mean((1, 2))]
    for relation in neighbours:
        assert (relation.abs() < 5 * 2 * sigma).all()


def test_same_result_on_each_backend_and_in_any_order(backend: str, device: torch.device) -> None:
    slots = torch.tensor([4, 0, 2, 9], device=device)
    gradient = torch.randn(4, 24, device=device).bfloat16()
    results = []
    for order in ([0, 1, 2, 3], [3, 1, 0, 2]):
        table = nn.Parameter(torch.linspace(-2, 2, 240, device=device).view(10, 24).bfloat16())
        optimizer = RowSGD([table], lr=2.0**-9, seed=11, backend=backend)
        for _ in range(2):
            table.grad = torch.sparse_coo_tensor(slots[order][None], gradient[order], (10, 24), check_invariants=True)
            optimizer.step()
        results.append(table.detach().clone())
    assert torch.equal(*results)
    reference = nn.Parameter(torch.linspace(-2, 2, 240).view(10, 24).bfloat16())
    optimizer = RowSGD([reference], lr=2.0**-9, seed=11, backend="torch")
    for _ in range(2):
        reference.grad = torch.sparse_coo_tensor(slots.cpu()[None], gradient.cpu(), (10, 24), check_invariants=True)
        optimizer.step()
    assert torch.equal(results[0].cpu(), reference)  # a power of two for lr: the sums before rounding are equal


@pytest.mark.parametrize("dtype", TYPES)
def test_small_updates_add_up(dtype: torch.dtype) -> None:
    """4,000 updates of 1e-4 / 4: lost one by one when rounded to the nearest, kept on average otherwise."""
    ends = {}
    for stochastic in (True, False):
        table = nn.Parameter(torch.ones(1, 512, dtype=dtype))
        optimizer = RowSGD([table], lr=2.5e-5, stochastic_rounding=stochastic)
        gradient = torch.sparse_coo_tensor([[0]], torch.ones(1, 512, dtype=dtype), (1, 512), check_invariants=True)
        for _ in range(4000):
            table.grad = gradient
            optimizer.step()
        ends[stochastic] = table.float().mean().item()
    assert ends[True] == pytest.approx(0.9, abs=0.002)
    assert ends[False] == 1.0
