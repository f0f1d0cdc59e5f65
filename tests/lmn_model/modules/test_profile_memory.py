"""Profiles: writes and reads against loops, neighbours that become similar, shared rows, and wrong input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from profiles_factory import ITEMS, USERS, Loops, draw, make, two_groups

from lmn_model import ProfileMemory


def test_writes_and_reads_are_those_of_loops() -> None:
    memory, loops = make(), Loops()
    for step in range(6):
        item, user = draw(40, step)
        window = torch.stack([draw(14, 100 + 50 * step + row)[0] for row in range(40)])
        mask = torch.arange(14) >= 14 - torch.arange(40)[:, None] % 15  # from none to all of the window
        found = memory(item, user, window, mask)
        wanted = [
            loops.read(int(i), int(u), w[m].tolist()) for i, u, w, m in zip(item, user, window, mask, strict=True)
        ]
        torch.testing.assert_close(found, torch.tensor(wanted, dtype=torch.double), rtol=1e-9, atol=1e-9)
        memory.write(item, user)
        loops.write(item, user)
    table = memory.table.values.view(-1, 8)
    rows = np.concatenate([loops.V.reshape(-1, 8), loops.U.reshape(-1, 8)])
    torch.testing.assert_close(table, torch.from_numpy(rows), rtol=1e-9, atol=1e-9)
    assert memory.signals == found.shape[1]


def test_a_write_does_not_read_what_it_writes() -> None:
    item, user = draw(30)
    order = torch.randperm(30)
    first, second = make(), make()
    for memory, rows in ((first, torch.arange(30)), (second, order)):
        memory.write(item[rows], user[rows])
        memory.write(item[rows], user[rows])
    torch.testing.assert_close(first.table.values, second.table.values, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("rows", [None, 64])
def test_users_and_items_of_one_group_become_similar(rows: int | None) -> None:
    memory = make(dim=64, rows=rows)
    item, user = two_groups(600)
    for part in range(0, 600, 20):
        memory.write(item[part : part + 20], user[part : part + 20])
    for kind, ids, group in (("item", torch.arange(20), 10), ("user", torch.arange(8), 4)):
        cosines = memory.similar(ids, ids, kind)
        same = (ids[:, None] // group == ids // group) & ~torch.eye(len(ids), dtype=torch.bool)
        other = ids[:, None] // group != ids // group
        assert cosines[same].mean() > 0.7
        assert cosines[other].mean() < 0.0
        torch.testing.assert_close(memory.similar(ids, ids, kind, memory.levels - 1), cosines)
        assert not torch.allclose(memory.similar(ids, ids, kind, 0), cosines)


def test_a_user_with_few_events_is_scored_by_what_similar_users_chose() -> None:
    memory = make(dim=64)
    item, user = two_groups(600)
    kept = (user != 0) | (item < 2)  # user 0 has events of items 0 and 1 alone
    for part in range(0, 600, 20):
        chosen = kept[part : part + 20]
        memory.write(item[part : part + 20][chosen], user[part : part + 20][chosen])
    candidates = torch.arange(20)
    none = torch.zeros(20, 0, dtype=torch.int64)
    score = memory(candidates, torch.zeros_like(candidates), none, none.bool())[:, 2]  # the last level
    assert score[2:10].min() > score[10:].max()


def test_shared_rows_are_rows_of_their_own_but_for_noise() -> None:
    own, shared = make(dim=512), make(dim=512, rows=12)
    item, user = two_groups(400)
    for part in range(0, 400, 20):
        for memory in (own, shared):
            memory.write(item[part : part + 20], user[part : part + 20])
    assert shared.table.values.shape[0] == 3 * 24
    item, user = torch.arange(160) % 20, torch.arange(160) // 20  # all pairs
    none = torch.zeros(160, 0, dtype=torch.int64)
    first, second = (memory(item, user, none, none.bool())[:, 2] for memory in (own, shared))
    assert np.corrcoef(first, second)[0, 1] > 0.7


def test_open_ids_are_written_from_their_first_event_on() -> None:
    """Ids are hashes of names: no number of ids is given, and the rows are those of a memory with small ids."""
    memory = ProfileMemory(None, None, levels=3, dim=64, rows=512).double()
    item, user = two_groups(600)
    names_of_items, names_of_users = (torch.randint(-(2**63), 2**63 - 1, (each,)) for each in (20, 8))
    for part in torch.arange(600).split(20):
        memory.write(names_of_items[item[part]], names_of_users[user[part]])
    new_user = torch.tensor([2**62 + 12345])
    for each in (11, 14, 17):
        memory.write(names_of_items[each : each + 1], new_user)
    none = torch.zeros(20, 0, dtype=torch.int64)
    score = memory(names_of_items, new_user.expand(20), none, none.bool())[:, 2]
    assert score[10:].min() > score[:10].max()
    with pytest.raises(ValueError, match="rows must be set where item_size or user_size is None, got None"):
        ProfileMemory(None, 5)
    half = ProfileMemory(None, 5, rows=8)
    half.write(torch.tensor([-7]), torch.tensor([4]))
    with pytest.raises(ValueError, match=r"user must hold ids in \[0, 5\), got 5"):
        half.write(torch.tensor([-7]), torch.tensor([5]))


def test_the_unseen_are_not_written_and_read_as_zeros() -> None:
    memory = make(unseen=1)
    item, user = draw(50)
    item[:5], user[5:10] = 1, 1
    memory.write(item, user)
    other = make(unseen=1)
    known = (item != 1) & (user != 1)
    other.write(item[known], user[known])
    torch.testing.assert_close(memory.table.values, other.table.values, rtol=0, atol=0)
    window = draw(150)[0].view(50, 3)
    found = memory(item, user, window, torch.ones_like(window, dtype=torch.bool))
    assert (found[item == 1][:, [0, 1, 2, 3, 4]] == 0).all()  # cosines with a user
    assert (found[user == 1][:, [0, 1, 2, 3, 4]] == 0).all()
    assert (found[item == 1][:, 8] == -2).all()
    assert (found[user == 1][:, 9] == -2).all()
    assert (found[item == 1][:, 9] > -2).any()  # what is known of the user stays
    assert found[known].any(1).all()


def test_the_memory_is_in_the_state_and_can_be_emptied() -> None:
    memory, other = make(), make()
    memory.write(*draw(50))
    other.load_state_dict(memory.state_dict())
    item, user = draw(20, 1)
    window = draw(60, 2)[0].view(20, 3)
    mask = torch.ones_like(window, dtype=torch.bool)
    torch.testing.assert_close(memory(item, user, window, mask), other(item, user, window, mask), rtol=0, atol=0)
    memory.reset_parameters()
    for value, empty in zip(memory.state_dict().values(), make().state_dict().values(), strict=True):
        torch.testing.assert_close(value, empty, rtol=0, atol=0)


def test_nothing_has_a_gradient_and_nothing_to_write_changes_nothing() -> None:
    memory = make()
    memory.write(*draw(50))
    before = memory.table.values.clone()
    memory.write(*draw(0))
    torch.testing.assert_close(memory.table.values, before, rtol=0, atol=0)
    item, user = draw(4)
    window = torch.zeros(4, 0, dtype=torch.int64)
    found = memory(item, user, window, window.bool())
    assert not found.requires_grad
    assert not found[:, 5:8].any()
    assert memory(*draw(0), window[:0], window[:0].bool()).shape == (0, memory.signals)
    assert not any(parameter.requires_grad for parameter in memory.parameters())


def test_int32_ids_and_a_window_shorter_than_ten() -> None:
    memory = make()
    memory.write(*draw(50))
    item, user = draw(20, 1)
    window = draw(60, 2)[0].view(20, 3)
    mask = torch.ones_like(window, dtype=torch.bool)
    found = memory(item.int(), user.int(), window.int(), mask)
    torch.testing.assert_close(found, memory(item, user, window, mask), rtol=0, atol=0)


def test_without_a_window_the_other_features_stay() -> None:
    memory, other = make(), make(window=False)
    for each in (memory, other):
        each.write(*draw(50))
    item, user = draw(20, 1)
    window = draw(60, 2)[0].view(20, 3)
    mask = torch.ones_like(window, dtype=torch.bool)
    found = memory(item, user, window, mask)
    torch.testing.assert_close(other(item, user, window, mask), torch.cat((found[:, :5], found[:, 8:]), dim=1))
    assert other.signals == memory.signals - 3


def test_padding_with_the_id_of_an_item_hides_nothing() -> None:
    memory = make()
    memory.write(*draw(50))
    item, user = torch.tensor([3]), torch.tensor([2])
    window, mask = torch.tensor([[5, 5, 4]]), torch.tensor([[False, True, True]])
    found = memory(item, user, window, mask)
    torch.testing.assert_close(found, memory(item, user, window[:, 1:], mask[:, 1:]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_narrow_rows_stay_finite_and_count_on(dtype: torch.dtype) -> None:
    memory = make(levels=2).to(dtype)
    item, user = two_groups(600)
    for part in torch.arange(600).split(20):
        memory.write(item[part], user[part])
    window = item[:60].view(20, 3)
    assert memory(item[:20], user[:20], window, torch.ones_like(window).bool()).isfinite().all()
    assert int(memory.item_events.sum()) == 600


def test_events_in_one_call_are_those_of_many() -> None:
    """However many events a call has, 1,024 at a time are written."""
    one, many = make(), make()
    item, user = draw(7000)
    one.write(item, user)
    for part in torch.arange(7000).split(1024):
        many.write(item[part], user[part])
    torch.testing.assert_close(one.table.values, many.table.values, rtol=0, atol=0)
    assert one.table.values.view(-1, 8).any(1).all()  # every level is reached


def test_the_mean_does_not_depend_on_the_events_of_a_call() -> None:
    found = []
    for size in (20, 500):
        memory = make(dim=64)
        item, user = two_groups(20_000)
        for part in torch.arange(20_000).split(size):
            memory.write(item[part], user[part])
        none = torch.zeros(160, 0, dtype=torch.int64)
        pairs = torch.arange(160)
        found.append(memory(pairs % 20, pairs // 20, none, none.bool())[:, :3])
    assert (found[0] - found[1]).abs().mean() < 1.0  # of 12 between the groups


def test_export_and_compile_read_alike() -> None:
    memory = make()
    memory.write(*draw(50))
    item, user = draw(20, 1)
    window = draw(60, 2)[0].view(20, 3)
    inputs = (item, user, window, torch.ones_like(window, dtype=torch.bool))
    batch = torch.export.Dim("batch")
    exported = torch.export.export(memory, inputs, dynamic_shapes=[{0: batch}] * 4)
    torch.testing.assert_close(exported.module()(*inputs), memory(*inputs), rtol=0, atol=0)
    compiled = torch.compile(memory, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(*inputs), memory(*inputs))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"levels": 0}, ValueError, "ProfileMemory: levels must be at least 1, got 0"),
        ({"dim": 1.5}, TypeError, "ProfileMemory: dim must be an int, got float"),
        ({"rows": 0}, ValueError, "ProfileMemory: rows must be at least 1, got 0"),
        ({"backend": "cuda"}, ValueError, "ProfileMemory: backend must be"),
    ],
)
def test_wrong_sizes(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make(**options)


def test_wrong_ids() -> None:
    memory = make()
    item, user = draw(4)
    with pytest.raises(ValueError, match=r"ProfileMemory: item must be \[B\], got \[4, 1\]"):
        memory.write(item[:, None], user)
    with pytest.raises(ValueError, match=rf"item must hold ids in \[0, {ITEMS}\) of feature 0, got {ITEMS}"):
        memory.write(torch.full_like(item, ITEMS), user)
    with pytest.raises(ValueError, match=rf"user must hold ids in \[0, {USERS}\), got -1"):
        memory.write(item, torch.full_like(user, -1))
    with pytest.raises(TypeError, match=r"item must be int64 or int32, got torch.float32"):
        memory.write(item.float(), user)
    with pytest.raises(ValueError, match=rf"window must hold ids in \[0, {ITEMS}\), got {ITEMS}"):
        memory(item, user, torch.full((4, 1), ITEMS), torch.ones(4, 1).bool())
    memory(item, user, torch.full((4, 1), -1), torch.zeros(4, 1).bool())  # padding may be anything
    with pytest.raises(ValueError, match="kind must be one of"):
        memory.similar(item, item, "brand")
    with pytest.raises(
        ValueError, match=rf"ProfileMemory: level must be below levels = {memory.levels}, got {memory.levels}"
    ):
        memory.similar(item, item, "item", memory.levels)
    window = torch.zeros(4, 3, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"window must be \[B = 4, T\] with a mask \[B, T\], got \[3\] and \[4, 3\]"):
        memory(item, user, window[0], window.bool())
    assert not memory.table.values.any()
