"""Usage of a memory: every figure equals a count by brute force, and training reports, draws and resumes it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from lmn_model.modules.memory_layer import MemoryLayer
from lmn_model.modules.usage import MemoryUsage, evenness


def _by_hand(reads: np.ndarray) -> dict[str, float]:
    """The statistics from their definitions, slot by slot."""
    n, total = len(reads), reads.sum()
    shares = reads / total
    pairs = np.abs(shares[:, None] - shares[None, :]).sum()
    return {
        "coverage": sum(count > 0 for count in reads) / n,
        "kl_to_uniform": sum(share * math.log(share * n) for share in shares if share > 0),
        "gini": pairs / (2 * n * shares.sum()),
        "top_1_percent": sum(sorted(shares)[-math.ceil(n / 100) :]),
    }


@pytest.mark.parametrize("n", [1, 7, 100, 256, 1000])
@pytest.mark.parametrize("kind", ["even", "one", "poisson", "heavy", "beyond the histogram"])
def test_evenness_equals_its_definition(n: int, kind: str) -> None:
    rng = np.random.default_rng(n)
    reads = {
        "even": np.full(n, 3),
        "one": np.eye(1, n, dtype=np.int64)[0] * 5,
        "poisson": rng.poisson(0.7, n) + np.eye(1, n, dtype=np.int64)[0],
        "heavy": (rng.pareto(0.5, n) * 3).clip(0, 60_000).astype(np.int64) + 1,
        "beyond the histogram": rng.integers(60_000, 80_000, n) * rng.integers(0, 2, n) + (np.arange(n) == 0) * 65_536,
    }[kind].astype(np.int64)
    found, expected = evenness(torch.from_numpy(reads)), _by_hand(reads)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-9), name  # type: ignore[literal-required]


def test_extremes() -> None:
    even, one = evenness(torch.full((400,), 7)), evenness(torch.eye(1, 400, dtype=torch.int64))
    assert even == {"coverage": 1.0, "kl_to_uniform": pytest.approx(0), "gini": pytest.approx(0), "top_1_percent": 0.01}
    assert one["kl_to_uniform"] == pytest.approx(math.log(400))
    assert one["gini"] == pytest.approx(1 - 1 / 400)
    nothing = evenness(torch.zeros(400, dtype=torch.int64))
    assert nothing == {"coverage": 0.0, "kl_to_uniform": None, "gini": None, "top_1_percent": None}


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("concat_heads", [False, True])
def test_a_layer_counts_its_reads_in_training_alone(heads: int, concat_heads: bool) -> None:
    N = 6
    layer = MemoryLayer(5, 4, sub_keys=N, top_k=3, key_dim=4, heads=heads, concat_heads=concat_heads)
    usage = layer.usage = MemoryUsage(N, heads)
    slots = np.zeros(N * N, dtype=np.int64)
    sub_keys = np.zeros((heads, 2, N), dtype=np.int64)
    last = np.full(N * N, -1)
    for step in range(7):
        x = torch.randn(4, 5)
        layer.eval()
        layer(x)
        layer.train()
        for _, head, _, slot in _entries(layer.read(x).slots):
            slots[slot] += 1
            last[slot] = step
            sub_keys[head, 0, slot // N] += 1
            sub_keys[head, 1, slot % N] += 1
        usage.advance()
    assert (usage.slot_reads.numpy() == slots).all()
    assert (usage.last_read.numpy() == last + 1).all()
    assert (usage.sub_key_reads.numpy() == sub_keys).all()
    found = usage.summary(since=5)
    ages = np.sort(6 - last[last >= 0])
    assert found["steps"] == 7
    assert found["reads"] == slots.sum()
    assert found["recent_coverage"] == (last >= 5).mean()
    assert found["age_median"] == ages[math.ceil(len(ages) / 2) - 1]
    assert found["age_90_percent"] == ages[math.ceil(0.9 * len(ages)) - 1]
    assert found["sub_keys"] == [
        pytest.approx(_by_hand(slots.reshape(N, N).sum(axis)), abs=1e-9) for axis in (1, 0)
    ]  # over the other axis


def test_sub_keys_are_counted_on_request() -> None:
    layer = MemoryLayer(5, 4, sub_keys=6, top_k=3, key_dim=4)
    usage = layer.usage = MemoryUsage(6, by_sub_key=False)
    layer(torch.randn(4, 5))
    usage.reset()
    assert usage.sub_key_reads is None
    assert "sub_key_reads" not in usage.state()
    usage.reset_sub_key_reads()
    layer(torch.randn(4, 5))
    assert usage.sub_key_reads is not None
    assert usage.sub_key_reads.sum(2).tolist() == [[4 * 3, 4 * 3]]


def test_counts_become_wide_before_they_could_overflow() -> None:
    usage, copy = MemoryUsage(2, by_sub_key=False), MemoryUsage(2, by_sub_key=False)
    slots, queries = torch.zeros(3, 1, 1, dtype=torch.int64), torch.zeros(3, 1, 2, 4)
    state = usage.state()
    state["slot_reads"] = torch.tensor([2**31 - 4, 0, 0, 0], dtype=torch.int32)
    usage.load_state(state)
    usage.record(slots, queries)
    assert usage.slot_reads.dtype == torch.int32
    assert int(usage.slot_reads[0]) == 2**31 - 1
    usage.record(slots, queries)
    assert usage.slot_reads.dtype == torch.int64
    assert usage.slot_reads.tolist() == [2**31 + 2, 0, 0, 0]
    copy.load_state(usage.state())
    assert copy.summary() == usage.summary()
    assert usage.summary()["reads"] == 2**31 + 2


def _entries(slots: torch.Tensor) -> list[tuple[int, int, int, int]]:
    return [(*place, int(slots[place])) for place in np.ndindex(*slots.shape)]  # type: ignore[misc]


def test_reset_forgets_everything_and_state_is_taken_over() -> None:
    usage, copy = MemoryUsage(4), MemoryUsage(4)
    slots, queries = torch.randint(16, (3, 1, 2)), torch.randn(3, 1, 2, 4)
    for _ in range(3):
        usage.record(slots, queries)
        usage.advance()
    usage.reset_sub_key_reads()
    usage.record(slots, queries)
    copy.load_state({name: value.clone() for name, value in usage.state().items()})
    assert copy.summary() == usage.summary()
    assert (copy.step, copy.window_start) == (3, 3)
    usage.reset()
    fresh = MemoryUsage(4)
    assert usage.summary() == fresh.summary()
    assert (usage.step, usage.window_start) == (0, 0)
    for name, value in fresh.state().items():
        assert torch.equal(usage.state()[name], value), name
