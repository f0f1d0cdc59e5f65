"""Hashes of ids against the published algorithm, and signs that are balanced and independent."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lmn_model.modules.hashing import hashed, hashed_rows, hashed_signs

MASK = 2**64 - 1


def split_mix(state: int) -> int:
    """The output function of SplitMix64 as published, with Python's integers."""
    z = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & MASK
    return z ^ (z >> 31)


def test_the_first_outputs_of_split_mix() -> None:
    # Of seed 0: the n-th output is the hash of 0 under salt n.
    found = [int(hashed(torch.tensor(0), salt)) & MASK for salt in range(3)]
    assert found == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]


@pytest.mark.parametrize("salt", [0, 1, 77])
def test_against_python_integers(salt: int) -> None:
    ids = [0, 1, 2, 2**31, 2**62 + 5, -1, -(2**63), 2**63 - 1]
    found = hashed(torch.tensor(ids), salt).tolist()
    wanted = [split_mix(each + (salt + 1) * 0x9E3779B97F4A7C15 & MASK) for each in ids]
    assert [each & MASK for each in found] == wanted


def test_int32_ids_have_the_hash_of_int64_ids() -> None:
    ids = torch.tensor([0, 5, 2**31 - 1])
    torch.testing.assert_close(hashed(ids.int()), hashed(ids), rtol=0, atol=0)


def test_rows_are_in_range_and_even() -> None:
    rows = hashed_rows(torch.arange(20_000), 10)
    counts = np.bincount(rows.numpy(), minlength=10)
    assert len(counts) == 10
    assert abs(counts - 2000).max() < 250  # six standard deviations


@pytest.mark.parametrize("width", [1, 63, 64, 65, 200])
def test_signs(width: int) -> None:
    signs = hashed_signs(torch.arange(3000), width)
    assert signs.shape == (3000, width)
    assert signs.dtype == torch.get_default_dtype()
    assert set(signs.unique().tolist()) == {-1.0, 1.0}
    assert signs.mean(0).abs().max() < 0.12  # 6 / sqrt(3000)


def test_signs_of_ids_columns_and_salts_are_independent() -> None:
    signs = hashed_signs(torch.arange(400), 256)
    gram = signs @ signs.T / 256 - torch.eye(400)
    assert gram.abs().max() < 0.4
    columns = signs.T @ signs / 400 - torch.eye(256)
    assert columns.abs().max() < 0.32
    other = hashed_signs(torch.arange(400), 256, salt=1)
    assert ((signs * other).mean(1)).abs().max() < 0.4


def test_signs_do_not_depend_on_the_batch() -> None:
    ids = torch.tensor([[7, 9], [7, 1]])
    signs = hashed_signs(ids, 70)
    assert signs.shape == (2, 2, 70)
    torch.testing.assert_close(signs[0, 0], hashed_signs(torch.tensor([7]), 70)[0], rtol=0, atol=0)
    torch.testing.assert_close(signs[0, 0], signs[1, 0], rtol=0, atol=0)
