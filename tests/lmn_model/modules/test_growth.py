"""Growth: read-outs stay the same, but for rounding, and training writes to the new slots."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from lmn_kernels.optim import RowAdagrad, RowAdam
from lmn_model.modules.growth import grow
from lmn_model.modules.memory_layer import MemoryLayer
from lmn_model.modules.reseeding import reseed
from lmn_model.modules.usage import MemoryUsage


def _step(layer: MemoryLayer, x: torch.Tensor, optimizers: list[torch.optim.Optimizer]) -> float:
    loss = (layer(x) - x[:, :5]).square().mean()
    loss.backward()
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad()
    if layer.usage is not None:
        layer.usage.advance()
    return float(loss.detach())


@pytest.mark.parametrize("metric", ["dot", "cosine", "l2"])
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_outputs_are_the_same_after_growth(metric: str, activation: str, backend: str) -> None:
    layer = MemoryLayer(
        6, 5, sub_keys=9, top_k=4, key_dim=4, heads=2, metric=metric, activation=activation, value_std=1.0,
        backend=backend,
    )  # fmt: skip
    x = torch.randn(20, 6)
    with torch.no_grad():
        before = layer.read(x)
    grow(layer)
    assert layer.values.shape == (18 * 18, 5)
    assert layer.keys.shape == (2, 2, 18, 4)
    after = layer.read(x)
    torch.testing.assert_close(after.output, before.output)
    torch.testing.assert_close(after.weights, before.weights)
    assert torch.equal(after.slots, before.slots // 9 * 18 + before.slots % 9)
    after.output.square().sum().backward()
    assert layer.keys.grad is not None
    assert layer.keys.grad.isfinite().all()
    assert layer.keys.grad[:, :, :9].any()
    assert not layer.keys.grad[:, :, 9:].any()


ADAGRAD = {"initial_accumulator_value": 0.1}


@pytest.mark.parametrize(
    ("make", "options"),
    [(RowAdagrad, ADAGRAD), (RowAdam, {}), (torch.optim.SparseAdam, {}), (torch.optim.Adagrad, ADAGRAD)],
)
@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
def test_training_goes_on_as_if_nothing_had_happened(
    make: Callable[..., torch.optim.Optimizer], options: dict[str, float]
) -> None:
    """The same steps with a growth between them and with one at the end give the same weights and state."""
    x = torch.randn(6, 50, 6)
    runs = []
    for grows_at in (3, 6):
        torch.manual_seed(1)
        layer = MemoryLayer(6, 5, sub_keys=8, top_k=3, key_dim=4)
        rows = make([layer.values], lr=0.1, **options)
        dense = torch.optim.AdamW([p for p in layer.parameters() if p is not layer.values], weight_decay=0.0)
        losses = []
        for step in range(6):
            if step == grows_at:
                grow(layer, [rows, dense])
            losses.append(_step(layer, x[step], [rows, dense]))
        if grows_at == 6:
            grow(layer, [rows, dense])
        runs.append((losses, layer.state_dict(), rows.state[layer.values], dense.state[layer.keys]))
    (losses, *tables), (other_losses, *other_tables) = runs
    assert losses == pytest.approx(other_losses)
    for mine, theirs in zip(tables, other_tables, strict=True):
        assert mine.keys() == theirs.keys()
        for name, value in mine.items():
            torch.testing.assert_close(torch.as_tensor(value), torch.as_tensor(theirs[name]), msg=name)


def test_new_sub_keys_wake_by_reseeding_and_new_slots_are_written() -> None:
    layer = MemoryLayer(6, 5, sub_keys=16, top_k=3, key_dim=4)
    usage = layer.usage = MemoryUsage(16)
    optimizers: list[torch.optim.Optimizer] = [
        RowAdagrad([layer.values], lr=0.1),
        torch.optim.Adam([p for p in layer.parameters() if p is not layer.values], lr=1e-2),
    ]
    x = torch.randn(300, 6)
    for _ in range(20):
        before = _step(layer, x, optimizers)
    read = usage.slot_reads.clone()
    grow(layer, optimizers)
    usage = layer.usage
    assert usage is not None
    assert torch.equal(usage.slot_reads.view(32, 32)[:16, :16].reshape(-1), read)
    assert int(layer.inactive.sum()) == 2 * 16
    for _ in range(10):
        for _ in range(20):
            after = _step(layer, x, optimizers)
        reseed(layer, usage, optimizers)
    assert not layer.inactive.any()
    used = usage.slot_reads.view(32, 32)
    assert (used[16:] > 0).any()
    assert (used[:, 16:] > 0).any()
    assert after < before


def test_a_living_graph_is_refused_and_nothing_changes() -> None:
    layer = MemoryLayer(6, 5, sub_keys=8, top_k=3, key_dim=4)
    held = layer(torch.randn(4, 6))
    with pytest.raises(RuntimeError):
        grow(layer)
    assert layer.values.shape == (64, 5)
    held.sum().backward()
    assert layer.values.grad is not None
