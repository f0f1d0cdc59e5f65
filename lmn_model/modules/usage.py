"""Which slots and sub-keys of a memory training reads, and how evenly: what shows that a memory collapses.

A router that sends everything to a few slots still trains, and its loss does not show it. So the reads of every slot
are counted while the model trains, at two writes a read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TypedDict

import torch
from torch import Tensor

from lmn_kernels import huge_zeros
from lmn_kernels.checks import check_int
from lmn_kernels.library import opaque
from lmn_model.modules.tensor_state import has_data

_COMMON = 1 << 16
"""Counts below it fall into one histogram; the few above are sorted."""
MAX_PENDING = 8
"""Reads on the CPU that are counted at once."""
_INT32_MAX = torch.iinfo(torch.int32).max


class Evenness(TypedDict):
    """How reads spread over slots or sub-keys; every number but ``coverage`` is None before the first read.

    Attributes:
        coverage: share that was read at all, 0 to 1.
        kl_to_uniform: Kullback-Leibler divergence of the reads from the uniform distribution, in nats; 0 where all are
            read alike, log(n) where one of n takes everything.
        gini: Gini coefficient of the reads, 0 where all are read alike, towards 1 where one takes everything.
        top_1_percent: share of the reads that go to the hundredth that is read most.
    """

    coverage: float
    kl_to_uniform: float | None
    gini: float | None
    top_1_percent: float | None


def evenness(reads: Tensor) -> Evenness:
    """Statistics of ``reads``, integer counts of any shape, in one pass over them and without sorting them."""
    counts, members = _levels(reads.reshape(-1))
    n, total = int(members.sum()), int((counts * members).sum())
    used = int(members[counts > 0].sum())
    if total == 0:
        return Evenness(coverage=0.0, kl_to_uniform=None, gini=None, top_1_percent=None)
    share = counts.double() / total
    mass = share * members
    logs = torch.where(counts > 0, (share * n).log(), 0.0)
    below = members.cumsum(0) - members  # those read less than this level
    ranks = members * (2 * below + members + 1).double() / 2  # sum of their places, from 1
    top = -(-n // 100)
    taken = (top - (n - below - members)).clamp(min=0).minimum(members)  # of each level, among the `top` most read
    return Evenness(
        coverage=used / n,
        kl_to_uniform=max(0.0, float((mass * logs).sum())),
        gini=max(0.0, float(2 * (share * ranks).sum()) / n - (n + 1) / n),
        top_1_percent=float((share * taken).sum()),
    )


def _levels(reads: Tensor) -> tuple[Tensor, Tensor]:
    """The different counts, ascending, and how many have each; int64 on the CPU."""
    members = torch.bincount(reads.clamp(max=_COMMON)).cpu()
    counts = members.nonzero().squeeze(1)
    members = members[counts]
    if len(counts) and int(counts[-1]) == _COMMON:
        rare, times = torch.unique(reads[reads >= _COMMON], return_counts=True)
        counts, members = torch.cat((counts[:-1], rare.cpu())), torch.cat((members[:-1], times.cpu()))
    return counts, members


def _quantile(values: Tensor, members: Tensor, share: float) -> int | None:
    """The least of ascending ``values`` that ``share`` of all members do not exceed; None where there is none."""
    if int(members.sum()) == 0:
        return None
    reached = members.cumsum(0)
    return int(values[int(torch.searchsorted(reached, math.ceil(share * int(reached[-1]))))])


class MemoryUsage:
    """Counts the reads of a memory since it was last emptied, as :attr:`ProductKeyMemory.usage` in training mode.

    It costs 8 bytes a slot and, for each read, an addition and a store; as much again with ``by_sub_key``. Nothing
    waits for the device. On the CPU the reads of a few calls are counted at once, while the counts are in the cache:
    one by one each read would fetch its counts from memory.

    Args:
        sub_keys: N, sub-keys on each axis.
        heads: H.
        device: of the memory.
        by_sub_key: count the reads of sub-keys too, which :func:`lmn_model.modules.reseeding.reseed` needs.

    Raises:
        TypeError: ``sub_keys`` or ``heads`` is no integer.
        ValueError: one of them is below 1.

    Attributes:
        slot_reads: ``[N * N]``, reads of each slot by all heads; int32 until a slot could have more than that holds,
            then int64.
        last_read: ``[N * N]`` int32, step of the last read, the first being 1; 0 where there was none.
        sub_key_reads: ``[H, 2, N]`` int64, reads of each sub-key since :meth:`reset_sub_key_reads`; None where they are
            not counted.
        step: steps since the memory was emptied.
        queries: ``[B, H, 2, C]`` of the last read, None before it or if :meth:`record` got none.
        window_start: step at which :meth:`reset_sub_key_reads` was called.

    Example:
        >>> from lmn_model import MemoryLayer
        >>> layer = MemoryLayer(8, 4, sub_keys=16, top_k=2)
        >>> layer.usage = MemoryUsage(16)
        >>> _ = layer(torch.randn(100, 8))
        >>> int(layer.usage.slot_reads.sum())
        200
    """

    def __init__(
        self, sub_keys: int, heads: int = 1, device: torch.device | str = "cpu", *, by_sub_key: bool = True
    ) -> None:
        self.sub_keys = sub_keys = check_int("MemoryUsage", "sub_keys", sub_keys, low=1)
        self.heads = check_int("MemoryUsage", "heads", heads, low=1)
        self._slot_reads = huge_zeros(sub_keys**2, dtype=torch.int32, device=device)
        self._last_read = huge_zeros(sub_keys**2, dtype=torch.int32, device=device)
        self.sub_key_reads: Tensor | None = None
        self.step = 0
        self.window_start = 0
        self._most = 0
        self._pending: list[tuple[Tensor, int]] = []
        self.queries: Tensor | None = None
        if by_sub_key:
            self.reset_sub_key_reads()

    @opaque  # reads are counted outside a graph
    @torch.no_grad()
    def record(self, slots: Tensor, queries: Tensor | None = None) -> None:
        """Count reads of ``slots [B, H, K]`` int64 in the present step, and none of tensors without data.

        Args:
            slots: what was read.
            queries: ``[B, H, 2, C]`` that read them, for reseeding; None to keep none.
        """
        if not has_data(slots):  # fake or meta: later counts would fail on them
            return
        self.queries = None if queries is None else queries.detach()
        self._most += slots.shape[0] * slots.shape[1]  # no slot has more reads: a head reads it once for a query
        self._pending.append((slots.reshape(-1), self.step + 1))
        if len(self._pending) >= MAX_PENDING or slots.device.type != "cpu":
            self._count()
        if self.sub_key_reads is None:
            return
        first = slots.div(self.sub_keys, rounding_mode="floor")
        for axis, sub_keys in enumerate((first, slots - first * self.sub_keys)):
            for head in range(self.heads):
                self.sub_key_reads[head, axis] += torch.bincount(sub_keys[:, head].reshape(-1), minlength=self.sub_keys)

    def _count(self) -> None:
        if self._most > _INT32_MAX and self._slot_reads.dtype == torch.int32:
            self._slot_reads = self._slot_reads.long()
        for read, step in self._pending:
            one = torch.ones((), dtype=self._slot_reads.dtype, device=read.device)
            self._slot_reads.scatter_add_(0, read, one.expand(len(read)))
            then = torch.full((), step, dtype=torch.int32, device=read.device)
            self._last_read.scatter_(0, read, then.expand(len(read)))
        self._pending.clear()

    @property
    def slot_reads(self) -> Tensor:
        self._count()
        return self._slot_reads

    @property
    def last_read(self) -> Tensor:
        self._count()
        return self._last_read

    def advance(self) -> None:
        """The step is over."""
        self.step += 1

    def reset(self) -> None:
        """The memory was emptied: nothing has been read."""
        self._pending.clear()
        self._slot_reads.zero_()
        self._last_read.zero_()
        self.step = self.window_start = self._most = 0
        self.queries = None
        if self.sub_key_reads is not None:
            self.reset_sub_key_reads()

    def reset_sub_key_reads(self) -> None:
        """Count the reads of sub-keys from 0, also where they were not counted before."""
        self.sub_key_reads = torch.zeros(
            self.heads, 2, self.sub_keys, dtype=torch.int64, device=self._slot_reads.device
        )
        self.window_start = self.step

    def coverage(self, since: int = 0) -> float:
        """Share of the slots read from step ``since`` on, 0 to 1."""
        return int(self._read_in_step()[max(0, since) :].sum()) / self.sub_keys**2

    def _read_in_step(self) -> Tensor:
        """``[steps]`` int64 on the CPU: slots whose last read was in each step."""
        return torch.bincount(self.last_read, minlength=self.step + 1).cpu()[1:]

    def summary(self, since: int = 0) -> dict[str, object]:
        """What ``metrics.json`` holds: evenness over slots and over the sub-keys of each axis, and ages.

        Args:
            since: step from which ``recent_coverage`` counts.

        Returns:
            :class:`Evenness` of the slots, and besides ``steps`` and ``reads`` since the memory was emptied;
            ``recent_coverage``, the share of slots read from step ``since`` on; ``age_median`` and ``age_90_percent``,
            steps since the last read of the slots that were read (None if none was); ``sub_keys``, the evenness of each
            axis, all heads together.
        """
        reads = int(self.slot_reads.sum())
        sums = torch.int32 if reads <= _INT32_MAX else torch.int64  # ten times faster
        by_axis = self.slot_reads.view(self.sub_keys, self.sub_keys)
        members = self._read_in_step().flip(0)
        ages = (torch.arange(len(members)) - (len(members) - self.step)).clamp(min=0)  # a step may not be over
        return {
            "steps": self.step,
            "reads": reads,
            **evenness(self.slot_reads),
            "recent_coverage": self.coverage(since),
            "age_median": _quantile(ages, members, 0.5),
            "age_90_percent": _quantile(ages, members, 0.9),
            "sub_keys": [evenness(by_axis.sum(axis, dtype=sums)) for axis in (1, 0)],
        }

    def state(self) -> dict[str, Tensor]:
        """All of it as tensors, for a checkpoint; they share memory."""
        state = {
            "slot_reads": self.slot_reads,
            "last_read": self.last_read,
            "steps": torch.tensor([self.step, self.window_start]),
        }
        return state if self.sub_key_reads is None else {**state, "sub_key_reads": self.sub_key_reads}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take over what :meth:`state` gave for a memory of this size, counted alike."""
        self._pending.clear()
        self._slot_reads = self._slot_reads.to(state["slot_reads"].dtype).copy_(state["slot_reads"])
        self._most = int(self._slot_reads.max())
        self._last_read.copy_(state["last_read"])
        if self.sub_key_reads is not None:
            self.sub_key_reads.copy_(state["sub_key_reads"])
        self.step, self.window_start = state["steps"].tolist()
