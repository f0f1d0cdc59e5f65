"""Stochastic rounding of updated rows, the same on every backend, device and order of the batch.

A bfloat16 number has 8 significant bits: an update of less than 1/512 of a weight, added and rounded to the nearest, is
lost, every time. Rounded up with the probability of the distance to the number below, it is kept on average. The random
bits are a hash of (seed, step, slot, column), so they need no generator's state and are equal on every backend.

The hash is two multiplications and three shifts (the finaliser of 32-bit hashes of this kind; constants by Wellons,
github.com/skeeto/hash-prospector, public domain), applied to seed, step and slot in turn and then to the columns, which
count in steps of the golden ratio as in SplitMix.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

FIRST, SECOND, GOLDEN = 0x7FEB352D, 0x846CA68B, 0x9E3779B9  # factors of the hash
NARROW_FLOATS = (torch.bfloat16, torch.float16)
TABLE_STEP = 0x1E3779B97F4A7C15  # between the seeds of one optimiser's tables: odd, so they all differ modulo 2**63
LARGEST = {torch.bfloat16: (3.3895313892515355e38, 3.3961775292304601e38), torch.float16: (65504.0, 65520.0)}
"""The largest finite number of a type, and the bound below which the nearest number is finite."""


class Rounding(NamedTuple):
    """What the random bits of a table depend on, besides step, slot and column.

    Attributes:
        seed: 0 to 2**63 - 1.
    """

    seed: int

    @classmethod
    def of(cls, group: dict[str, Any], dtype: torch.dtype, number: int = 0) -> Rounding | None:
        """The rounding of the optimiser's table ``number``; None where results are rounded to the nearest."""
        if not group["stochastic_rounding"] or dtype not in NARROW_FLOATS:
            return None
        return cls((group["seed"] + number * TABLE_STEP) % 2**63)  # tables of one optimiser do not share their bits


def round_rows(rows: Tensor, dtype: torch.dtype, slots: Tensor, step: int, rounding: Rounding | None) -> Tensor:
    """``rows [U, D]`` of ``slots [U]`` in ``dtype``, stochastically where ``rounding`` says so."""
    if rounding is None:
        return rows.to(dtype)
    bits = random_bits(rounding.seed, step, slots, rows.shape[1])
    return round_stochastically(rows.float(), dtype, bits)


def random_bits(seed: int, step: int, slots: Tensor, columns: int) -> Tensor:
    """32 random bits ``[U, columns]`` (int32) for each slot ``[U]`` and column."""
    key = 0  # hash of seed and step, on the host: 32 bits as a Python int
    for word in (seed, seed >> 32, step, step >> 32):
        key = int(_mix(torch.tensor(_signed(key ^ word), dtype=torch.int32))) & 0xFFFFFFFF
    low = (slots & 0xFFFFFFFF).to(torch.int32)  # keeps the low bits
    rows = _mix(_mix(low ^ _signed(key)) ^ (slots >> 32).to(torch.int32))
    places = torch.arange(columns, dtype=torch.int32, device=slots.device) * _signed(GOLDEN)
    return _mix(rows.unsqueeze(1) + places)


def round_stochastically(rows: Tensor, dtype: torch.dtype, bits: Tensor) -> Tensor:
    """float32 ``rows`` in bfloat16 or float16: the number above or below, by chance; NaN and infinities as they are.

    A type drops the low 16 (bfloat16) or 13 (float16) bits of a float32. Random bits of that number are added before
    they are cut off, so they carry into the bits that stay with the probability of the distance to the number below.
    Below 2^-14 float16 is subnormal, a multiple of 2^-24, and its units are rounded instead. Between the largest number
    and ``bound`` a carry would give infinity, where rounding to the nearest would not: there the result is clamped.
    """
    words = rows.view(torch.int32)
    if dtype == torch.bfloat16:
        rounded = ((words + _shifted(bits, 16)) & -0x10000).view(torch.float32)
    else:
        normal = ((words + _shifted(bits, 19)) & -0x2000).view(torch.float32)
        share = _shifted(bits, 8).float() * 2.0**-24
        units = rows.abs() * 2.0**24
        subnormal = (units.floor() + (share < units - units.floor())) * 2.0**-24
        rounded = torch.where(rows.abs() < 2.0**-14, subnormal.copysign(rows), normal)
    largest, bound = LARGEST[dtype]
    rounded = torch.where(rows.abs() < bound, rounded.clamp(-largest, largest), rounded)
    return torch.where(rows.isfinite(), rounded, rows).to(dtype)


def _mix(x: Tensor) -> Tensor:
    """The hash of 32 bits, on int32."""
    x = x ^ _shifted(x, 16)
    x = x * FIRST
    x = x ^ _shifted(x, 15)
    x = x * _signed(SECOND)
    return x ^ _shifted(x, 16)


def _shifted(x: Tensor, by: int) -> Tensor:
    """int32 shifted right with zeros coming in."""
    return (x >> by) & ((1 << (32 - by)) - 1)


def _signed(word: int) -> int:
    """The int32 with the low 32 bits of ``word``."""
    return ((word & 0xFFFFFFFF) ^ 0x80000000) - 0x80000000
