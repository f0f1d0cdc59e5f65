"""Hyperparameters as numbers of NumPy and as tensors: taken at construction, as torch's own optimisers take them."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from optimizers_factory import OPTIMIZERS, D, M, make, rows_of
from torch import nn

from lmn_kernels.optim import RowAdagrad, RowAdam, RowSGD, clip_grad_norm_

KINDS: list[Callable[[float], Any]] = [
    np.float64, np.float32, np.float16, np.array, torch.tensor, lambda x: torch.tensor([x], dtype=torch.float64)
]  # fmt: skip
NO_NUMBERS = [
    True, np.True_, np.array(True), torch.tensor(True), "0.1", None, 1j, torch.tensor(1j), torch.ones(2), np.ones(2),
    np.array("a"), [0.1],
]  # fmt: skip
NAMES = [
    (RowAdagrad, "lr"), (RowAdagrad, "eps"), (RowAdagrad, "weight_decay"), (RowAdagrad, "initial_accumulator_value"),
    (RowAdam, "lr"), (RowAdam, "eps"), (RowAdam, "weight_decay"), (RowSGD, "lr"), (RowSGD, "momentum"),
    (RowSGD, "weight_decay"),
]  # fmt: skip


@pytest.fixture(params=OPTIMIZERS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def table() -> nn.Parameter:
    return nn.Parameter(torch.ones(M, D))


@pytest.mark.parametrize("number", KINDS)
def test_an_update_is_that_of_the_same_number_of_python(
    kind: str, number: Callable[[float], Any], backend: str
) -> None:
    """0.25 and 0.5 are themselves in every type."""
    tables = [table(), table()]
    optimizers = []
    for each, convert in zip(tables, (float, number), strict=True):
        more: dict[str, Any] = {"lr": convert(0.25), "weight_decay": convert(0.5)}
        if "adam" in kind:
            more["betas"] = (convert(0.5), convert(0.25))
        elif "momentum" in OPTIMIZERS[kind][1]:
            more["momentum"] = convert(0.5)
        if kind.startswith("ada"):
            more["eps"] = convert(0.25)
        optimizers.append(make(kind, [each], backend, **more))
    for _ in range(2):
        gradient = rows_of(torch.randint(M, (5,)), torch.randn(5, D))
        for each, optimizer in zip(tables, optimizers, strict=True):
            each.grad = gradient
            optimizer.step()
    assert torch.equal(*tables)


def test_numbers_that_a_schedule_sets_later_are_taken_too(kind: str, backend: str) -> None:
    tables = [table(), table()]
    optimizers = [make(kind, [each], backend) for each in tables]
    for step in range(1, 4):
        gradient = rows_of(torch.randint(M, (5,)), torch.randn(5, D))
        for each, optimizer, convert in zip(tables, optimizers, (float, np.float64), strict=True):
            group = optimizer.param_groups[0]
            group["lr"], group["weight_decay"] = convert(0.1 / step), convert(0.3 / step)
            if "betas" in group:
                group["betas"] = (convert(0.9 / step), convert(0.99 / step))
            if group.get("momentum"):
                group["momentum"] = convert(0.9 / step)
            each.grad = gradient
            optimizer.step()
    assert torch.equal(*tables)


@pytest.mark.parametrize("number", KINDS)
def test_what_is_held_can_be_saved_and_loaded_safely(number: Callable[[float], Any]) -> None:
    """``torch.load`` refuses NumPy's numbers."""
    optimizer = RowAdam(
        [table()], lr=number(0.5), betas=(number(0.5), number(0.25)), eps=number(0.125), seed=np.int64(3)
    )  # type: ignore[arg-type]
    buffer = io.BytesIO()
    torch.save(optimizer.state_dict(), buffer)
    buffer.seek(0)
    (group,) = torch.load(buffer, weights_only=True)["param_groups"]
    assert group["lr"] == 0.5
    assert group["betas"] == (0.5, 0.25)
    assert group["eps"] == 0.125
    assert group["seed"] == 3


@pytest.mark.parametrize("value", NO_NUMBERS, ids=repr)
@pytest.mark.parametrize(("optimizer", "name"), NAMES, ids=lambda part: getattr(part, "__name__", part))
def test_what_is_no_number_is_refused_at_construction(optimizer: Any, name: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"{optimizer.__name__}: {name} must be a number"):
        optimizer([table()], **{name: value})


@pytest.mark.parametrize(
    "value", [*NO_NUMBERS, -0.5, np.float32(-0.5), float("nan"), torch.tensor(float("nan"))], ids=repr
)
def test_each_beta_is_checked(value: object) -> None:
    for betas in ((value, 0.9), (0.9, value)):
        with pytest.raises(ValueError, match=r"RowAdam: betas must be two values in \[0, 1\)"):
            RowAdam([table()], betas=betas)  # type: ignore[arg-type]


@pytest.mark.parametrize("betas", [0.9, None, (0.9,), (0.9, 0.99, 0.9), "0.9", np.float64(0.9), torch.tensor(0.9)])
def test_betas_are_two(betas: object) -> None:
    with pytest.raises(ValueError, match="RowAdam: betas must be two values"):
        RowAdam([table()], betas=betas)  # type: ignore[arg-type]


@pytest.mark.parametrize("betas", [[0.5, 0.25], np.array([0.5, 0.25]), torch.tensor([0.5, 0.25])])
def test_betas_are_held_as_two_floats(betas: Any) -> None:
    assert RowAdam([table()], betas=betas).param_groups[0]["betas"] == (0.5, 0.25)


@pytest.mark.parametrize("seed", [True, np.True_, 1.0, np.float64(1), "1", None, -1, np.int64(-1), 2**63])
def test_seeds_are_integers(seed: Any) -> None:
    with pytest.raises(ValueError, match="RowSGD: seed must be an int in"):
        RowSGD([table()], seed=seed)


@pytest.mark.parametrize(
    ("optimizer", "name"), [(RowSGD, "nesterov"), (RowAdam, "row_wise"), (RowAdagrad, "stochastic_rounding")]
)
def test_flags_are_bools(optimizer: Any, name: str) -> None:
    with pytest.raises(TypeError, match=rf"{optimizer.__name__}: {name} must be a bool, got 'no'"):
        optimizer([table()], **{name: "no"})
    assert optimizer([table()], **{name: np.False_}).param_groups[0][name] is False


def test_clipping_takes_the_numbers_of_torch() -> None:
    for number in (float, *KINDS):
        each = table()
        each.grad = rows_of(torch.tensor([1]), torch.full((1, D), 2.0))
        clip_grad_norm_([each], number(0.5))
        assert each.grad.to_dense().norm().item() == pytest.approx(0.5, rel=1e-4)
    for wrong in NO_NUMBERS:
        with pytest.raises(TypeError, match="clip_grad_norm_: max_norm must be a number"):
            clip_grad_norm_([each], wrong)  # type: ignore[arg-type]
    for low in (-1.0, np.float32(-1), float("nan")):
        with pytest.raises(ValueError, match="max_norm must be at least 0"):
            clip_grad_norm_([each], low)  # type: ignore[arg-type]
