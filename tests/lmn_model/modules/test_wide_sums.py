"""Sums and counts of events stay right in modules that became float16 or bfloat16."""

from __future__ import annotations

import pytest
import torch

from lmn_model import EventEmbeddings, ProfileMemory, SimilarItemMemory

HALVES = [torch.float16, torch.bfloat16]


@pytest.mark.parametrize("dtype", HALVES)
def test_a_memory_of_similar_items_counts_on(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    vectors, user = torch.randn(1024, 8), torch.randint(4, (1024,))
    wide = SimilarItemMemory(4, vector_dim=8, sub_keys=8, top_k=2)
    half = SimilarItemMemory(4, vector_dim=8, sub_keys=8, top_k=2).to(dtype)
    for _ in range(6):
        wide.write(vectors, user)
        half.write(vectors.to(dtype), user)
    assert half.user_events.sum() == 6 * 1024
    read = half(vectors.to(dtype), user)
    assert read.dtype == dtype
    torch.testing.assert_close(half.key_totals.sum(), wide.key_totals.sum(), rtol=1e-3, atol=0)
    assert (read.float() - wide(vectors, user)).abs().mean() < 0.05


@pytest.mark.parametrize("dtype", HALVES)
def test_profiles_keep_their_mean(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    memory = ProfileMemory(20, 10, levels=2, dim=8, signed=True).to(dtype)
    item, user = torch.randint(20, (1024,)), torch.randint(10, (1024,))
    for _ in range(80):
        memory.write(item, user, torch.rand(1024).round())
    assert memory.table.values.dtype == dtype
    assert memory.mean_events.dtype == torch.float32
    assert memory.mean_events.min() > 60_000
    read = memory(item, user, item.unsqueeze(1), torch.ones(1024, 1, dtype=torch.bool))
    assert read.dtype == dtype
    assert read.isfinite().all()


@pytest.mark.parametrize("dtype", HALVES)
def test_a_new_item_has_no_cosine(dtype: torch.dtype) -> None:
    embeddings = EventEmbeddings([10], 8, dim=16).to(dtype)
    window, mask = torch.zeros(2, 1, 1, dtype=torch.int64), torch.zeros(2, 1, dtype=torch.bool)
    assert not embeddings(torch.tensor([[3], [4]]), torch.tensor([1, 2]), window, mask).any()


def test_a_default_type_and_a_conversion_that_is_wide_enough_hold() -> None:
    torch.set_default_dtype(torch.bfloat16)
    try:
        assert SimilarItemMemory(4, vector_dim=8, sub_keys=8, top_k=2).values.dtype == torch.float32
    finally:
        torch.set_default_dtype(torch.float32)
    memory = SimilarItemMemory(4, vector_dim=8, sub_keys=8, top_k=2).double()
    assert {memory.values.dtype, memory.keys.dtype, memory.float().keys.dtype} == {torch.float64, torch.float32}
    assert memory.half().to("meta").keys.dtype == torch.float32


def test_what_is_no_vector_and_no_id_is_refused() -> None:
    torch.manual_seed(0)
    similar, user = SimilarItemMemory(4, vector_dim=2, sub_keys=2, top_k=1), torch.tensor([1])
    with pytest.raises(ValueError, match="vectors must be finite, got nan"):
        similar.write(torch.tensor([[1.0, torch.nan]]), user)
    with pytest.raises(TypeError, match=r"vectors must be floats, got torch\.int64"):
        similar(torch.tensor([[1, 2]]), user)
    with pytest.raises(TypeError, match=r"user must be int64 or int32, got torch\.float32"):
        similar(torch.ones(1, 2), user.float())
    profiles = ProfileMemory(10, 8)
    with pytest.raises(ValueError, match=r"item must hold ids in \[0, 10\) of feature 0, got 11"):
        profiles.similar(torch.tensor([1]), torch.tensor([11]), "item")
    embeddings, mask = EventEmbeddings([10, 4], 8), torch.tensor([[True, False]])
    item = torch.tensor([[1, 2]])
    with pytest.raises(ValueError, match=r"window must hold ids in \[0, 10\) of feature 0, got 12"):
        embeddings(item, user, torch.tensor([[[12, 0], [0, 0]]]), mask)
    assert embeddings(item, user, torch.tensor([[[9, 0], [-1, 99]]]), mask).isfinite().all(), "masked ids may be any"
    with pytest.raises(ValueError, match=r"window must be \[B, T, F = 2\], got \[1, 2, 3\]"):
        embeddings(item, user, torch.zeros(1, 2, 3, dtype=torch.int64), mask)
    with pytest.raises(TypeError, match=r"mask must be bool, got torch\.float32"):
        embeddings(item, user, torch.zeros(1, 2, 2, dtype=torch.int64), mask.float())


def test_a_state_of_other_features_is_refused_and_one_on_meta_takes_it() -> None:
    torch.manual_seed(0)
    embeddings = EventEmbeddings([40, 5], 50, dim=8)
    with pytest.raises(RuntimeError, match=r"features begin at \[0, 40\], those of item_sizes at \[0, 41\]"):
        EventEmbeddings([41, 4], 50, dim=8).load_state_dict(embeddings.state_dict())
    item = torch.tensor([[7, 2], [39, 4]])
    for assign in (False, True):
        with torch.device("meta"):
            other = EventEmbeddings([40, 5], 50, dim=8)
        if not assign:
            other = other.to_empty(device="cpu")
        other.load_state_dict(embeddings.state_dict(), assign=assign)
        assert torch.equal(other.item_vectors(item), embeddings.item_vectors(item))


@pytest.mark.parametrize("real", [6, 3, 0])
def test_the_window_of_one_user_is_read_once_and_alike(real: int) -> None:
    torch.manual_seed(0)
    embeddings = EventEmbeddings([40, 5], 50, dim=8)
    item, user = torch.stack((torch.randint(40, (30,)), torch.randint(5, (30,))), dim=1), torch.full((30,), 4)
    window = torch.stack((torch.randint(40, (1, 6)), torch.randint(5, (1, 6))), dim=2).expand(30, -1, -1)
    mask = (torch.arange(6) < real).expand(30, -1)
    alone = [embeddings(item[row : row + 1], user[:1], window[:1], mask[:1]) for row in range(30)]
    torch.testing.assert_close(embeddings(item, user, window, mask), torch.cat(alone))
    torch.testing.assert_close(embeddings(item, user, window[:, :0], mask[:, :0])[:, :2], torch.cat(alone)[:, :2])
    profiles = ProfileMemory(40, 50, levels=2, dim=8)
    for _ in range(20):
        profiles.write(torch.randint(40, (99,)), torch.randint(50, (99,)))
    alone = [profiles(item[row : row + 1, 0], user[:1], window[:1, :, 0], mask[:1]) for row in range(30)]
    torch.testing.assert_close(profiles(item[:, 0], user, window[..., 0], mask), torch.cat(alone))
