"""Collapse control: dead sub-keys move to live queries and are chosen from then on; the balance loss evens use out."""

from __future__ import annotations

import pytest
import torch

from lmn_kernels import MemoryLookup
from lmn_kernels.optim import RowAdagrad
from lmn_model.modules.memory_layer import MemoryLayer
from lmn_model.modules.reseeding import MOVED_AT_ONCE, balance_loss, reseed
from lmn_model.modules.usage import MemoryUsage, evenness

N = 32


def _collapsed(heads: int = 1) -> tuple[MemoryLayer, list[torch.optim.Optimizer], torch.Tensor]:
    """A memory whose sub-keys, but for four of an axis, are far from every query; trained for a few steps."""
    layer = MemoryLayer(6, 5, sub_keys=N, top_k=4, key_dim=4, heads=heads, value_std=0.5, metric="l2")
    layer.usage = MemoryUsage(N, heads)
    with torch.no_grad():
        layer.keys[:, :, 4:] += 100.0
    x = torch.randn(200, 6)
    rows = RowAdagrad([layer.values], lr=0.1)
    dense = torch.optim.Adam([layer.keys, *layer.query.parameters(), *layer.norm.parameters()], lr=1e-3)
    for _ in range(3):
        layer(x).square().sum().backward()
        for each in (rows, dense):
            each.step()
            each.zero_grad()
        layer.usage.advance()
    return layer, [rows, dense], x


@pytest.mark.parametrize("heads", [1, 2])
def test_dead_sub_keys_move_to_live_queries_and_are_read(heads: int) -> None:
    layer, optimizers, x = _collapsed(heads)
    usage = layer.usage
    assert usage is not None
    keys, values = layer.keys.detach().clone(), layer.values.detach().clone()
    queries = usage.queries
    assert queries is not None
    total = optimizers[0].state[layer.values]["total"].clone()
    moved, slots = reseed(layer, usage, optimizers)
    assert (moved.sum(2) == N // MOVED_AT_ONCE).all()
    assert not moved[:, :, :4].any()  # these were read
    assert torch.equal(layer.keys[~moved], keys[~moved])
    for head, axis, sub_key in moved.nonzero().tolist():
        distance = (queries[:, head, axis] - layer.keys[head, axis, sub_key]).abs().sum(1)
        assert distance.min() == 0
    # Slots that a moved sub-key leads to, unless another head reads them, are as new, and so is their state.
    lines = moved.any(0)
    reached = (lines[0][:, None] | lines[1][None, :]).reshape(-1)
    expected = reached & (usage.last_read == 0)
    assert torch.equal(slots, expected.nonzero().squeeze(1))
    assert torch.equal(layer.values[~expected], values[~expected])
    assert not torch.equal(layer.values[expected], values[expected])
    state = optimizers[0].state[layer.values]["total"]
    assert torch.equal(state, total.masked_fill(expected, 0.0))
    for name in ("exp_avg", "exp_avg_sq"):
        moments = optimizers[1].state[layer.keys][name]
        assert not moments[moved].any()
        assert moments[:, :, :4].any()
    assert not usage.sub_key_reads.any()
    layer(x)
    assert (usage.sub_key_reads[moved] > 0).float().mean() > 0.9


def test_reseeding_goes_on_until_nothing_is_dead() -> None:
    layer, optimizers, x = _collapsed()
    usage = layer.usage
    assert usage is not None
    before = int((usage.sub_key_reads > 0).sum())
    for _ in range(2 * MOVED_AT_ONCE):
        reseed(layer, usage, optimizers)
        layer(x)
    after = int((usage.sub_key_reads > 0).sum())
    assert before == 2 * 4
    assert after > 0.8 * 2 * N


def test_nothing_moves_where_everything_is_read_or_nothing_was_asked() -> None:
    layer = MemoryLayer(6, 5, sub_keys=N, top_k=N, key_dim=4)
    keys = layer.keys.detach().clone()
    usage = layer.usage = MemoryUsage(N)
    assert not reseed(layer, usage).sub_keys.any()
    layer(torch.randn(300, 6))
    usage.sub_key_reads += 1
    moved, slots = reseed(layer, usage)
    assert not moved.any()
    assert len(slots) == 0
    assert torch.equal(layer.keys, keys)


def test_reads_of_sub_keys_are_needed() -> None:
    layer = MemoryLayer(6, 5, sub_keys=N, top_k=4, key_dim=4)
    with pytest.raises(ValueError, match="reseed: usage must count by sub-key, got one with by_sub_key=False"):
        reseed(layer, MemoryUsage(N, by_sub_key=False))


def test_balance_loss_is_the_squared_coefficient_of_variation() -> None:
    H, n = 2, 5
    slots = torch.randint(n * n, (7, H, 3))
    weights = torch.rand(7, H, 3, dtype=torch.float64)
    losses = []
    for head in range(H):
        for axis in range(2):
            mass = torch.zeros(n, dtype=torch.float64)
            for row in range(7):
                for k in range(3):
                    slot = int(slots[row, head, k])
                    mass[slot // n if axis == 0 else slot % n] += weights[row, head, k]
            losses.append(mass.var(correction=0) / mass.mean() ** 2)
    found = balance_loss(MemoryLookup(torch.empty(0), slots, weights), n)
    torch.testing.assert_close(found, torch.stack(losses).mean())
    weights.requires_grad_()
    assert torch.autograd.gradcheck(lambda w: balance_loss(MemoryLookup(torch.empty(0), slots, w), n), (weights,))


def test_balance_loss_of_nothing_is_0_and_of_one_is_the_most() -> None:
    none = balance_loss(MemoryLookup(torch.empty(0), torch.zeros(0, 1, 3, dtype=torch.int64), torch.zeros(0, 1, 3)), 4)
    assert none == 0
    one = balance_loss(MemoryLookup(torch.empty(0), torch.zeros(9, 1, 1, dtype=torch.int64), torch.ones(9, 1, 1)), 4)
    assert one == 3


def test_training_on_the_balance_loss_evens_out_use() -> None:
    layer = MemoryLayer(6, 5, sub_keys=N, top_k=4, key_dim=4)
    x = torch.randn(500, 6) + torch.randn(6)
    usage = layer.usage = MemoryUsage(N)
    layer(x)
    before = evenness(usage.sub_key_reads)
    optimizer = torch.optim.Adam([layer.keys, *layer.query.parameters()], lr=0.01)
    for _ in range(300):
        balance_loss(layer.look_up(layer.queries(x)), N).backward()
        optimizer.step()
        optimizer.zero_grad()
    usage.reset()
    layer(x)
    after = evenness(usage.sub_key_reads)
    assert before["gini"] is not None
    assert after["gini"] is not None
    assert after["gini"] < 0.8 * before["gini"]
