"""Ids that no size bounds: read and written from the first event on, in every module, and the same everywhere."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from torch import Tensor

from lmn_kernels.optim import RowAdagrad
from lmn_model import EventEmbeddings, FactoredMemoryNetwork, ProfileMemory, SimilarItemMemory
from lmn_model.ctr.feature_embedding import FeatureEmbedding
from lmn_model.data import CategoricalFeature
from lmn_model.modules.open_ids import rows_of_ids

BIG = 1 << 61
EXTREMES = torch.tensor([-(1 << 63), -1, 50, 1 << 32, (1 << 63) - 1])


def network(**options: Any) -> FactoredMemoryNetwork:
    values = {"code_dim": 64, "sub_keys": 128, "open_ids": True, **options}
    return FactoredMemoryNetwork([20, 5], 10, **values)


def write(memory: FactoredMemoryNetwork, item: Tensor, user: Tensor) -> None:
    optimizer = RowAdagrad(memory.values_parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        memory.losses(item, user).answer.backward()
        optimizer.step()


def test_rows_of_ids_are_own_or_shared() -> None:
    ids = torch.cat((torch.arange(50), EXTREMES))
    rows = rows_of_ids(ids, own=50, shared=7)
    assert torch.equal(rows[:50], torch.arange(50))
    assert rows[50:].tolist() == rows_of_ids(EXTREMES, own=50, shared=7).tolist()
    assert rows[50:].min() >= 50
    assert rows[50:].max() < 57
    assert len(rows_of_ids(torch.arange(1000) + BIG, own=0, shared=7).unique()) == 7
    assert torch.equal(rows_of_ids(EXTREMES, own=50, shared=0), EXTREMES)


@pytest.mark.parametrize("marginals", [True, False])
def test_ids_with_stored_codes_read_as_without_open_ids(marginals: bool) -> None:
    torch.manual_seed(0)
    opened = network(marginals=marginals)
    closed = network(open_ids=False, marginals=marginals)
    rows, users = closed.item_codes.shape[0], closed.user_codes.shape[0]
    state = opened.state_dict()
    closed.load_state_dict(
        state | {"item_codes": state["item_codes"][:rows], "user_codes": state["user_codes"][:users]}
    )
    item, user = torch.stack((torch.arange(1, 20), torch.arange(1, 20) % 5), dim=1), torch.arange(1, 20) % 10
    for each in (opened, closed):
        write(each, item[:7], user[:7])
    assert torch.equal(opened(item, user), closed(item, user))
    assert opened(item, user)[:7].abs().sum() > 0


def test_a_new_pair_is_read_after_its_first_event_and_no_other_is() -> None:
    torch.manual_seed(0)
    memory = network(marginals=False)
    item = torch.tensor([[BIG, 3], [BIG + 1, 3], [7, BIG + 2], [BIG, BIG]])
    user = torch.tensor([BIG, 4, BIG + 5, -9])
    assert not memory(item, user).any()
    write(memory, item, user)
    found = memory(item, user).view(4, 2, 4)[..., 2] / 3  # cosines
    assert found.min() > 0.8
    others = memory(item, user + 100).view(4, 2, 4)[..., 2] / 3
    assert others.abs().max() < 0.6
    assert not torch.equal(memory(item[:1], user[:1]), memory(item[:1].flip(1), user[:1])), "features have other codes"


def test_nothing_is_stored_for_an_id_and_sizes_may_be_zero() -> None:
    torch.manual_seed(0)
    memory = FactoredMemoryNetwork([0, 0], 0, open_ids=True, code_dim=32, sub_keys=64)
    sizes = {name: value.shape for name, value in memory.state_dict().items()}
    item, user = torch.randint(-BIG, BIG, (40, 2)), torch.randint(-BIG, BIG, (40,))
    write(memory, item, user)
    assert {name: value.shape for name, value in memory.state_dict().items()} == sizes
    assert memory(item, user)[:, 0].mean() > 0.3
    again = FactoredMemoryNetwork([0, 0], 0, open_ids=True, code_dim=32, sub_keys=64)
    again.load_state_dict(memory.state_dict())
    assert torch.equal(again(item, user), memory(item, user))
    with pytest.raises(ValueError, match="item_sizes"):
        FactoredMemoryNetwork([0], 1)


def test_a_compiled_and_an_exported_memory_make_the_same_codes() -> None:
    torch.manual_seed(0)
    memory = network(top_k=2).eval()
    item, user = torch.tensor([[BIG, 3], [4, 4], [BIG + 9, BIG]]), torch.tensor([BIG, 4, -1])
    write(memory, item, user)
    expected = memory(item, user)
    compiled = torch.compile(memory, backend="aot_eager")
    torch.testing.assert_close(compiled(item, user), expected)
    file = io.BytesIO()
    sizes = ({0: torch.export.Dim("batch", min=2, max=64)},) * 2
    torch.export.save(torch.export.export(memory, (item, user), dynamic_shapes=sizes), file)
    file.seek(0)
    loaded = torch.export.load(file).module()
    torch.testing.assert_close(loaded(item[:2], user[:2]), memory(item[:2], user[:2]))


def test_a_new_user_has_a_profile_after_three_events() -> None:
    torch.manual_seed(0)
    user = torch.randint(1, 200, (20_000,))
    item = torch.randint(50, (20_000,)) + 50 * (user >= 100)
    profiles = ProfileMemory(100, 200, levels=3, open_rows=512)
    for step in torch.arange(20_000).split(500):
        profiles.write(item[step], user[step])
    new = torch.full((100,), BIG + 3)
    window, mask = torch.zeros(100, 0, dtype=torch.int64), torch.zeros(100, 0, dtype=torch.bool)
    assert not profiles(torch.arange(100), new, window, mask)[:, 2].any()
    profiles.write(torch.tensor([7, 21, 33]), new[:3])
    score = profiles(torch.arange(100), new, window, mask)[:, 2]
    assert score[:50].min() > score[50:].max()
    with pytest.raises(ValueError, match="open_rows must be 0 with rows"):
        ProfileMemory(None, None, rows=8, open_rows=4)


def test_embeddings_and_similar_items_take_new_ids_and_refuse_them_without_rows() -> None:
    torch.manual_seed(0)
    embeddings = EventEmbeddings([30, 5], 20, dim=16, open_rows=64)
    similar = SimilarItemMemory(20, vector_dim=16, sub_keys=8, top_k=2, open_rows=64)
    item, user = torch.tensor([[BIG, 2], [3, 4], [BIG + 1, BIG]]), torch.tensor([BIG, 5, -7])
    vectors = embeddings.item_vectors(item)
    assert torch.equal(vectors[0], embeddings.item_values[30 + 2]), "a new item begins as its known category"
    before = similar(vectors, user)
    similar.write(vectors.repeat(30, 1), user.repeat(30))
    assert (similar(vectors, user)[:, 0] > before[:, 0]).all()
    rows = RowAdagrad(embeddings.values_parameters(), lr=0.1)
    for _ in range(20):
        rows.zero_grad()
        embeddings.loss(item, user).backward()
        rows.step()
    assert embeddings.item_vectors(item)[0].ne(vectors[0]).any()
    closed = EventEmbeddings([30, 5], 20, dim=16), SimilarItemMemory(20, vector_dim=16, sub_keys=8, top_k=2)
    with pytest.raises(ValueError, match=f"{BIG}"):
        closed[0].item_vectors(item)
    with pytest.raises(ValueError, match="user"):
        closed[1](vectors, user)


def test_a_towers_embedding_has_one_row_for_all_new_ids() -> None:
    features = (CategoricalFeature("user", 8), CategoricalFeature("city", 4))
    embedding = FeatureEmbedding(features, 3, 0.1, open_ids=True)
    ids = torch.tensor([[BIG, 2], [1, 2], [5, BIG + 1], [5, 1]])
    rows = embedding(ids)
    assert torch.equal(rows[0], rows[1])
    assert torch.equal(rows[2], rows[3])
    with pytest.raises(IndexError):
        FeatureEmbedding(features, 3, 0.1)(ids)
