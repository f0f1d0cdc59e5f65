"""Inputs that a factored memory refuses, each by name and value."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor

from lmn_model import FactoredMemoryNetwork


def ids(*rows: Any) -> Tensor:
    return torch.tensor(rows, dtype=torch.int64)


@pytest.mark.parametrize("marginals", [False, True])
@pytest.mark.parametrize(
    ("item", "user", "error", "message"),
    [
        (torch.zeros(3, 2), ids(0, 0, 0), TypeError, "item must be int64 or int32, got torch.float32"),
        (
            ids([0, 0], [0, 0]),
            torch.zeros(2, dtype=torch.int16),
            TypeError,
            "user must be int64 or int32, got torch.int16",
        ),
        (ids([0], [0], [0]), ids(0, 0, 0), ValueError, r"item must be \[B, F = 2\], got \[3, 1\]"),
        (ids(0, 0), ids(0, 0), ValueError, r"item must be \[B, F = 2\], got \[2\]"),
        (ids([0, 0], [0, 0]), ids(0), ValueError, r"user must be \[B = 2\], got \[1\]"),
        (ids([29, 5], [3, 6]), ids(1, 1), ValueError, r"item must hold ids in \[0, 6\) of feature 1, got 6"),
        (ids([29, 5], [-1, 5]), ids(1, 1), ValueError, r"item must hold ids in \[0, 30\) of feature 0, got -1"),
        (ids([29, 5], [0, 5]), ids(1, 11), ValueError, r"user must hold ids in \[0, 11\), got 11"),
    ],
)
def test_ids(item: Tensor, user: Tensor, error: type[Exception], message: str, marginals: bool) -> None:
    network = FactoredMemoryNetwork([30, 6], 11, sub_keys=8, marginals=marginals)
    with pytest.raises(error, match=message):
        network(item, user)
    with pytest.raises(error, match=message):
        network.losses(item, user)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"item_sizes": []}, r"item_sizes must hold .* got \(\)"),
        ({"item_sizes": [4, 0]}, r"item_sizes must hold .* got \(4, 0\)"),
        ({"user_size": 0}, "user_size must be at least 1, got 0"),
        ({"code_dim": 0}, "code_dim must be at least 1, got 0"),
        ({"unseen": -1}, "unseen must be None or at least 0, got -1"),
    ],
)
def test_sizes(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FactoredMemoryNetwork(**{"item_sizes": [4, 3], "user_size": 5, "sub_keys": 8, **changed})


@pytest.mark.parametrize("sizes", [30, [30.0], None, ["30"]])
def test_sizes_that_are_no_integers(sizes: Any) -> None:
    with pytest.raises(TypeError, match=rf"item_sizes must be a list of integers, got {re.escape(repr(sizes))}"):
        FactoredMemoryNetwork(sizes, 5, sub_keys=8)


def test_int32_ids_are_as_int64() -> None:
    network = FactoredMemoryNetwork((size for size in (30, 6)), 11, sub_keys=8)  # type: ignore[arg-type]
    torch.nn.init.normal_(network.block.values)
    item, user = ids([29, 5], [3, 0]), ids(10, 1)
    torch.testing.assert_close(network(item.int(), user.int()), network(item, user))
    assert repr(network).startswith("FactoredMemoryNetwork(\n  item_sizes=[30, 6], user_size=11, signals=24")
