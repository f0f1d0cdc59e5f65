"""What the row optimisers refuse, with nothing updated."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from optimizers_factory import OPTIMIZERS, D, M, make, rows_of
from torch import nn

from lmn_kernels.optim import RowAdagrad, RowAdam, RowSGD


@pytest.fixture(params=OPTIMIZERS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_a_dense_gradient_is_an_error_and_updates_nothing(kind: str) -> None:
    first, second = (nn.Parameter(torch.ones(M, D)) for _ in range(2))
    first.grad, second.grad = rows_of(torch.tensor([1]), torch.ones(1, D)), torch.ones(M, D)
    with pytest.raises(
        TypeError, match=r"gradients must be sparse rows .* got layout torch\.strided for a table float32"
    ):
        make(kind, [first, second]).step()
    assert torch.equal(first, torch.ones_like(first))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lr": -1.0}, "RowAdam: lr must be at least 0, got -1.0"),
        ({"lr": float("nan")}, "RowAdam: lr must be at least 0, got nan"),
        ({"betas": (0.9, 1.0)}, r"RowAdam: betas must be two values in \[0, 1\), got \(0.9, 1.0\)"),
        ({"eps": -1.0}, "RowAdam: eps must be a number of at least 0, got -1.0"),
        ({"weight_decay": -0.1}, "RowAdam: weight_decay must be a number of at least 0, got -0.1"),
        ({"lr": None}, "RowAdam: lr must be a number, got None"),
        ({"betas": (0.9,)}, "RowAdam: betas must be two values"),
        ({"seed": -1}, "RowAdam: seed must be an int in"),
        ({"seed": 3.0}, "RowAdam: seed must be an int in"),
        ({"backend": "cuda"}, "RowAdam: backend must be one of 'auto', 'triton', 'torch', got 'cuda'"),
    ],
)
def test_bad_hyperparameters_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RowAdam([nn.Parameter(torch.zeros(2, 2))], **arguments)


def test_bad_tables_and_groups_are_named() -> None:
    with pytest.raises(
        ValueError, match=r"RowSGD: params must be dense, contiguous tables \[M, D\], got float32 \[3\]"
    ):
        RowSGD([nn.Parameter(torch.zeros(3))])
    with pytest.raises(ValueError, match="RowSGD: params must be dense, contiguous tables"):
        RowSGD([nn.Parameter(torch.zeros(3, 2).t())])
    with pytest.raises(TypeError, match="RowSGD: params must be float32, bfloat16, float16 or float64, got complex64"):
        RowSGD([nn.Parameter(torch.zeros(3, 2, dtype=torch.complex64))])
    with pytest.raises(ValueError, match="RowSGD: nesterov must be False without momentum, got True"):
        RowSGD([nn.Parameter(torch.zeros(3, 2))], nesterov=True)
    optimizer = RowAdagrad([nn.Parameter(torch.zeros(3, 2))])
    with pytest.raises(ValueError, match="RowAdagrad: eps must be a number of at least 0, got -2"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(3, 2))], "eps": -2})
    assert len(optimizer.param_groups) == 1


def test_the_state_of_another_kind_of_optimiser_is_refused() -> None:
    table = nn.Parameter(torch.zeros(M, D))
    for source in (torch.optim.SparseAdam([table]), RowSGD([table], momentum=0.5), RowAdam([table])):
        table.grad = rows_of(torch.tensor([1]), torch.ones(1, D))
        source.step()
        with pytest.raises(ValueError, match=r"RowAdagrad: the state of a table float32 .* must be .*'total'"):
            RowAdagrad([table]).load_state_dict(source.state_dict())
