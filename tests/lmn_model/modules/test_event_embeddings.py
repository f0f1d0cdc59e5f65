"""Embeddings that learn from every event: the loss against loops, sparse gradients, and what they come to hold."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from lmn_kernels.optim import RowAdagrad
from lmn_model import EventEmbeddings

SIZES, USERS = (20, 4), 8


def make(**options: Any) -> EventEmbeddings:
    return EventEmbeddings(SIZES, USERS, **{"dim": 6, "negatives": 3, **options}).double()


def draw(events: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    item = torch.stack([torch.randint(size, (events,), generator=generator) for size in SIZES], dim=1)
    return item, torch.randint(USERS, (events,), generator=generator)


def features_of(module: EventEmbeddings, item: Tensor, user: Tensor) -> Tensor:
    """Inner product and cosine, with an empty window."""
    window = torch.zeros(len(item), 0, 2, dtype=torch.int64)
    found = module(item, user, window, torch.zeros(len(item), 0, dtype=torch.bool))
    assert not found[:, 2:].any()
    return found[:, :2]


def rows(module: EventEmbeddings, item: Tensor, user: Tensor) -> tuple[Tensor, Tensor]:
    items = module.item_values[item[:, 0]] + module.item_values[SIZES[0] + item[:, 1]]
    return items, module.user_values[user]


def loss_by_loops(module: EventEmbeddings, item: Tensor, user: Tensor) -> float:
    items, users = (each.detach() for each in rows(module, item, user))
    P = len(item)
    size = min(module.negatives + 1, P)
    groups = math.ceil(P / size)
    positive = sum(math.log1p(math.exp(-float(users[p] @ items[p]))) for p in range(P)) / P
    negative, count = 0.0, 0
    for group in range(groups):
        members = [(group + groups * place) % P for place in range(size)]
        for p in members:
            for q in members:
                if item[p, 0] != item[q, 0] and user[p] != user[q]:
                    negative += math.log1p(math.exp(float(users[p] @ items[q])))
                    count += 1
    return positive + negative / max(count, 1)


@pytest.mark.parametrize("events", [1, 2, 3, 4, 5, 12, 31])
def test_the_loss_is_that_of_loops(events: int) -> None:
    module = make()
    item, user = draw(events)
    assert float(module.loss(item, user).detach()) == pytest.approx(loss_by_loops(module, item, user), rel=1e-12)


def test_members_of_a_group_lie_far_apart() -> None:
    """Neighbours in time, which may be one basket, are no negatives of each other."""
    module = make()
    item = torch.stack((torch.arange(20) % 20, torch.zeros(20, dtype=torch.int64)), dim=1)
    user = torch.arange(20) // 5 + 2  # the members 0, 5, 10 and 15 of a group have different users
    user[0] = 1  # event 0 alone has user 1, so its negatives are all that this row learns from
    module.loss(item, user).backward()
    with torch.no_grad():
        module.user_values.zero_()
    module.zero_grad()
    with torch.no_grad():
        module.item_values.copy_(torch.eye(24, 6, dtype=torch.double) * 0)
        module.item_values[:20, 0] = torch.arange(20.0).double().exp2()
    module.loss(item, user).backward()
    gradient = module.user_values.grad.to_dense()[1, 0]
    pulls = -0.5 * 1.0 / 20 + 0.5 * (2.0**5 + 2.0**10 + 2.0**15) / 60  # of items 0; 5, 10 and 15 of 60 negatives
    assert float(gradient) == pytest.approx(pulls)


def test_the_gradient_is_sparse_rows_of_the_events() -> None:
    module = make()
    item, user = draw(5)
    module.loss(item, user).backward()
    for values, touched in (
        (module.user_values, user.unique()),
        (module.item_values, torch.cat((item[:, 0], SIZES[0] + item[:, 1])).unique()),
    ):
        assert values.grad.is_sparse
        assert values.grad.coalesce().indices()[0].tolist() == touched.tolist()
    dense = make()
    dense.load_state_dict(module.state_dict())
    items, users = rows(dense, item, user)
    reference = torch.nn.functional.softplus(-(items * users).sum(1)).mean()
    members = [(group + 2 * place) % 5 for group in range(2) for place in range(4)]
    scores = [(p, q) for start in (0, 4) for p in members[start : start + 4] for q in members[start : start + 4]]
    pairs = [(p, q) for p, q in scores if item[p, 0] != item[q, 0] and user[p] != user[q]]
    negatives = torch.stack([torch.nn.functional.softplus(users[p] @ items[q]) for p, q in pairs])
    (reference + negatives.mean()).backward()
    for name in ("user_values", "item_values"):
        torch.testing.assert_close(getattr(module, name).grad.to_dense(), getattr(dense, name).grad)


def test_it_learns_which_users_choose_which_items() -> None:
    torch.manual_seed(0)
    module = make(dim=16, negatives=15)
    optimizer = RowAdagrad(module.values_parameters(), lr=0.1)
    for _ in range(150):
        user = torch.randint(8, (64,))
        item = torch.randint(10, (64,)) + 10 * (user >= 4)
        features = torch.stack((item, item // 10), dim=1)
        loss = module.loss(features, user)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    item = torch.arange(20)
    features = torch.stack((item, item // 10), dim=1)
    first, second = (features_of(module, features, torch.full((20,), user))[:, 0] for user in (0, 7))
    assert first[:10].min() > first[10:].max()
    assert second[10:].min() > second[:10].max()
    unknown = torch.tensor([[0, 0], [0, 1]])  # the row of item 0 as a stand-in for an item: its category decides
    with torch.no_grad():
        module.item_values[0] = 0
    scores = features_of(module, unknown, torch.tensor([0, 0]))[:, 0]
    assert scores[0] > scores[1]


def test_features_are_inner_product_and_cosine_without_a_gradient() -> None:
    module = make()
    item, user = draw(9)
    items, users = rows(module, item, user)
    inner = (items * users).sum(1)
    wanted = torch.stack((inner / 4, 2 * inner / (items.norm(dim=1) * users.norm(dim=1))), dim=1)
    found = features_of(module, item, user)
    torch.testing.assert_close(found, wanted.detach())
    assert not found.requires_grad
    assert features_of(module, *draw(0)).shape == (0, 2)


def test_similarity_to_the_window_is_that_of_loops() -> None:
    module = make()
    item, user = draw(9)
    window = draw(9 * 14, seed=2)[0].view(9, 14, 2)
    window[..., 1] = window[..., 0] % 4  # one category for each item
    item[:, 1] = item[:, 0] % 4
    window[0] = item[0]  # nothing but the item itself
    mask = torch.arange(14) >= 14 - torch.tensor([14, 0, 1, 2, 5, 10, 12, 13, 14])[:, None]
    found = module(item, user, window, mask)
    assert found.shape == (9, EventEmbeddings.SIGNALS)
    for row in range(9):
        ids = {int(each) for each in window[row][mask[row]][:, 0]} - {int(item[row, 0])}
        others = torch.tensor([[each, each % 4] for each in sorted(ids)], dtype=torch.int64).view(-1, 2)
        own, _ = rows(module, item[row : row + 1], user[row : row + 1])
        cosines = torch.cosine_similarity(rows(module, others, user[:1])[0], own).sort(descending=True).values
        wanted = (
            [2 * float(each.detach()) for each in (cosines.mean(), cosines.max(), cosines[:10].mean())]
            if ids
            else [0.0] * 3
        )
        assert found[row, 2:].tolist() == pytest.approx(wanted)
    assert not found[:2, 2:].any()


def test_without_events_the_loss_is_zero() -> None:
    module = make()
    loss = module.loss(*draw(0))
    assert float(loss.detach()) == 0
    loss.backward()
    assert all(not values.grad.to_dense().any() for values in module.values_parameters())


def test_the_unseen_has_no_row() -> None:
    module = make(unseen=1)
    item, user = draw(30)
    item[:10, 0], user[10:20] = 1, 1
    module.loss(item, user).backward()
    assert not module.item_values.grad.to_dense()[1].any()
    assert not module.user_values.grad.to_dense()[1].any()
    found = features_of(module, item, user)
    assert not found[user == 1].any()
    category = module.item_values[SIZES[0] + item[:10, 1]]
    known = item[:10, 1] != 1
    inner = (category * module.user_values[user[:10]]).sum(1) * known * (user[:10] != 1)
    torch.testing.assert_close(found[:10, 0], inner.detach() / 4)


def test_rows_can_be_drawn_anew() -> None:
    torch.manual_seed(5)
    module = EventEmbeddings(SIZES, USERS, dim=6)
    other = EventEmbeddings(SIZES, USERS, dim=6)
    torch.manual_seed(5)
    other.reset_parameters()
    for name, value in module.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], value, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: EventEmbeddings(SIZES, USERS, dim=0), ValueError, "EventEmbeddings: dim must be at least 1, got 0"),
        (lambda: EventEmbeddings(SIZES, USERS, negatives=0), ValueError, "negatives must be at least 1, got 0"),
        (lambda: EventEmbeddings((), USERS), ValueError, "EventEmbeddings: item_sizes must hold"),
        (
            lambda: features_of(make(), draw(3)[0][:, 0], draw(3)[1]),
            ValueError,
            r"EventEmbeddings: item must be \[B, F = 2\]",
        ),
        (lambda: make().loss(draw(3)[0] + 20, draw(3)[1]), ValueError, r"item must hold ids in \[0, 20\) of feature 0"),
        (
            lambda: make()(*draw(3), torch.zeros(3, 4, dtype=torch.int64), torch.zeros(3, 4).bool()),
            ValueError,
            r"EventEmbeddings: window must be \[B = 3, T, F\] with a mask \[B, T\], got \[3, 4\] and \[3, 4\]",
        ),
    ],
)
def test_wrong_input(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
