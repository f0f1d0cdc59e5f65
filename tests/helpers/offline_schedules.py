"""Count the binaries that row optimisers need while schedules change their hyperparameters, compiled offline.

Prints, as JSON, the number of launches and of different binaries for each optimiser. Run without ``TRITON_INTERPRET``.
"""

from __future__ import annotations

import json
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.audit.offline import compile_launch
from lmn_kernels.launch import Launch, record_launches
from lmn_kernels.optim import RowAdagrad, RowAdam, RowOptimizer, RowSGD

STEPS = 4
CHANGES: dict[str, list[Any]] = {
    "lr": [0.0, 1, 1.0, 0.25],
    "weight_decay": [0.0, 1, 1.0, 0.1],
    "eps": [0.0, 1, 1e-8, 2],
    "betas": [(0.0, 0.0), (0, 0.5), (0.9, 0.999), (0.5, 0.9)],
    "momentum": [0.5, 0.0, 0.25, 0],
}


def touch(table: Tensor) -> None:
    slots, rows = torch.empty(1, 6, dtype=torch.int64, device="meta"), torch.empty(6, table.shape[1], device="meta")
    table.grad = torch.sparse_coo_tensor(slots, rows, table.shape, is_coalesced=True, check_invariants=False)


def scheduled(optimizer: RowOptimizer) -> list[Launch]:
    """One cycle of the learning rate and of betas or momentum, then values of every hyperparameter, 0 and 1 too."""
    group = optimizer.param_groups[0]
    cycles = "betas" in group or "momentum" in group
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=STEPS + 1, cycle_momentum=cycles)
    with record_launches() as launches:
        for _ in range(STEPS):
            touch(group["params"][0])
            optimizer.step()
            scheduler.step()
        for name, values in CHANGES.items():
            for value in values if name in group else ():
                group[name] = value
                touch(group["params"][0])
                optimizer.step()
    return launches


def main() -> None:
    report = {}
    for name, make, more in (
        ("adagrad", RowAdagrad, {}),
        ("adam", RowAdam, {}),
        ("adam_row_wise", RowAdam, {"row_wise": True}),
        ("sgd", RowSGD, {"momentum": 0.9}),
    ):
        table = nn.Parameter(torch.empty(16, 8, device="meta"))
        launches = scheduled(make([table], lr=0.1, backend="triton", **more))
        report[name] = [len(launches), len({compile_launch(launch, "sm_90").key for launch in launches})]
    print(json.dumps(report))


if __name__ == "__main__":
    main()
