"""A whole training step on a GPU, eager and as a replayed CUDA graph, over the size of the memory.

A step is forward, backward and update of keys (AdamW) and values (RowAdagrad, bfloat16 with stochastic rounding). On a
CPU, which has no graphs, a replay is the call itself, so that a rehearsal runs the same code.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.kernels.graphs import replayable
from benchmarks.kernels.measure import Session, describe_case, describe_failure
from benchmarks.kernels.problems import Case, Problem, make_problems
from benchmarks.kernels.shapes import Shape
from benchmarks.kernels.timing import percentiles, time_in_turns
from lmn_kernels import memory_lookup
from lmn_kernels.optim import RowAdagrad

SUB_KEYS = (1024, 4096, 16384)
STEP = Shape("training", B=4096, H=1, C=64, N=1024, K=32, D=64)
WARM_UP, REPLAYS = 3, 3
COMPARED_SLOTS = 1 << 24
"""Up to this size a second memory is trained eagerly and compared to the last bit."""


def measure_training(session: Session, shape: Shape) -> None:
    """Add records to ``training``: times of a step, eager and replayed, and peak memory; wrong where the two differ."""
    case = Case("layer", shape, "bf16")
    record = describe_case(case)
    try:
        problem = make_problems(case, 1, session.device)[0]
        values = problem.tensors["values"]
        expected = _trained(problem, values.clone()) if shape.slots <= COMPARED_SLOTS else None
        if session.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(session.device)
        parameters, step = _training(problem, values)
        replay, _ = replayable(step, session.device)
        for _ in range(REPLAYS + (WARM_UP - 1 if session.device.type == "cpu" else 0)):  # a rehearsal warms up once
            replay()
        if session.device.type == "cuda":
            torch.cuda.synchronize(session.device)
            record["peak_bytes"] = torch.cuda.max_memory_allocated(session.device)
        record["table_bytes"] = values.nbytes
        if expected is not None:
            equal = all(torch.equal(mine, other) for mine, other in zip(parameters, expected, strict=True))
            record["compared"] = "equal" if equal else "different"
        times = time_in_turns(
            {"replayed": lambda _: replay, "eager": lambda _: step}, session.stopwatch, session.effort
        )
        for what, seconds in times.items():
            status = "wrong" if record.get("compared") == "different" else "ok"
            session.file.add("training", {**record, "what": what, "status": status, **percentiles(seconds)})
    except Exception as error:  # a step that cannot be captured is a result
        session.file.add("training", {**record, **describe_failure(error)})


def _trained(problem: Problem, values: Tensor) -> list[Tensor]:
    parameters, step = _training(problem, values)
    for _ in range(WARM_UP + REPLAYS):
        step()
    return [parameter.detach() for parameter in parameters]


def _training(problem: Problem, values: Tensor) -> tuple[list[nn.Parameter], Callable[[], Any]]:
    """Keys and values, and a step that changes them in place."""
    keys, table = nn.Parameter(problem.tensors["keys"].clone()), nn.Parameter(values)
    queries = problem.tensors["queries"].detach().clone().requires_grad_()
    on_gpu = values.device.type == "cuda"
    optimizers = [
        torch.optim.AdamW([keys], lr=1e-3, fused=True, capturable=on_gpu),
        RowAdagrad([table], lr=1e-2),
    ]

    def step() -> None:
        queries.grad = None
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        output = memory_lookup(queries, keys, table, problem.case.shape.K, sparse_grad=True).output
        output.backward(problem.grad)
        for optimizer in optimizers:
            optimizer.step()

    return [keys, table], step
