"""Signed profiles: writes by labels and running rates against loops, and labels that do not fit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from profiles_factory import ITEMS, USERS, Loops, draw, make, unit


def test_signed_writes_are_those_of_loops() -> None:
    memory, loops = make(signed=True), Loops()
    samples, positives = np.zeros(ITEMS), np.zeros(ITEMS)
    user_samples, user_positives = np.zeros(USERS), np.zeros(USERS)

    def logit(rate: float) -> float:
        return float(np.log(rate / (1 - rate)))

    def expected(i: int, u: int) -> tuple[float, float, float]:
        overall = (positives.sum() + 1) / (samples.sum() + 2)
        of_item = logit((positives[i] + 10 * overall) / (samples[i] + 10))
        of_user = logit((user_positives[u] + 10 * overall) / (user_samples[u] + 10))
        return of_item, of_user, of_item + of_user - logit(overall)

    for step in range(5):
        item, user = draw(40, step)
        label = (torch.arange(40) % 3 == 0).double()
        none = torch.zeros(40, 0, dtype=torch.int64)
        rates = np.array([expected(int(i), int(u)) for i, u in zip(item, user, strict=True)])
        found = memory(item, user, none, none.bool())[:, -3:]
        torch.testing.assert_close(found, torch.from_numpy(rates), rtol=1e-4, atol=1e-5)
        sign = label.numpy() - 1 / (1 + np.exp(-rates[:, 2]))
        U, V = loops.U.copy(), loops.V.copy()
        for i, u, s in zip(item.tolist(), user.tolist(), sign, strict=True):
            for k in range(3):
                written = loops.codes[i] if k == 0 else unit(loops.V[k - 1, i])
                U[k, u] += s * (samples[i] + 10) ** -0.25 * written
                V[k, i] += s * loops.centred(k, u)
        loops.count_mean(user)
        memory.write(item, user, label)
        loops.U, loops.V = U, V
        np.add.at(samples, item.numpy(), 1)
        np.add.at(positives, item.numpy(), label.numpy())
        np.add.at(user_samples, user.numpy(), 1)
        np.add.at(user_positives, user.numpy(), label.numpy())
    rows = np.concatenate([loops.V.reshape(-1, 8), loops.U.reshape(-1, 8)])
    torch.testing.assert_close(
        memory.table.values, torch.from_numpy(rows).to(memory.table.values), rtol=1e-3, atol=1e-5
    )
    memory.reset_values()
    assert not memory.rates.total.any()


def test_signs_separate_liked_from_shown() -> None:
    """All users are shown all items; two groups like different halves: only signed profiles differ."""
    generator = torch.Generator().manual_seed(0)
    item, user = torch.randint(20, (4000,), generator=generator), torch.randint(8, (4000,), generator=generator)
    label = ((item < 10) == (user < 4)).double()
    signed, unsigned = make(dim=64, signed=True), make(dim=64)
    for part in torch.arange(4000).split(20):
        signed.write(item[part], user[part], label[part])
        unsigned.write(item[part], user[part])
    pairs = torch.arange(160)
    none = torch.zeros(160, 0, dtype=torch.int64)
    liked = (pairs % 20 < 10) == (pairs // 20 < 4)
    for memory, apart in ((signed, True), (unsigned, False)):
        score = memory(pairs % 20, pairs // 20, none, none.bool())[:, 2]
        assert bool(score[liked].min() > score[~liked].max()) == apart


def test_labels_that_do_not_fit() -> None:
    item, user = draw(4)
    with pytest.raises(ValueError, match="ProfileMemory: label must be given for signed = True"):
        make(signed=True).write(item, user)
    with pytest.raises(ValueError, match="ProfileMemory: label must be None for signed = False"):
        make().write(item, user, torch.ones(4))
    with pytest.raises(ValueError, match=r"ProfileMemory: label must be \[P = 4\], got \[3\]"):
        make(signed=True).write(item, user, torch.ones(3))
    with pytest.raises(ValueError, match=r"ProfileMemory: label must be 0, 1 or NaN, got 5\.0"):
        make(signed=True).write(item, user, torch.full((4,), 5.0))
    memory = make(signed=True)
    memory.write(item, user, torch.full((4,), torch.nan))
    assert not memory.rates.total.any()
    with pytest.raises(TypeError, match=r"ProfileMemory: label must be a tensor of floats, got torch\.int64"):
        make(signed=True).write(item, user, torch.ones(4, dtype=torch.int64))
