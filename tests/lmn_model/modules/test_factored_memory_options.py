"""The options of a factored query and how its features join the model, each against an oracle of a few lines."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from pairs_factory import FEATURES, ITEM, USER, D, codes_of, draw
from torch import Tensor
from torch.nn import functional as F

from lmn_kernels import product_key_topk
from lmn_kernels.activation import ACTIVATIONS, activate
from lmn_model import FactoredMemoryNetwork, LargeMemoryNetwork
from lmn_model.ctr.model import CTRModel, ModelSettings
from lmn_model.ctr.settings import MemorySettings
from lmn_model.data import Batch


def make(**options: Any) -> FactoredMemoryNetwork:
    return FactoredMemoryNetwork(
        [each.size for each in ITEM], USER.size, **{"code_dim": D, "sub_keys": 12, "marginals": False, **options}
    )


def asserted_slots(network: FactoredMemoryNetwork, top_k: int, activation: str) -> Tensor:
    """The slots of some pairs, which must be those of the kernels."""
    item, user = draw(25)
    slots, weights = network.pair_slots(item, user)
    queries = torch.stack(codes_of(network, item, user), dim=2).view(50, 1, 2, D)
    found = product_key_topk(queries, network.block.searched_keys(), top_k, metric="cosine")
    assert torch.equal(slots.view(50, 1, top_k), found.slots)
    assert torch.equal(weights.view(50, 1, top_k), activate(found.scores, activation))
    return slots


@pytest.mark.parametrize("top_k", [1, 4])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_slots_are_those_of_the_kernels_in_their_order_of_ties(top_k: int, activation: str) -> None:
    network = make(top_k=top_k, activation=activation)
    asserted_slots(network, top_k, activation)
    with torch.no_grad():  # every sub-key is there three times, and some are inactive
        network.block.keys[0, :, 4:8] = network.block.keys[0, :, :4]
        network.block.keys[0, :, 8:] = network.block.keys[0, :, :4]
    assert int(asserted_slots(network, top_k, activation)[..., 0].max()) < 4 * 12
    network.block.inactive[0, 1, :5] = True
    first = asserted_slots(network, top_k, activation)[..., 0] % 12
    assert first.unique().tolist() == [5, 6, 7, 8]


def test_the_memory_loss_of_both_queries() -> None:
    network = make()
    torch.nn.init.normal_(network.block.values)
    item, user = draw(9)
    items, users = codes_of(network, item, user)
    output = network.block.values[network.pair_slots(item, user).slots[..., 0]]
    torch.testing.assert_close(network.losses(item, user).answer, F.smooth_l1_loss(output, items * users))
    assert network.losses(item[:0], user[:0]).answer == 0
    history, person = torch.randn(3, 2, 6), torch.randn(3, 4)
    pair = torch.cat((history, person[:, None].expand(-1, 2, -1)), dim=-1).flatten(0, 1)
    for loss, oracle in (("smooth_l1", F.smooth_l1_loss), ("mse", F.mse_loss)):
        joint = LargeMemoryNetwork(6, 4, loss=loss, sub_keys=8, top_k=3, key_dim=4, value_std=2.0)
        found = joint.losses(history, torch.ones(3, 2, dtype=torch.bool), person).answer
        torch.testing.assert_close(found, oracle(joint.block(pair), pair))
    with pytest.raises(ValueError, match="LargeMemoryNetwork: loss must be one of smooth_l1, mse, got 'none'"):
        LargeMemoryNetwork(6, 4, loss="none")


def test_settings_reach_the_network() -> None:
    options = {"activation": "relu", "marginals": False, "code_dim": 6, "top_k": 2, "backend": "torch"}
    network = CTRModel(FEATURES, ModelSettings(hidden=(4,), memory=MemorySettings(sub_keys=8, **options))).memory
    assert type(network) is FactoredMemoryNetwork
    block = network.block
    found = {"activation": block.activation, "marginals": network.marginals, "code_dim": network.item_codes.shape[1],
             "top_k": block.top_k, "backend": block.backend}  # fmt: skip
    assert found == options
    assert network.signals == 2 * 4
    assert block.metric == "cosine"
    joint = MemorySettings(kind="joint", sub_keys=8, activation="sigmoid", metric="l2", heads=2, positions=0)
    memory = CTRModel(FEATURES, ModelSettings(hidden=(4,), memory=joint)).memory
    assert (memory.block.metric, memory.block.activation, memory.block.heads) == ("l2", "sigmoid", 2)
    assert (memory.positions, memory.balance, memory.block.top_k) == (None, False, 8)


def test_an_unknown_activation() -> None:
    with pytest.raises(ValueError, match="FactoredMemoryNetwork: activation must be one of 'softmax', 'sigmoid', "):
        make(activation="none")


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        ("joint", "marginals", False), ("joint", "code_dim", 32),
        ("factored", "metric", "cosine"), ("factored", "key_dim", 8), ("factored", "positions", 0),
    ],
)  # fmt: skip
def test_a_setting_without_effect_is_refused(kind: str, name: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"{name} has no effect for memory = {kind!r}, got {value!r}"):
        MemorySettings(kind=kind, **{name: value})  # type: ignore[arg-type]


def make_batch() -> Batch:
    item, user = draw(8)
    return Batch(
        label=torch.ones(8), user=user[:, None], item=item, context=torch.empty(8, 0, dtype=torch.int64),
        numeric=torch.empty(8, 0), history=item[:, None], history_mask=torch.ones(8, 1, dtype=torch.bool),
        group=user,
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["factored", "joint"])
def test_a_gate_is_open_at_first(kind: str) -> None:
    batch, scores = make_batch(), []
    for gate in (False, True):
        torch.manual_seed(3)
        memory = MemorySettings(kind=kind, sub_keys=8, gate=gate)  # type: ignore[arg-type]
        model = CTRModel(FEATURES, ModelSettings(hidden=(64,), memory=memory)).eval()
        torch.nn.init.normal_(model.memory.block.values, generator=torch.Generator().manual_seed(0))
        scores.append(model(batch).logits)
        assert (model.gate is not None) == gate
    torch.testing.assert_close(scores[1], scores[0])


@pytest.mark.parametrize("gate", [False, True])
@pytest.mark.parametrize("kind", ["factored", "joint"])
def test_what_joins_the_logit_is_added_to_a_tower_without_them(kind: str, gate: bool) -> None:
    with pytest.raises(ValueError, match="joins has no effect for memory = 'none', got 'logit'"):
        MemorySettings(kind="none", joins="logit")
    memory = MemorySettings(kind=kind, sub_keys=8, joins="logit", gate=gate)  # type: ignore[arg-type]
    model = CTRModel(FEATURES, ModelSettings(window="none", hidden=(4,), memory=memory)).eval()
    batch = make_batch()
    features: list[Tensor] = []
    towers: list[Tensor] = []
    assert model.memory_logit is not None
    model.memory_logit.register_forward_hook(lambda _, inputs, output: features.append(inputs[0]))
    model.tower.register_forward_hook(lambda _, inputs, output: towers.append(output))
    torch.nn.init.normal_(model.memory.block.values)
    assert torch.equal(model(batch).logits, towers[0].squeeze(-1))  # adds nothing at first
    for each in model.memory_logit.parameters():
        torch.nn.init.normal_(each)
    logits = model(batch).logits
    first, _, last = model.memory_logit
    added = torch.relu(features[1] @ first.weight.T + first.bias) @ last.weight.T + last.bias
    torch.testing.assert_close(logits, (towers[1] + added).squeeze(-1))
    assert not torch.equal(logits, towers[1].squeeze(-1))
    plain = torch.cat((model.user_embedding(batch.user), model.item_embedding(batch.item)), dim=-1)
    if not gate:
        torch.testing.assert_close(towers[1], model.tower(plain))
    logits.sum().backward()
    assert all(bool(each.grad.abs().sum() > 0) for each in model.memory_logit.parameters())
    assert model.parameter_counts()["total"] == sum(each.numel() for each in model.parameters())


@pytest.mark.parametrize("kind", ["factored", "joint"])
def test_a_gate_multiplies_everything_but_the_memorys_own_part(kind: str) -> None:
    memory = MemorySettings(kind=kind, sub_keys=8, gate=True)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="gate has no effect for memory = 'none', got True"):
        replace(memory, kind="none")
    model = CTRModel(FEATURES, ModelSettings(window="none", hidden=(4,), memory=memory)).eval()
    assert model.gate is not None
    torch.nn.init.normal_(model.memory.block.values)
    torch.nn.init.normal_(model.gate.map.weight)
    torch.nn.init.normal_(model.gate.map.bias)
    batch = make_batch()
    item = batch.item
    seen: list[Tensor] = []
    model.tower.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    logits = model(batch).logits
    plain = torch.cat((model.user_embedding(batch.user), model.item_embedding(item)), dim=-1)
    features = seen[0][:, plain.shape[1] :]
    gate = 2 / (1 + torch.exp(-(features @ model.gate.map.weight.T + model.gate.map.bias)))
    torch.testing.assert_close(seen[0][:, : plain.shape[1]], plain * gate)
    assert features.shape[1] == model.gate.map.weight.shape[1]
    logits.sum().backward()
    assert all(bool(each.grad.abs().sum() > 0) for each in model.gate.parameters())
    assert model.parameter_counts()["total"] == sum(each.numel() for each in model.parameters())
