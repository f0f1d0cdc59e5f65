"""Schedules of hyperparameters: the kernels take them as arguments, so no value of any compiles a kernel anew."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from typing import Any

import pytest
import torch
from optimizers_factory import OPTIMIZERS, D, M, make, rows_of
from project_root import ROOT
from torch import nn

OF_BETAS = {f"{name}_{number}" for name in ("beta", "rate", "log") for number in (1, 2)}
HYPERPARAMETERS = {"lr_ptr", "step_ptr", "eps", "weight_decay", "momentum"} | OF_BETAS


@pytest.fixture(params=OPTIMIZERS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.offline_compile
def test_schedules_compile_one_binary_for_each_optimiser() -> None:
    """OneCycleLR, then 0, 1, whole and broken numbers for lr, weight decay, eps, betas and momentum."""
    pytest.importorskip("triton")
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "tests.helpers.offline_schedules"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    report: dict[str, list[int]] = json.loads(done.stdout)
    assert report.keys() == {"adagrad", "adam", "adam_row_wise", "sgd"}
    for launches, binaries in report.values():
        assert launches >= 16
        assert binaries == 1


@pytest.mark.parametrize("name", ["adagrad", "adam", "sgd"])
def test_no_hyperparameter_is_a_constant_of_a_kernel(name: str) -> None:
    pytest.importorskip("triton")
    from lmn_kernels.optim import triton

    parameters = inspect.signature(getattr(triton, f"_row_{name}_kernel").fn).parameters
    constants = {name for name, parameter in parameters.items() if "constexpr" in str(parameter.annotation)}
    shape = {"D", "ACC", "BLOCK_U", "BLOCK_D", "STOCHASTIC", "ONE_A_ROW", "HAS_MOMENTUM", "NESTEROV"}
    assert constants <= shape
    assert {"lr_ptr", "step_ptr", "weight_decay"} <= parameters.keys() - constants
    assert parameters.keys() - constants - HYPERPARAMETERS == {
        each for each in parameters if each.endswith("_ptr") or each in ("U", "seed")
    } - {"lr_ptr", "step_ptr"}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_one_cycle_of_the_kernel_equals_that_of_torch(kind: str, dtype: torch.dtype, device: torch.device) -> None:
    """To the last digits of float64: a hyperparameter that passed through float32 would show."""
    pytest.importorskip("triton")
    tables = [nn.Parameter(torch.ones(M, D, dtype=dtype, device=device)) for _ in range(2)]
    optimizers = [make(kind, [table], on) for table, on in zip(tables, ("torch", "triton"), strict=True)]
    schedulers: list[Any] = []
    for optimizer in optimizers:
        group = optimizer.param_groups[0]
        cycles = "betas" in group or bool(group.get("momentum"))
        schedulers.append(torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.3, total_steps=7, cycle_momentum=cycles))
    for step in range(6):
        slots, rows = torch.randint(M, (5,), device=device), torch.randn(5, D, dtype=dtype, device=device)
        for table, optimizer, scheduler in zip(tables, optimizers, schedulers, strict=True):
            optimizer.param_groups[0]["weight_decay"] = step / 3
            if "eps" in optimizer.param_groups[0]:
                optimizer.param_groups[0]["eps"] = 1e-3 * step
            table.grad = rows_of(slots, rows)
            optimizer.step()
            scheduler.step()
    bound = 1e-13 if dtype == torch.float64 else 1e-5
    torch.testing.assert_close(tables[1], tables[0], rtol=bound, atol=bound)
    assert not torch.equal(tables[0], torch.ones_like(tables[0]))
