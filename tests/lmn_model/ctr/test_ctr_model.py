"""The CTR model and its joint memory."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from ctr_factory import FEATURES, KINDS, MEMORY, SETTINGS, make_batch, make_full_batch, settings_of
from runs_factory import run_python
from torch.nn import functional as F

from lmn_model.ctr import CTRModel, MemorySettings, ModelSettings, training_losses
from lmn_model.ctr.window import DIN, WINDOW_MODELS, MeanPooling
from lmn_model.data import FeatureSpec
from lmn_model.modules.large_memory_network import LargeMemoryNetwork


@pytest.mark.parametrize("memory", list(KINDS))
@pytest.mark.parametrize("window", list(WINDOW_MODELS))
def test_every_parameter_learns(window: str, memory: str) -> None:
    model = CTRModel(FEATURES, settings_of(window, memory))
    if model.memory is not None:
        torch.nn.init.normal_(model.memory.block.values)  # an empty memory has no gradient for its router yet
    batch = make_full_batch(64)
    training_losses(model(batch), batch.label, model.settings.memory).total.backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:  # the sub-keys of a factored memory are fixed
            assert parameter.grad is not None, name
            assert parameter.grad.to_dense().abs().sum() > 0, name


@pytest.mark.parametrize("memory", list(KINDS))
@pytest.mark.parametrize("window", list(WINDOW_MODELS))
def test_padding_has_no_effect(window: str, memory: str) -> None:
    torch.manual_seed(3)
    model = CTRModel(FEATURES, settings_of(window, memory))
    batch = make_full_batch()
    other = replace(batch, history=torch.where(batch.history_mask[..., None], batch.history, 2))
    assert not torch.equal(batch.history, other.history)
    torch.manual_seed(0)
    first = model(batch)
    torch.manual_seed(0)
    second = model(other)
    torch.testing.assert_close(first.logits, second.logits)
    if first.memory_loss is not None:
        torch.testing.assert_close(first.memory_loss, second.memory_loss)


def test_an_empty_history_gives_a_zero_interest() -> None:
    history, item, mask = torch.randn(3, 4, 8), torch.randn(3, 8), torch.zeros(3, 4, dtype=torch.bool)
    assert MeanPooling()(item, history, mask).count_nonzero() == 0
    assert DIN(8)(item, history, mask).count_nonzero() == 0


def test_pooling_is_the_mean_of_the_real_positions() -> None:
    history = torch.tensor([[[9.0], [1.0], [3.0]]])
    mask = torch.tensor([[False, True, True]])
    assert MeanPooling()(torch.zeros(1, 1), history, mask).tolist() == [[2.0]]


def test_din_weighs_positions_by_the_candidate() -> None:
    torch.manual_seed(0)
    attention, history = DIN(8), torch.randn(1, 4, 8)
    mask = torch.ones(1, 4, dtype=torch.bool)
    assert not torch.allclose(attention(torch.ones(1, 8), history, mask), attention(-torch.ones(1, 8), history, mask))


def test_the_memory_loss_is_the_mean_over_the_real_positions() -> None:
    network = LargeMemoryNetwork(6, 4, value_std=1.0, **MEMORY)
    history, user = torch.randn(3, 5, 6, requires_grad=True), torch.randn(3, 4)
    mask = torch.tensor([[0, 0, 1, 1, 1], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]], dtype=torch.bool)
    losses = []
    for row, place in mask.nonzero().tolist():
        pair = torch.cat((history[row, place], user[row]))
        losses.append(F.smooth_l1_loss(network.block(pair), pair))
    torch.testing.assert_close(network.losses(history, mask, user).answer, torch.stack(losses).mean())
    nothing = network.losses(history, torch.zeros_like(mask), user).answer
    assert nothing.item() == 0
    nothing.backward()


def test_a_draw_takes_real_positions_only_and_at_most_the_limit() -> None:
    network = LargeMemoryNetwork(6, 4, positions=2, **MEMORY)
    mask = torch.rand(200, 7) < 0.4
    rows, places = network._drawn(mask)
    assert mask[rows, places].all()
    assert torch.equal(torch.bincount(rows, minlength=200), mask.sum(1).clamp_max(2))
    assert len(set(zip(rows.tolist(), places.tolist(), strict=True))) == len(rows)
    drawn = torch.zeros(200, 7)
    for _ in range(100):
        drawn[network._drawn(mask)] += 1
    assert drawn[mask].min() > 0


def test_the_target_of_the_memory_loss_has_no_gradient() -> None:
    network = LargeMemoryNetwork(6, 4, value_std=1.0, **MEMORY)
    network.block.query.requires_grad_(False)
    network.block.query.weight.zero_()  # the query no longer depends on the embeddings: only the target could
    history, user = torch.randn(2, 3, 6, requires_grad=True), torch.randn(2, 4, requires_grad=True)
    network.losses(history, torch.ones(2, 3, dtype=torch.bool), user).answer.backward()
    assert history.grad.count_nonzero() == 0
    assert user.grad.count_nonzero() == 0
    assert network.block.values.grad is not None


def test_a_written_pair_becomes_familiar() -> None:
    torch.manual_seed(0)
    network = LargeMemoryNetwork(8, 8, sub_keys=32, top_k=4, key_dim=8)
    item, user = torch.randn(40, 8), torch.randn(40, 8)
    silent = network(item, user)
    assert silent.output.count_nonzero() == 0
    assert torch.equal(silent.familiarity[:, [0, 1, 3, 4]], torch.zeros(40, 4))
    torch.testing.assert_close(silent.familiarity[:, [2, 5]], torch.ones(40, 2))
    optimizer = torch.optim.Adagrad([network.block.values], lr=0.5)
    for _ in range(30):
        optimizer.zero_grad()
        network.losses(item[:20, None], torch.ones(20, 1, dtype=torch.bool), user[:20]).answer.backward()
        optimizer.step()
    familiarity = network(item, user).familiarity.detach()
    written, other = familiarity[:20].mean(0), familiarity[20:].mean(0)
    for half in (0, 3):
        assert written[half] > 0.7 > 0.4 > other[half]  # cosine
        assert written[half + 1] > other[half + 1] + 0.3  # projection
        assert written[half + 2] < other[half + 2] - 0.2  # distance


def test_each_epoch_begins_with_an_empty_memory() -> None:
    model = CTRModel(FEATURES, SETTINGS)
    torch.nn.init.normal_(model.memory.block.values)
    reset = model.begin_epoch()
    assert [parameter is model.memory.block.values for parameter in reset] == [True]
    assert reset[0].count_nonzero() == 0
    assert CTRModel(FEATURES, settings_of("din", "none")).begin_epoch() == []


def test_memory_losses_are_computed_in_training_mode_only() -> None:
    model = CTRModel(FEATURES, SETTINGS)
    assert model(make_batch()).memory_loss is not None
    assert model.eval()(make_batch()).memory_loss is None


def test_parameter_counts() -> None:
    model = CTRModel(FEATURES, SETTINGS)
    counts = model.parameter_counts()
    assert counts["total"] == sum(parameter.numel() for parameter in model.parameters())
    assert counts["memory"] > 8 * 8 * 4 * 5  # the value table: M rows of [3 item features ; 2 user features], 4 wide
    assert model.sparse_parameters() == [model.memory.block.values]
    assert CTRModel(FEATURES, settings_of("pooling", "none")).sparse_parameters() == []


def test_no_context_and_no_numeric_features() -> None:
    bare = FeatureSpec(user=FEATURES.user, item=FEATURES.item, context=(), numeric=())
    batch = replace(make_batch(), context=torch.zeros(6, 0, dtype=torch.int64), numeric=torch.zeros(6, 0))
    assert CTRModel(bare, SETTINGS)(batch).logits.shape == (6,)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MemorySettings(sub_keys=4, top_k=5), "top_k must be at most sub_keys = 4, got 5"),
        (lambda: MemorySettings(heads=0), "heads must be at least 1, got 0"),
        (lambda: MemorySettings(positions=-1), "positions must be at least 0, got -1"),
        (lambda: ModelSettings(dropout=1.0), "dropout must be less than 1, got 1.0"),
        (lambda: ModelSettings(hidden=(8, 0)), r"hidden must hold widths of at least 1, got \(8, 0\)"),
    ],
)
def test_settings_out_of_range(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]


def test_the_settings_are_imported_without_torch() -> None:
    done = run_python("import sys, lmn_model.ctr as ctr; print(ctr.ModelSettings().name, 'torch' in sys.modules)")
    assert (done.returncode, done.stdout.strip()) == (0, "din-factored False"), done.stderr
