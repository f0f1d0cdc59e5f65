"""The embeddings of features against ``torch.nn.Embedding``, values and gradients to the last bit."""

from __future__ import annotations

import pytest
import torch

from lmn_model.data import CategoricalFeature
from lmn_model.feature_embedding import FeatureEmbedding

FEATURES = (CategoricalFeature("item", 500), CategoricalFeature("category", 20), CategoricalFeature("brand", 3))


def make(shape: tuple[int, ...]) -> tuple[FeatureEmbedding, torch.Tensor]:
    torch.manual_seed(0)
    ids = torch.stack([torch.randint(feature.size, shape) for feature in FEATURES], dim=-1)
    return FeatureEmbedding(FEATURES, 16, 0.05), ids


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("shape", [(64, 50), (1024,), (1, 1), (0, 50), (2, 3, 4)])
def test_equal_to_the_tables_of_torch_to_the_last_bit(shape: tuple[int, ...], threads: int) -> None:
    embedding, ids = make(shape)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        out = embedding(ids)
        plain = torch.cat([table(ids[..., place]) for place, table in enumerate(embedding.tables)], dim=-1)
        assert torch.equal(out, plain)
        assert out.shape == (*shape, embedding.width)
        back = torch.randn(out.shape)
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
        torch.testing.assert_close(each, other, atol=1e-5, rtol=1e-5)


def test_a_table_that_is_frozen_has_no_gradient() -> None:
    embedding, ids = make((8,))
    embedding.tables[1].weight.requires_grad_(False)
    embedding(ids).sum().backward()
    assert [table.weight.grad is None for table in embedding.tables] == [False, True, False]


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
