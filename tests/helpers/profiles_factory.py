"""Small profile memories, random events, and the ladder of profiles in loops."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from lmn_model import ProfileMemory
from lmn_model.modules.hashing import hashed_signs

ITEMS, USERS = 23, 9


def make(**options: Any) -> ProfileMemory:
    return ProfileMemory(ITEMS, USERS, **{"levels": 3, "dim": 8, **options}).double()


def draw(events: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randint(ITEMS, (events,), generator=generator),
        torch.randint(USERS, (events,), generator=generator),
    )


def unit(row: np.ndarray) -> np.ndarray:
    length = np.sqrt((row * row).sum())
    return row / length if length > 0 else row


class Loops:
    """The ladder of the module's head, one event after the other."""

    def __init__(self, levels: int = 3, dim: int = 8) -> None:
        self.levels, self.dim = levels, dim
        self.codes = hashed_signs(torch.arange(ITEMS), dim).double().numpy()
        self.U, self.V = np.zeros((levels, USERS, dim)), np.zeros((levels, ITEMS, dim))
        self.sum, self.n_mean = np.zeros((levels, dim)), np.zeros(levels)
        self.n_item, self.n_user = np.zeros(ITEMS), np.zeros(USERS)

    def centred(self, k: int, user: int) -> np.ndarray:
        row = unit(self.U[k, user])
        return unit(row - self.sum[k] / max(self.n_mean[k], 1)) if row.any() else row

    def write(self, items: Tensor, users: Tensor) -> None:
        U, V = self.U.copy(), self.V.copy()
        for i, u in zip(items.tolist(), users.tolist(), strict=True):
            for k in range(self.levels):
                written = self.codes[i] if k == 0 else unit(self.V[k - 1, i])
                U[k, u] += (self.n_item[i] + 10) ** -0.25 * written
                V[k, i] += self.centred(k, u)
        self.count_mean(users)
        self.U, self.V = U, V
        np.add.at(self.n_item, items.numpy(), 1)
        np.add.at(self.n_user, users.numpy(), 1)

    def count_mean(self, users: Tensor) -> None:
        decay = np.exp(-len(users) / 200_000)
        rows = [[unit(self.U[k, u]) for u in users.tolist()] for k in range(self.levels)]
        self.sum = decay * self.sum + np.sum(rows, axis=1)
        self.n_mean = decay * self.n_mean + np.array([sum(row.any() for row in level) for level in rows])

    def read(self, i: int, u: int, window: list[int]) -> list[float]:
        same = [self.centred(k, u) @ unit(self.V[k, i]) for k in range(self.levels)]
        next_level = [self.centred(k + 1, u) @ unit(self.V[k, i]) for k in range(self.levels - 1)]
        others = sorted(set(window) - {i})
        cosines = sorted((unit(self.V[-1, j]) @ unit(self.V[-1, i]) for j in others), reverse=True)
        near = [np.mean(cosines), cosines[0], np.mean(cosines[:10])] if others else [0.0] * 3
        counts = [(np.log1p(each) - 4) / 2 for each in (self.n_item[i], self.n_user[u])]
        return [6 * each for each in (*same, *next_level, *near)] + counts


def two_groups(events: int) -> tuple[Tensor, Tensor]:
    """Users 0 to 3 choose items 0 to 9 and users 4 to 7 items 10 to 19."""
    generator = torch.Generator().manual_seed(3)
    user = torch.randint(8, (events,), generator=generator)
    item = torch.randint(10, (events,), generator=generator) + 10 * (user >= 4)
    return item, user
