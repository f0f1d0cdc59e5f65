"""The embeddings of features against ``torch.nn.Embedding``, values and gradients to the last bit."""

from __future__ import annotations

import copy

import pytest
import torch

from lmn_model.ctr.feature_embedding import FeatureEmbedding, _Rows
from lmn_model.data import CategoricalFeature

FEATURES = (CategoricalFeature("item", 500), CategoricalFeature("category", 20), CategoricalFeature("brand", 3))


def make(shape: tuple[int, ...]) -> tuple[FeatureEmbedding, torch.Tensor]:
    torch.manual_seed(0)
    ids = torch.stack([torch.randint(feature.size, shape) for feature in FEATURES], dim=-1)
    return FeatureEmbedding(FEATURES, 16, 0.05), ids


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("shape", [(64, 50), (1024,), (1, 1), (0, 50), (2, 3, 4)])
def test_equal_to_the_tables_of_torch_to_the_last_bit(shape: tuple[int, ...], threads: int, dtype: torch.dtype) -> None:
    embedding, ids = make(shape)
    embedding.to(dtype)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        out = embedding(ids)
        plain = torch.cat([table(ids[..., place]) for place, table in enumerate(embedding.tables)], dim=-1)
        assert torch.equal(out, plain)
        assert out.shape == (*shape, embedding.width)
        back = torch.randn(out.shape, dtype=dtype)
        parameters = list(embedding.parameters())
        for ours, theirs in zip(
            torch.autograd.grad(out, parameters, back), torch.autograd.grad(plain, parameters, back), strict=True
        ):
            assert torch.equal(ours, theirs)
            assert not ours[0].any()  # padding
            assert ours.any() or not back.numel()
    finally:
        torch.set_num_threads(before)


def test_ids_and_gradients_that_are_strided() -> None:
    embedding, ids = make((50, 64))
    ids = ids.transpose(0, 1)
    parameters = list(embedding.parameters())
    back = torch.randn(50, 64, 48).transpose(0, 1)
    plain = torch.cat([table(ids[..., place]) for place, table in enumerate(embedding.tables)], dim=-1)
    ours = torch.autograd.grad(embedding(ids), parameters, back)
    for each, other in zip(ours, torch.autograd.grad(plain, parameters, back), strict=True):
        assert torch.equal(each, other)


def test_a_table_that_is_frozen_has_no_gradient() -> None:
    embedding, ids = make((8,))
    embedding.tables[1].weight.requires_grad_(False)
    embedding(ids).sum().backward()
    assert [table.weight.grad is None for table in embedding.tables] == [False, True, False]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_types_are_at_least_as_near_the_truth(dtype: torch.dtype) -> None:
    embedding, ids = make((64, 50))
    exact = copy.deepcopy(embedding).double()
    back = torch.randn(64, 50, 48).to(dtype)
    exact(ids).backward(back.double())
    embedding.to(dtype)
    plain = torch.cat([table(ids[..., place]) for place, table in enumerate(embedding.tables)], dim=-1)
    parameters = list(embedding.parameters())
    ours = torch.autograd.grad(embedding(ids), parameters, back)
    theirs = torch.autograd.grad(plain, parameters, back)
    for each, other, table in zip(ours, theirs, exact.parameters(), strict=True):
        assert each.dtype == dtype
        assert (each - table.grad).abs().max() <= (other - table.grad).abs().max()


def test_function_transforms_and_second_derivatives() -> None:
    embedding, ids = make((6, 5))
    weights = dict(embedding.named_parameters())

    def loss(weights: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.func.functional_call(embedding, weights, (ids,)).square().sum()

    loss(weights).backward()
    for name, each in torch.func.grad(loss)({name: each.detach() for name, each in weights.items()}).items():
        assert torch.equal(each, weights[name].grad)
    tables = [weight.detach().double().requires_grad_() for weight in weights.values()]
    few = ids[:2, :2] % 3
    assert torch.autograd.gradgradcheck(lambda *given: _Rows.apply(few, *(table[:3] for table in given)), tables)


def test_without_features_there_are_no_columns() -> None:
    embedding, _ = make((8,))
    assert FeatureEmbedding((), 16, 0.05)(torch.zeros(8, 5, 0, dtype=torch.long)).shape == (8, 5, 0)
    assert embedding.width == 48


@pytest.mark.parametrize("wrong", [-1, 20])
def test_an_id_outside_its_table_is_refused(wrong: int) -> None:
    embedding, ids = make((8,))
    ids[3, 1] = wrong
    with pytest.raises(IndexError, match="out of range"):
        embedding(ids)
