"""Ids of items and users as memories take them: checked, with any item and any user, known or not."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from lmn_kernels.checks import check_int
from lmn_model.modules.tensor_state import has_data


def checked_sizes(
    item_sizes: Sequence[int], user_size: int, unseen: int | None, *, name: str, low: int = 1
) -> tuple[tuple[int, ...], int, int | None]:
    """Numbers of ids as plain ints.

    Raises:
        TypeError: ``item_sizes`` is no sequence of integers, or another number no integer.
        ValueError: a size is below ``low``, there is none, or ``unseen`` is below 0.
    """
    try:
        item_sizes = tuple(check_int(name, "item_sizes", size) for size in item_sizes)
    except TypeError:
        raise TypeError(f"{name}: item_sizes must be a list of integers, got {item_sizes!r}") from None
    user_size = check_int(name, "user_size", user_size, low=low)
    if min(item_sizes, default=-1) < low:
        raise ValueError(f"{name}: item_sizes must hold a size of at least {low} for each feature, got {item_sizes}")
    if unseen is not None and (unseen := check_int(name, "unseen", unseen)) < 0:
        raise ValueError(f"{name}: unseen must be None or at least 0, got {unseen}")
    return item_sizes, user_size, unseen


def checked_ids(
    item: Tensor, user: Tensor, item_sizes: Sequence[int | None], user_size: int | None, *, name: str
) -> tuple[Tensor, Tensor]:
    """Ids ``[B, F]`` and ``[B]`` as int64.

    Args:
        item: ids of the F features, int64 or int32, from 0 to a feature's size - 1.
        user: ids of the users, from 0 to ``user_size - 1``.
        item_sizes: F sizes; None takes any id.
        user_size: number of users; None takes any id.
        name: of the module, for messages.

    Raises:
        TypeError: ids of another type.
        ValueError: another shape; or an id out of range. The range is checked on a CPU alone (elsewhere the check
            would wait for the device), and not in ``torch.compile``, ``torch.export`` and ``torch.func``, nor of fake
            tensors.
    """
    for label, ids in (("item", item), ("user", user)):
        if ids.dtype not in (torch.int64, torch.int32):
            raise TypeError(f"{name}: {label} must be int64 or int32, got {ids.dtype}")
    if item.ndim != 2 or item.shape[1] != len(item_sizes):
        raise ValueError(f"{name}: item must be [B, F = {len(item_sizes)}], got {list(item.shape)}")
    if user.ndim != 1 or user.shape[0] != item.shape[0]:
        raise ValueError(f"{name}: user must be [B = {item.shape[0]}], got {list(user.shape)}")
    item, user = item.long(), user.long()
    if item.device.type == "cpu" and not torch.compiler.is_compiling() and has_data(item) and has_data(user):
        _check_range(item, item_sizes, f"{name}: item", " of feature {}")
        _check_range(user.unsqueeze(1), (user_size,), f"{name}: user", "")
    return item, user


def _check_range(ids: Tensor, sizes: Sequence[int | None], what: str, which: str) -> None:
    """Raise ValueError unless the ids ``[B, F]`` of each feature are from 0 to its size - 1; None takes any."""
    largest = torch.iinfo(torch.int64).max
    limits = torch.tensor([largest if size is None else size for size in sizes], device="cpu")
    open_ids = torch.tensor([size is None for size in sizes], device="cpu")
    if not torch.equal(ids % limits, ids):
        wrong = ((ids % limits != ids) & ~open_ids).nonzero()
        if len(wrong):
            row, feature = wrong[0].tolist()
            raise ValueError(
                f"{what} must hold ids in [0, {sizes[feature]}){which.format(feature)}, got {int(ids[row, feature])}"
            )


def with_marginals(item: Tensor, user: Tensor, any_user: int) -> tuple[Tensor, Tensor]:
    """Pairs ``[2 R, F + 1]`` and ``[2 R]``: of each row those with the user, then those with any user.

    The last feature is any item, whose only id is 0.
    """
    item = F.pad(item, (0, 1)).repeat_interleave(2, dim=0)
    return item, torch.stack((user, torch.full_like(user, any_user)), dim=1).flatten()


def known_pairs(item: Tensor, user: Tensor, unseen: int, marginals: bool) -> Tensor:
    """Bool ``[R, F]``: neither half of a pair is the id of the unseen. Any item and any user are known."""
    known = item != unseen
    if marginals:
        known[:, -1] = True  # any item
    return known & (user != unseen).unsqueeze(1)


def checked_pairs(
    item: Tensor, user: Tensor, item_size: int | None, user_size: int | None, *, name: str
) -> tuple[Tensor, Tensor]:
    """As :func:`checked_ids`, of items with their own id alone, ``[B]``."""
    if item.ndim != 1:
        raise ValueError(f"{name}: item must be [B], got {list(item.shape)}")
    item, user = checked_ids(item.unsqueeze(1), user, (item_size,), user_size, name=name)
    return item.squeeze(1), user


def checked_window(window: Tensor, mask: Tensor, item_size: int | Sequence[int | None] | None, *, name: str) -> Tensor:
    """Ids ``[B, T]`` or ``[B, T, F]`` as int64, with 0 where ``mask`` ``[B, T]`` is False.

    Raises:
        TypeError: ids are neither int64 nor int32, or ``mask`` is not bool.
        ValueError: an id is out of range, checked as by :func:`checked_ids`.
    """
    if mask.dtype != torch.bool:
        raise TypeError(f"{name}: mask must be bool, got {mask.dtype}")
    if window.dtype not in (torch.int64, torch.int32):
        raise TypeError(f"{name}: window must be int64 or int32, got {window.dtype}")
    sizes = item_size if isinstance(item_size, Sequence) else (item_size,)
    window = window.long().masked_fill(~mask.view(*mask.shape, *(1,) * (window.ndim - 2)), 0)
    if window.device.type == "cpu" and not torch.compiler.is_compiling() and has_data(window):
        _check_range(
            window.reshape(-1, len(sizes)), sizes, f"{name}: window", " of feature {}" if window.ndim > 2 else ""
        )
    return window
