"""CUDA graphs: time and launches of a replayed read, and a captured training step against an eager one.

On a CPU, which has no graphs, a replay is the call itself, so that a rehearsal runs the same code.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from benchmarks.kernels.correctness import WrongResult, check
from benchmarks.kernels.determinism import deterministic
from benchmarks.kernels.measure import Session, describe_case, describe_failure, describe_time, slot_use
from benchmarks.kernels.problems import Case, Problem, make_problems
from benchmarks.kernels.timing import Call, percentiles, time_in_turns
from lmn_kernels import memory_lookup

WARM_REPLAYS = 100
STEPS = 3
LEARNING_RATE = 0.1


def replayable(call: Callable[[], Any], device: torch.device) -> tuple[Call, Any]:
    """A function that replays ``call`` on its fixed tensors, and the result that a replay rewrites.

    The call runs three times before it is captured, on a separate stream, as capture requires.
    """
    if device.type == "cpu":
        return call, call()
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        for _ in range(3):
            call()
    torch.cuda.current_stream(device).wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = call()
    return graph.replay, result


def count_kernels(call: Callable[[], object], device: torch.device) -> int | None:
    """Kernels that one ``call`` runs on the GPU, those that copy or fill memory included; None on a CPU."""
    if device.type == "cpu":
        return None
    call()
    torch.cuda.synchronize(device)
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        call()
        torch.cuda.synchronize(device)
    return len(gpu_events(profiler.events()))


def gpu_events(events: Iterable[Any]) -> list[Any]:
    """Of a profiler's events, or averages of them, the kernels, copies and fills on the GPU."""
    own = ("Activity Buffer", "Buffer Flush", "Command Buffer", "Lazy Function", "Runtime Triggered")  # the profiler's
    on_gpu = torch.autograd.DeviceType.CUDA
    return [event for event in events if event.device_type == on_gpu and not event.key.startswith(own)]


def measure_replay(session: Session, case: Case, names: Sequence[str]) -> None:
    """Add a record to ``replay`` for each provider: a read by replay, cold (caches emptied before each) and warm."""
    problem = make_problems(case, 1, session.device)[0]
    use = slot_use(problem)
    torch._dynamo.reset()
    replays: dict[str, Call] = {}
    facts: dict[str, dict[str, Any]] = {}
    for name in names:
        provider = session.providers[name]
        if provider.absent or name not in session.provider_names:
            session.file.skip(f"{name}: replay of {case}", provider.absent or "not in --providers")
            continue
        try:
            bound = provider.ops[case.op](problem)
            errors = check(provider, bound, problem, gradients=False)
            kernels = count_kernels(bound.forward, session.device)
            expected = bound.forward()
            replay, output = replayable(bound.forward, session.device)
            replay()  # capture executes nothing: only a replay fills the output
            if not torch.equal(output, expected):
                raise WrongResult(f"{name}: a replay of {case} differs from an eager call")
            replays[name], facts[name] = replay, {"errors": errors, "kernels": kernels}
        except Exception as error:  # a failure must not lose the figures of other providers
            session.file.add("replay", {**describe_case(case), "provider": name, **describe_failure(error)})
    cold = time_in_turns(
        {name: lambda _, call=call: call for name, call in replays.items()}, session.stopwatch, session.effort
    )
    for name, seconds in cold.items():
        record = describe_time(case, session.providers[name], "forward", seconds, use, session.ceilings)
        warm = percentiles([_warm_seconds(replays[name], session.device)])["p50_ms"]
        session.file.add("replay", {**record, "warm_ms": warm, **facts[name]})


def _warm_seconds(replay: Call, device: torch.device) -> float:
    if device.type == "cpu":
        start = time.perf_counter()
        for _ in range(WARM_REPLAYS):
            replay()
        return (time.perf_counter() - start) / WARM_REPLAYS
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    for _ in range(WARM_REPLAYS):
        replay()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3 / WARM_REPLAYS


def check_captured_step(session: Session, case: Case) -> None:
    """Add records to ``capture``: parameters after three replayed steps against three eager ones, to the last bit.

    A step is an encoder, a read, a squared loss, the gradients in deterministic mode, and plain gradient descent; with
    a dense gradient of the values and with sparse rows.
    """
    problem = make_problems(case, 1, session.device)[0]
    for sparse in (False, True):
        record = {**describe_case(case), "sparse_grad": sparse, "steps": STEPS}
        try:
            eager, eager_step = _training(problem, sparse)
            for _ in range(STEPS):
                eager_step()
            captured, step = _training(problem, sparse)
            start = [parameter.detach().clone() for parameter in captured]
            replay, _ = replayable(step, session.device)
            with torch.no_grad():
                for parameter, value in zip(captured, start, strict=True):
                    parameter.copy_(value)  # capture warmed up on them
            for _ in range(STEPS):
                replay()
            difference = max(float((a - b).detach().abs().max()) for a, b in zip(eager, captured, strict=True))
            moved = max(float((a - b).detach().abs().max()) for a, b in zip(start, captured, strict=True))
            equal = all(torch.equal(a, b) for a, b in zip(eager, captured, strict=True))
            record |= {"status": "ok" if equal and moved > 0 else "wrong", "difference": difference, "moved": moved}
        except Exception as error:  # a step that cannot be captured is a result
            record |= describe_failure(error)
        session.file.add("capture", record)


def _training(problem: Problem, sparse: bool) -> tuple[list[Tensor], Callable[[], None]]:
    """Parameters of a small model around a read, and its step, which changes them in place."""
    queries, shape = problem.tensors["queries"], problem.case.shape
    inputs = queries.flatten(1)  # [B, H * 2 * C]
    encoder = torch.eye(inputs.shape[1], dtype=queries.dtype, device=queries.device)
    parameters = [encoder, problem.tensors["keys"], problem.tensors["values"]]
    encoder, keys, values = parameters = [each.detach().clone().requires_grad_() for each in parameters]

    def step() -> None:
        read = memory_lookup((inputs @ encoder).view_as(queries), keys, values, shape.K, sparse_grad=sparse)
        loss = (read.output - problem.grad).square().sum()
        with deterministic():
            *dense, rows = torch.autograd.grad(loss, (encoder, keys, values))
        with torch.no_grad():
            for parameter, gradient in zip((encoder, keys), dense, strict=True):
                parameter.sub_(gradient, alpha=LEARNING_RATE / shape.B)
            if sparse:
                values.index_add_(0, rows._indices()[0], rows._values(), alpha=-LEARNING_RATE)
            else:
                values.sub_(rows, alpha=LEARNING_RATE)

    return parameters, step
