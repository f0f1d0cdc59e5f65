"""Collaborative features in the CTR model: read before they are written, beside any memory, and emptied by an epoch."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from ctr_factory import FEATURES, make_full_batch, settings_of

from lmn_model.ctr import CollaborativeSettings, CTRModel, MemorySettings, training_losses, write_loss
from lmn_model.modules.similar_item_memory import SimilarItemMemory
from lmn_model.training.optimizers import Optimizers
from lmn_model.training.settings import TrainingSettings

BOTH = CollaborativeSettings(profile_levels=2, profile_dim=8, event_dim=4, event_negatives=2)
PROFILES = CollaborativeSettings(profile_levels=2, profile_dim=8)
EMBEDDINGS = CollaborativeSettings(event_dim=4)
SIMILAR = replace(BOTH, event_sub_keys=6, event_top_k=2)


def make(memory: str = "none", collaborative: CollaborativeSettings = BOTH, window: str = "din") -> CTRModel:
    torch.manual_seed(0)
    return CTRModel(FEATURES, settings_of(window, memory, collaborative=collaborative))


def step(model: CTRModel, batch: object, **options: float) -> torch.Tensor:
    """One training step as :class:`lmn_model.training.loop.Trainer` takes it; returns the logits."""
    output = model.train()(batch)
    training_losses(output, batch.label, model.settings.memory).total.backward()
    Optimizers(model, TrainingSettings(**options)).step()
    model.write_profiles(batch)
    return output.logits.detach()


@pytest.mark.parametrize("memory", ["none", "joint", "factored"])
@pytest.mark.parametrize("collaborative", [PROFILES, EMBEDDINGS, BOTH, SIMILAR])
def test_the_tower_reads_what_was_written(memory: str, collaborative: CollaborativeSettings) -> None:
    model, batch = make(memory, collaborative), make_full_batch(40)
    before = model.eval()(batch).logits.detach()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    torch.testing.assert_close(model(batch).logits.detach(), before, rtol=0, atol=0)
    for name, value in model.state_dict().items():  # a read writes nothing
        torch.testing.assert_close(value, state[name], rtol=0, atol=0)
    for _ in range(3):
        step(model, batch)
    for name, value in model.state_dict().items():  # undo what trained
        if not name.startswith("collaborative."):
            value.copy_(state[name])
    assert (model.eval()(batch).logits - before).abs().max() > 0


def test_a_step_does_not_read_its_own_events() -> None:
    model, other = make("factored", SIMILAR), make("factored", SIMILAR)
    batch = make_full_batch(40)
    changed = replace(batch, new_items=batch.new_items.flip(0), new_users=batch.new_users.flip(0)[:1].expand(40))
    first, second = step(model, batch), step(other, changed)
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    assert not torch.equal(model.collaborative.profiles.table.values, other.collaborative.profiles.table.values)
    assert not torch.equal(model.collaborative.embeddings.item_values, other.collaborative.embeddings.item_values)
    assert not torch.equal(model.collaborative.similar.values, other.collaborative.similar.values)


def test_the_memory_of_similar_items_stores_new_events_by_their_vectors() -> None:
    model, batch = make("none", SIMILAR), make_full_batch(40)
    step(model, batch)
    similar, embeddings = model.collaborative.similar, model.collaborative.embeddings
    expected = SimilarItemMemory(similar.user_size, 4, sub_keys=6, top_k=2, unseen=similar.unseen)
    expected.write(embeddings.item_vectors(batch.new_items), batch.new_users)
    for name, value in similar.state_dict().items():
        torch.testing.assert_close(value, expected.state_dict()[name], rtol=0, atol=0)
    read = model.collaborative(batch)[:, -3:]
    vectors = embeddings.item_vectors(batch.item)
    torch.testing.assert_close(read, expected(vectors, batch.user[:, 0]), rtol=0, atol=0)
    features = [embeddings.item_values[offset + batch.item[:, f]] for f, offset in enumerate(embeddings.offsets)]
    known = (batch.item != 1).unsqueeze(-1)
    torch.testing.assert_close(vectors, (torch.stack(features, 1) * known).sum(1).detach())


def test_signed_profiles_leave_positive_events_to_the_memory_of_similar_items() -> None:
    model = make("none", replace(SIMILAR, profile_signed=True))
    batch = make_full_batch(40)
    feedback = {"feedback_items": batch.item, "feedback_users": batch.user[:, 0], "feedback_labels": batch.label}
    model.write_profiles(replace(batch, **feedback))
    assert float(model.collaborative.similar.user_events.sum()) == int((batch.new_users != 1).sum())


def test_events_alone_are_written_as_in_training() -> None:
    """What writes the events after training leaves the same rows as a step of training does."""
    trained, written = make("factored", SIMILAR), make("factored", SIMILAR)
    batch = make_full_batch(40)
    step(trained, batch)
    write_loss(written.write_losses(batch), written.settings.memory).backward()
    Optimizers(written, TrainingSettings()).step()
    written.write_profiles(batch)
    for name, value in written.collaborative.state_dict().items():
        torch.testing.assert_close(value, trained.collaborative.state_dict()[name], rtol=0, atol=0)
    torch.testing.assert_close(written.memory.block.values, trained.memory.block.values, rtol=0, atol=0)


def test_the_click_loss_does_not_move_the_embeddings_of_events() -> None:
    model, batch = make(), make_full_batch(40)
    output = model.train()(batch)
    torch.nn.functional.binary_cross_entropy_with_logits(output.logits, batch.label).backward()
    assert all(values.grad is None for values in model.event_parameters())
    assert output.event_loss is not None
    assert model.eval()(batch).event_loss is None


def test_the_event_loss_is_a_part_of_the_total() -> None:
    model, batch = make(), make_full_batch(12)
    output = model.train()(batch)
    losses = training_losses(output, batch.label, model.settings.memory)
    torch.testing.assert_close(losses.total, losses.click + output.event_loss)
    assert float(losses.memory) == 0
    assert write_loss(make("none", PROFILES).write_losses(batch), MemorySettings(kind="none")) is None


def test_an_epoch_begins_without_events() -> None:
    model, batch = make("factored", SIMILAR), make_full_batch(40)
    step(model, batch)
    rows = model.collaborative.embeddings.user_values.detach().clone()
    void = model.begin_epoch()
    assert {id(each) for each in void} == {id(each) for each in model.sparse_parameters()}
    assert not model.collaborative.profiles.table.values.any()
    assert not model.collaborative.profiles.item_events.any()
    assert not model.collaborative.similar.values.any()
    assert (model.collaborative.embeddings.user_values != rows).all()
    assert not model.collaborative.embeddings.item_values[:20].any()  # the items' own rows


def test_learning_rates_of_memory_and_events() -> None:
    options = TrainingSettings(memory_learning_rate=0.25, event_learning_rate=0.5)
    model = make("factored")
    (_, sparse) = Optimizers(model, options)
    rates = {id(each): group["lr"] for group in sparse.param_groups for each in group["params"]}
    assert rates == {id(model.memory.block.values): 0.25} | {id(each): 0.5 for each in model.event_parameters()}
    (_, sparse) = Optimizers(make("none", EMBEDDINGS), options)
    assert [group["lr"] for group in sparse.param_groups] == [0.5]
    assert len(list(Optimizers(make("none", PROFILES), options))) == 1


def test_gate_and_added_logit_take_collaborative_features() -> None:
    features = settings_of("din", "factored", collaborative=BOTH)
    for change in ({"gate": True}, {"joins": "logit"}):
        model = CTRModel(FEATURES, replace(features, memory=replace(features.memory, **change)))
        width = model.memory.signals + model.collaborative.signals
        reader = model.gate.map if change.get("gate") else model.memory_logit[0]
        assert reader.in_features == width
        assert model(make_full_batch(5)).logits.shape == (5,)


def test_parameters_are_counted() -> None:
    counts = make().parameter_counts()
    profiles = 2 * 8 * (20 + 9)
    assert counts["collaborative"] == profiles + 4 * (20 + 5 + 3 + 9)
    assert counts["total"] == sum(parameter.numel() for parameter in make().parameters())


def test_reset_parameters_gives_a_new_model() -> None:
    model = make("factored", SIMILAR)
    step(model, make_full_batch(12))
    torch.manual_seed(0)
    model.reset_parameters()
    for name, value in make("factored", SIMILAR).state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value, rtol=0, atol=0)


def test_what_cannot_be_written() -> None:
    batch = make_full_batch(5)
    with pytest.raises(ValueError, match="nothing writes new events"):
        make("none", CollaborativeSettings()).write_losses(batch)
    with pytest.raises(ValueError, match="batch must have new_items and new_users"):
        make().write_profiles(replace(batch, new_users=None))
    with pytest.raises(ValueError, match="batch must have feedback_items and feedback_users"):
        make("none", replace(PROFILES, profile_signed=True)).write_profiles(batch)
    make("joint", CollaborativeSettings()).write_profiles(replace(batch, new_users=None))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"profile_levels": -1}, "profile_levels must be at least 0, got -1"),
        ({"profile_dim": 0}, "profile_dim must be at least 1, got 0"),
        ({"event_dim": -2}, "event_dim must be at least 0, got -2"),
        ({"event_negatives": 0}, "event_negatives must be at least 1, got 0"),
        ({"profile_rows": 5, "profile_levels": 0}, "profile_rows has no effect for profile_levels = 0, got 5"),
        (
            {"profile_signed": True, "profile_levels": 0},
            "profile_signed has no effect for profile_levels = 0, got True",
        ),
        ({"event_sub_keys": -1, "event_dim": 4}, "event_sub_keys must be at least 0, got -1"),
        ({"event_top_k": 0}, "event_top_k must be at least 1, got 0"),
        ({"event_sub_keys": 8}, "event_sub_keys has no effect for event_dim = 0, got 8"),
    ],
)
def test_settings_out_of_range(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CollaborativeSettings(**options)
