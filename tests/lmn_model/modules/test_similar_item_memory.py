"""A memory of similar items: writes, reads and moving sub-keys against loops, addresses that stay, and wrong input."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lmn_model import SimilarItemMemory

USERS, DIM, KEYS = 7, 5, 6


def make(**options: Any) -> SimilarItemMemory:
    return SimilarItemMemory(USERS, DIM, **{"sub_keys": KEYS, "top_k": 3, **options}).double()


def draw(events: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(events, DIM, generator=generator, dtype=torch.double)
    return vectors, torch.randint(USERS, (events,), generator=generator)


class Loops:
    """The memory of the module's head, one event after the other."""

    def __init__(self, top_k: int = 3) -> None:
        self.top_k = top_k
        self.count, self.keys = np.zeros((USERS, KEYS)), np.zeros((KEYS, DIM))
        self.recent, self.total, self.events = np.zeros(KEYS), np.zeros(KEYS), np.zeros(USERS)

    def route(self, vector: np.ndarray) -> list[tuple[int, float]]:
        cosines = [float(vector @ key) / np.linalg.norm(vector) / np.linalg.norm(key) for key in self.keys]
        best = sorted(range(KEYS), key=lambda n: (-cosines[n], n))[: self.top_k]
        powers = [math.exp(20 * cosines[n]) for n in best]
        return [(n, power / sum(powers)) for n, power in zip(best, powers, strict=True)]

    def write(self, vectors: Tensor, users: Tensor) -> None:
        rows = [vector / np.linalg.norm(vector) for vector in vectors.numpy()]
        for n in range(KEYS):
            if self.recent[n] < 0.75:
                self.keys[n], self.recent[n] = rows[n * len(rows) // KEYS], 1
                self.count[:, n], self.total[n] = 0, 0
        routes = [self.route(row) for row in rows]
        decay = math.exp(-len(rows) / (36 * KEYS))
        self.keys *= decay
        self.recent *= decay
        for row, user, route in zip(rows, users.tolist(), routes, strict=True):
            self.keys[route[0][0]] += row
            self.recent[route[0][0]] += 1
            self.events[user] += 1
            for n, weight in route:
                self.count[user, n] += weight
                self.total[n] += weight

    def read(self, vector: Tensor, user: int) -> list[float]:
        route = self.route(vector.numpy())
        count = sum(weight * self.count[user, n] for n, weight in route)
        total = sum(weight * self.total[n] for n, weight in route)
        expected = total * self.events[user] / self.events.sum()
        if self.events[user] == 0:
            return [0.0] * 3
        return [math.log1p(10 * count), math.log((count + 0.3) / (expected + 0.3)), (math.log1p(total) - 4) / 2]


@pytest.mark.parametrize("top_k", [1, 3, KEYS])
def test_writes_and_reads_are_those_of_loops(top_k: int) -> None:
    memory, loops = make(top_k=top_k), Loops(top_k)
    for seed, events in enumerate((40, 1, 3, 400, 17)):  # 400 events pass the memory of the sub-keys
        vectors, user = draw(events, seed)
        user[user == 6] = 5  # user 6 has no event
        if events == 400:
            vectors[:, 0] += 5  # what has been written so far is far from all of these
        memory.write(vectors, user)
        loops.write(vectors, user)
        np.testing.assert_allclose(memory.values.view(KEYS, USERS).T.numpy(), loops.count, atol=1e-12)
        np.testing.assert_allclose(memory.keys.numpy(), loops.keys, atol=1e-12)
        np.testing.assert_allclose(memory.key_events.numpy(), loops.recent, atol=1e-12)
        vectors, _ = draw(USERS, 99)
        found = memory(vectors, torch.arange(USERS))
        wanted = [loops.read(vector, user) for user, vector in enumerate(vectors)]
        np.testing.assert_allclose(found.numpy(), wanted, atol=1e-10)
        assert not found[6].any()
        assert not found.requires_grad


def test_sub_keys_without_events_restart() -> None:
    memory = make()
    first = torch.eye(DIM, dtype=torch.double)[torch.arange(60) % 7 % 2]  # places 20 to 50 restart at both
    memory.write(first, torch.zeros(60, dtype=torch.int64))
    other = -first
    for _ in range(20):  # 0.757 ** 20 of its 30 events are left of a sub-key of the first
        memory.write(other, torch.ones(60, dtype=torch.int64))
    directions = memory.keys / memory.keys.norm(dim=1, keepdim=True)
    assert (directions @ -torch.eye(DIM, dtype=torch.double)[:2].T).amax(1).min() > 0.99  # none is left of the first
    assert not memory.values.view(KEYS, USERS)[:, 0].any()
    assert float(memory.key_totals.sum()) == pytest.approx(float(memory.values.sum()))


def test_what_a_user_chose_counts_for_similar_items() -> None:
    memory = make(top_k=2)
    groups = torch.eye(DIM, dtype=torch.double)
    noise = 0.1 * draw(300)[0]
    group = torch.arange(300) % 3
    user = torch.where(group == 0, 0, 1 + torch.arange(300) % 4)  # user 0 chooses from group 0 alone
    memory.write(groups[group] + noise, user)
    new = groups[:3] + 0.1 * draw(3, 5)[0]  # vectors that were never written
    lift = memory(new, torch.zeros(3, dtype=torch.int64))[:, 1]
    assert lift[0] > 0.5
    assert lift[1:].max() < -2


def test_an_item_keeps_its_sub_keys_while_all_vectors_turn() -> None:
    """Without moving sub-keys, most items have other sub-keys after a quarter turn, and their counts are lost."""
    kept = {}
    for moving in (True, False):
        memory = make(top_k=1)
        items = draw(30, 3)[0]
        user = torch.arange(30) % USERS
        memory.write(items, user)
        fixed = memory.keys.clone()
        before = memory._route(items)[0]
        for step in range(1, 41):
            angle = torch.tensor(step / 40 * math.pi / 2)
            turn = torch.eye(DIM, dtype=torch.double)
            turn[:2, :2] = torch.tensor([[angle.cos(), -angle.sin()], [angle.sin(), angle.cos()]])
            turn[2:4, 2:4] = turn[:2, :2]
            turned = items @ turn.T
            for _ in range(4):
                memory.write(turned, user)
            if not moving:
                memory.keys.copy_(fixed)
        kept[moving] = float((memory._route(turned)[0] == before).double().mean())
    assert kept[True] > 0.8
    assert kept[False] < 0.5


def test_the_unseen_user_is_neither_written_nor_read() -> None:
    memory, without = make(unseen=2), make()
    vectors, user = draw(50)
    memory.write(vectors, user)
    without.write(vectors[user != 2], user[user != 2])
    for name, value in memory.state_dict().items():
        torch.testing.assert_close(value, without.state_dict()[name], rtol=0, atol=0)
    assert not memory(*draw(50))[user == 2].any()
    before = memory.keys.clone()
    memory.write(vectors[:3], torch.full((3,), 2))
    memory.write(vectors[:0], user[:0])
    torch.testing.assert_close(memory.keys, before, rtol=0, atol=0)


def test_nothing_is_read_of_an_empty_memory() -> None:
    memory = make()
    assert not memory(*draw(9)).any()
    assert memory(*draw(0)).shape == (0, SimilarItemMemory.SIGNALS)
    memory.write(*draw(9))
    assert memory(*draw(9)).any()
    memory.reset_parameters()
    for name, value in make().state_dict().items():
        torch.testing.assert_close(memory.state_dict()[name], value, rtol=0, atol=0)


def test_a_read_changes_nothing_and_takes_floats_of_any_type() -> None:
    memory = make().float()
    vectors, user = draw(40)
    memory.write(vectors.float(), user)
    state = {name: value.clone() for name, value in memory.state_dict().items()}
    found = memory(vectors, user.int())
    torch.testing.assert_close(found, memory(vectors.float(), user))
    for name, value in memory.state_dict().items():
        torch.testing.assert_close(value, state[name], rtol=0, atol=0)


def test_export_and_compile_read_alike() -> None:
    memory = make()
    memory.write(*draw(50))
    inputs = draw(20, 1)
    exported = torch.export.export(memory, inputs, dynamic_shapes=[{0: torch.export.Dim("batch")}] * 2)
    torch.testing.assert_close(exported.module()(*inputs), memory(*inputs), rtol=0, atol=0)
    compiled = torch.compile(memory, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(*inputs), memory(*inputs))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: make(top_k=7), ValueError, r"SimilarItemMemory: top_k must lie in \[1, sub_keys = 6\], got 7"),
        (lambda: make(top_k=0), ValueError, "SimilarItemMemory: top_k must be at least 1, got 0"),
        (lambda: make(sub_keys=0), ValueError, "SimilarItemMemory: sub_keys must be at least 1, got 0"),
        (lambda: make(sub_keys=1.5), TypeError, "SimilarItemMemory: sub_keys must be an int, got float"),
        (lambda: make(backend="cuda"), ValueError, "SimilarItemMemory: backend must be"),
        (
            lambda: make().write(draw(3)[0][:, :2], draw(3)[1]),
            ValueError,
            r"SimilarItemMemory: vectors must be \[B, C = 5\], got \[3, 2\]",
        ),
        (
            lambda: make()(draw(3)[0], draw(2)[1]),
            ValueError,
            r"SimilarItemMemory: user must be \[B = 3\], got \[2\]",
        ),
        (lambda: make()(draw(3)[0], draw(3)[1] + USERS), ValueError, r"user must hold ids in \[0, 7\)"),
        (lambda: make()(draw(3)[0], draw(3)[1].double()), TypeError, "must be int64 or int32, got torch.float64"),
    ],
)
def test_wrong_input(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
