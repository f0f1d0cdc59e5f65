"""Hashes of ids and random signs made of them: equal on every device, and nothing is stored for an id."""

from __future__ import annotations

import torch
from torch import Tensor

_BITS = 64


def hashed(ids: Tensor, salt: int = 0) -> Tensor:
    """A 64-bit hash of each id, int64 of the shape of ``ids``; another ``salt`` gives independent hashes.

    Source: the mixing steps of SplitMix64, Steele, Lea and Flood 2014, Fast Splittable Pseudorandom Number Generators.
    """
    mixed = ids.long() + _signed((salt + 1) * 0x9E3779B97F4A7C15)
    mixed = (mixed ^ _shifted(mixed, 30)) * _signed(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ _shifted(mixed, 27)) * _signed(0x94D049BB133111EB)
    return mixed ^ _shifted(mixed, 31)


def hashed_rows(ids: Tensor, rows: int, salt: int = 0) -> Tensor:
    """A row in ``[0, rows)`` for each id, int64 of the shape of ``ids``."""
    return hashed(ids, salt) % rows


def hashed_signs(ids: Tensor, width: int, salt: int = 0) -> Tensor:
    """Random signs, 1 or -1: ``[..., width]`` in torch's default type, of ids ``[...]``."""
    words = -(-width // _BITS)
    places = torch.arange(words, device=ids.device)
    hashes = hashed(hashed(ids, salt).unsqueeze(-1) + places)  # [..., words]
    bits = hashes.unsqueeze(-1) >> torch.arange(_BITS, device=ids.device) & 1  # [..., words, 64]
    return bits.flatten(-2)[..., :width].to(torch.get_default_dtype()).mul_(2).sub_(1)


def _shifted(values: Tensor, places: int) -> Tensor:
    """``values`` as unsigned integers, shifted right."""
    return values >> places & (1 << _BITS - places) - 1


def _signed(value: int) -> int:
    """The int64 with the low 64 bits of ``value``."""
    value %= 1 << _BITS
    return value - (1 << _BITS) if value >> _BITS - 1 else value
