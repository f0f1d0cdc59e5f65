"""The window models against loops over rows and positions, written from the papers' formulas."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from ctr_factory import FEATURES, make_batch, settings_of
from torch import Tensor
from torch.nn import functional as F

from lmn_model.ctr import CTRModel
from lmn_model.ctr.window import (
    DIN,
    MIMN,
    WINDOW_MODELS,
    MeanPooling,
    SIMHard,
    SIMSoft,
    WindowModel,
    din_cpu,
    window_model,
)
from lmn_model.training import build
from lmn_model.training.build import check_backend
from lmn_model.training.settings import DataSettings, Settings

WIDTH = 6
WITH_WINDOW = [name for name in WINDOW_MODELS if name != "none"]


def drawn(rows: int = 7, window: int = 9, *, lengths: list[int] | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """A candidate, a window with padding in front and its mask, in float64; NaN-free padding that is not zero."""
    long = torch.tensor(lengths) if lengths is not None else torch.randint(0, window + 1, (rows,))
    mask = torch.arange(window) >= window - long[:, None]
    item = torch.randn(len(long), WIDTH, dtype=torch.float64)
    return item, torch.randn(len(long), window, WIDTH, dtype=torch.float64), mask


def model_of(name: str) -> WindowModel:
    model = window_model(name, WIDTH).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return model


def plain_attention(model: DIN, item: Tensor, history: Tensor, mask: Tensor) -> Tensor:
    out = []
    for c, events, real in zip(item, history, mask, strict=True):
        total = torch.zeros_like(c)
        for h in events[real]:
            total = total + model.score(torch.cat((h, c, h - c, h * c))) * h
        out.append(total)
    return torch.stack(out)


def plain_hard(model: SIMHard, item: Tensor, history: Tensor, mask: Tensor, found: Tensor, real: Tensor) -> Tensor:
    long, short = plain_attention(model.long, item, found, real), plain_attention(model.short, item, history, mask)
    return torch.cat((long, short), dim=1)


def plain_soft(model: SIMSoft, item: Tensor, history: Tensor, mask: Tensor) -> Tensor:
    out = []
    for c, events, real in zip(item, history, mask, strict=True):
        scores = [float((model.position_map(h) @ model.candidate_map(c)).detach()) for h in events]
        places = [place for place in range(len(events)) if real[place]]
        chosen = sorted(places, key=lambda place: (-scores[place], -place))[: model.top_k]
        weighted = torch.zeros_like(c)
        for place in places:
            score = model.position_map(events[place]) @ model.candidate_map(c)
            weighted = weighted + score * events[place] / len(places)
        newest = [place for place in places if place >= len(events) - model.recent]
        attended = []
        for network, kept in ((model.long, chosen), (model.short, newest)):
            inside = torch.zeros_like(real)
            inside[kept] = True
            attended.append(plain_attention(network, c[None], events[None], inside[None])[0])
        out.append(torch.cat((*attended, weighted)))
    return torch.stack(out)


def plain_memory(model: MIMN, item: Tensor, history: Tensor, mask: Tensor) -> Tensor:
    def weights_of(memory: Tensor, key: Tensor, raw: Tensor) -> Tensor:
        sharpness = 1 + F.softplus(raw)
        return torch.softmax(torch.stack([sharpness * F.cosine_similarity(key, slot, dim=0) for slot in memory]), 0)

    out = []
    for c, events, real in zip(item, history, mask, strict=True):
        memory, state, read = model.start, torch.zeros_like(c), torch.zeros_like(c)
        for x in events[real]:
            r, u, n = (model.event_gates(x) + model.read_gates(read)).chunk(3)
            r_s, u_s, n_s = model.state_gates(state).chunk(3)
            update = torch.sigmoid(u + u_s)
            state = (1 - update) * torch.tanh(n + torch.sigmoid(r + r_s) * n_s) + update * state
            heads = model.heads(state)
            key, erase, add = heads[:-1].chunk(3)
            weights = weights_of(memory, key, heads[-1])
            read = weights @ memory
            memory = torch.stack(
                [(1 - w * torch.sigmoid(erase)) * m + w * torch.tanh(add) for w, m in zip(weights, memory, strict=True)]
            )
        query = model.candidate_key(c)
        out.append(weights_of(memory, query[:-1], query[-1]) @ memory if real.any() else torch.zeros_like(c))
    return torch.stack(out)


def assert_alike(model: WindowModel, plain: Callable[..., Tensor], *inputs: Tensor) -> None:
    """Outputs and every gradient are those of the loops."""
    moving = [each.requires_grad_() for each in inputs if each.is_floating_point()] + list(model.parameters())
    nothing = 0 * sum(each.sum() for each in moving)  # loops over no events have no graph
    mine, theirs = model(*inputs) + nothing, plain(model, *inputs) + nothing
    torch.testing.assert_close(mine, theirs)
    down = torch.randn_like(mine)
    own, other = (torch.autograd.grad(out, moving, down, retain_graph=True) for out in (mine, theirs))
    torch.testing.assert_close(own, other)


@pytest.mark.parametrize("lengths", [[0, 3, 9, 1, 7], [9] * 5, [1, 0, 0, 2], [0, 0]])
@pytest.mark.parametrize("positions", [din_cpu.POSITIONS, 18])
def test_din_is_the_plain_formula(lengths: list[int], positions: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(din_cpu, "POSITIONS", positions)
    monkeypatch.setattr(din_cpu, "SHARED", 1)
    assert_alike(model_of("din"), plain_attention, *drawn(lengths=lengths))


@pytest.mark.parametrize("hidden", [5, (5,), (5, 4), ()])
def test_din_takes_one_hidden_layer_or_several(hidden: int | tuple[int, ...]) -> None:
    assert_alike(DIN(WIDTH, hidden).double(), plain_attention, *drawn())


def test_din_is_within_the_rounding_of_float32() -> None:
    model, (item, history, mask) = model_of("din"), drawn(40, 50)
    exact = model(item, history, mask)
    rounded = model.float()(item.float(), history.float(), mask)
    torch.testing.assert_close(rounded.double(), exact, rtol=1e-5, atol=1e-5 * float(exact.detach().abs().max()))


def test_chunks_are_all_the_rows_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(din_cpu, "SHARED", 1)
    monkeypatch.setattr(din_cpu, "POSITIONS", 20)
    assert din_cpu.chunks(torch.zeros(5, 9)) == [slice(0, 2), slice(2, 4), slice(4, 6)]
    assert din_cpu.chunks(torch.zeros(2, 99)) == [slice(0, 1), slice(1, 2)]
    assert din_cpu.chunks(torch.zeros(0, 9)) == []


@pytest.mark.parametrize("algorithm", ["_fused", "_padded", "_packed"])
@pytest.mark.parametrize("slope", [0.25, 1.0, 0.0, -0.5])
def test_each_algorithm_of_din_is_the_plain_formula(algorithm: str, slope: float) -> None:
    model = model_of("din")
    torch.nn.init.constant_(model.score[1].weight, slope)

    class Algorithm(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.score = model.score

        def forward(self, *inputs: Tensor) -> Tensor:
            return getattr(model, algorithm)(*inputs)

    assert_alike(Algorithm(), plain_attention, *drawn(lengths=[0, 3, 9, 1, 7, 9]))


def test_din_chooses_its_algorithm_by_the_padding(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[str] = []
    for name in ("_fused", "_padded", "_packed"):
        monkeypatch.setattr(DIN, name, lambda model, item, history, mask, name=name: chosen.append(name) or item)
    for lengths, hidden in (([9, 9], 5), ([2, 2], 5), ([3, 3], 5), ([9, 9], (5, 4)), ([2, 2], (5, 4))):
        DIN(WIDTH, hidden)(*drawn(lengths=lengths))
    assert chosen == ["_fused", "_packed", "_fused", "_padded", "_packed"]


def test_hard_search_is_two_attentions() -> None:
    item, history, mask = drawn()
    found, real = drawn(len(item), 4)[1:]
    assert_alike(model_of("sim_hard"), plain_hard, item, history, mask, found, real)


def test_hard_search_needs_found_events() -> None:
    with pytest.raises(ValueError, match="window = 'sim_hard' needs batches with found and found_mask"):
        model_of("sim_hard")(*drawn())


@pytest.mark.parametrize(("top_k", "recent"), [(3, 4), (1, 9), (9, 2), (50, 50)])
def test_soft_search_is_the_loops(top_k: int, recent: int) -> None:
    model = SIMSoft(WIDTH, top_k=top_k, recent=recent).double()
    assert_alike(model, plain_soft, *drawn(lengths=[0, 1, 2, 3, 5, 9, 9]))


def test_soft_search_keeps_the_newer_of_a_tie_and_never_padding_before_an_event() -> None:
    model = SIMSoft(WIDTH, top_k=2)
    mask = torch.tensor([[False, True, True, True], [False, False, False, True]])
    scores = torch.tensor([[9.0, 1.0, 1.0, 1.0], [9.0, 8.0, 7.0, -5.0]])
    places = model.search(scores, mask)
    assert places[0].tolist() == [2, 3]
    assert 3 in places[1].tolist()


def test_the_search_has_no_gradient_but_its_maps_learn() -> None:
    model, (item, history, mask) = model_of("sim_soft"), drawn(lengths=[9, 9])
    model.top_k = 3
    out = model(item, history, mask)
    out[:, : 2 * WIDTH].sum().backward(retain_graph=True)
    assert model.position_map.weight.grad is None or model.position_map.weight.grad.count_nonzero() == 0
    out[:, 2 * WIDTH :].sum().backward()
    assert model.position_map.weight.grad.count_nonzero() > 0
    assert model.candidate_map.weight.grad.count_nonzero() > 0


@pytest.mark.parametrize("lengths", [[0, 3, 9, 1, 7, 3], [9, 9], [0, 0], [2, 0, 2]])
def test_the_interest_memory_is_the_loops(lengths: list[int]) -> None:
    assert_alike(model_of("mimn"), plain_memory, *drawn(lengths=lengths))


def test_the_interest_memory_reads_the_order_of_events() -> None:
    model, (item, history, mask) = model_of("mimn"), drawn(lengths=[9])
    assert not torch.allclose(model(item, history, mask), model(item, history.flip(1), mask))


def test_pooling_is_the_mean() -> None:
    item, history, mask = drawn(lengths=[0, 3, 9])
    expected = torch.stack([torch.zeros(WIDTH).double(), history[1, -3:].mean(0), history[2].mean(0)])
    torch.testing.assert_close(MeanPooling()(item, history, mask), expected)


@pytest.mark.parametrize("name", ["pooling", "din", "sim_hard"])
def test_where_order_has_no_meaning_a_permutation_changes_nothing(name: str) -> None:
    model, (item, history, mask) = model_of(name), drawn()
    found, real = drawn(len(item), 4)[1:]
    turned, backwards = torch.randperm(9), torch.randperm(4)
    torch.testing.assert_close(
        model(item, history[:, turned], mask[:, turned], found[:, backwards], real[:, backwards]),
        model(item, history, mask, found, real),
    )


@pytest.mark.parametrize("name", list(WINDOW_MODELS))
def test_padding_has_no_effect(name: str) -> None:
    model, (item, history, mask) = model_of(name), drawn()
    found, real = drawn(len(item), 4)[1:]
    other, elsewhere = history.masked_fill(~mask[..., None], 99.0), found.masked_fill(~real[..., None], 99.0)
    assert torch.equal(model(item, history, mask, found, real), model(item, other, mask, elsewhere, real))


@pytest.mark.parametrize("window", [0, 1, 9])
@pytest.mark.parametrize("name", list(WINDOW_MODELS))
def test_an_empty_history_gives_zeros_of_the_stated_width(name: str, window: int) -> None:
    item, history, mask = drawn(window=window, lengths=[0, 0, 0])
    model = model_of(name)
    out = model(item, history, mask, history, mask)
    assert out.shape == (3, model.interests * WIDTH)
    assert out.count_nonzero() == 0


@pytest.mark.parametrize("name", WITH_WINDOW)
def test_no_rows(name: str) -> None:
    model, (item, history, mask) = model_of(name), drawn(lengths=[4])
    assert model(item[:0], history[:0], mask[:0], history[:0], mask[:0]).shape == (0, model.interests * WIDTH)


@pytest.mark.parametrize("name", WITH_WINDOW)
def test_gradients_reach_real_positions_alone(name: str) -> None:
    item, history, mask = drawn(lengths=[0, 3, 9, 1])
    model_of(name)(item, history.requires_grad_(), mask, history, mask).square().sum().backward()
    assert torch.equal(history.grad.abs().sum(-1) > 0, mask)


def test_an_unknown_window_model() -> None:
    with pytest.raises(ValueError, match=r"window must be one of none, pooling, din, .*, got 'dien'"):
        window_model("dien", 4)


@pytest.mark.parametrize("memory", ["joint", "factored"])
def test_a_memory_without_a_window(memory: str) -> None:
    model = CTRModel(FEATURES, settings_of("none", memory)).eval()
    assert model.parameter_counts()["interest"] == 0
    batch, other = make_batch(), make_batch()
    changed = replace(batch, history=other.history, history_mask=other.history_mask)
    assert torch.equal(model(batch).logits, model(changed).logits)


def test_the_model_refuses_batches_without_found_events_for_hard_search() -> None:
    model = CTRModel(FEATURES, settings_of("sim_hard", "none"))
    with pytest.raises(ValueError, match="window = 'sim_hard' needs batches with found"):
        model(make_batch())


@pytest.mark.parametrize("memory", ["none", "joint", "factored"])
@pytest.mark.parametrize("window", list(WINDOW_MODELS))
def test_the_kind_of_memory_alone_decides_whether_there_is_one(
    window: str, memory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked: list[str] = []
    monkeypatch.setattr(build, "use_triton", lambda op, backend, device: checked.append(backend))
    settings = settings_of(window, memory)
    settings = replace(settings, memory=replace(settings.memory, backend="torch"))
    assert settings.has_memory == (memory != "none") == (CTRModel(FEATURES, settings).memory_block() is not None)
    check_backend(settings, torch.device("cpu"))
    assert checked == (["torch"] if settings.has_memory else [])
    data = DataSettings(search_by="category" if window == "sim_hard" else None)
    assert Settings(data=data, model=settings).counts_reads() == settings.has_memory
