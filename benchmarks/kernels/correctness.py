"""Compare a provider to float64 before it is timed: a wrong one gets no figure.

The truth is computed by textbook formulas in float64, from the inputs and the slots that the provider itself chose. The
choice is checked separately: on sampled rows every chosen score must reach the K-th best of all pairs, less what the
rounding of the scores can move it. The error of a row is its length over the length of the true row, or over the root
mean square length where the row is shorter; the largest error over all rows counts, so that one wrong row shows among
however many. Outputs and the gradients of queries, keys and weights are compared in every row; that of the values in
the rows of the most used slots, of random used ones and of random others, which must be zero.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.kernels.problems import DTYPES, Problem
from benchmarks.kernels.provider import Bound, Provider
from lmn_kernels.testing import score_slots, sum_rows

# Wide: scores, weights and sums are kept in float32. Narrow: each is rounded to the type of the inputs; the tolerance
# admits a hot row summed in 8 bits and is still far below what wrong maths gives. Result files hold the errors.
WIDE_TOLERANCES = {"fp32": 1e-4, "fp16": 2e-3, "bf16": 1e-2}
NARROW_TOLERANCES = {"fp32": 1e-4, "fp16": 5e-2, "bf16": 3e-1}
CHUNK_BYTES = 256 << 20
SAMPLED_ROWS = 256
SAMPLED_SLOTS = 1024


class WrongResult(AssertionError):
    """The result of a provider is wrong."""


class Truth(NamedTuple):
    """Output and gradients in float64; that of the values at ``sample`` alone."""

    output: Tensor
    gradients: dict[str, Tensor]


def check(provider: Provider, bound: Bound, problem: Problem, *, gradients: bool = True) -> dict[str, float]:
    """Row errors of a provider by tensor name, all within the tolerance of its kind and type.

    Args:
        provider: the provider.
        bound: the provider, bound to ``problem``.
        problem: the inputs.
        gradients: check the gradients too.

    Raises:
        WrongResult: an error is above the tolerance or not a number, or a slot is not among the best.
    """
    output, slots = bound.run() if gradients else _without_graph(bound)
    if slots is not None:
        _check_selection(slots, problem, wide=provider.wide_scores)
    else:
        slots = problem.slots
    sample = _sample_slots(problem, slots)
    truth = _truth(problem, slots, sample, gradients)
    found = {"output": output.detach()}
    if gradients:
        found |= bound.restore(dict(zip(bound.leaves, bound.backward(output), strict=True)))
    errors = {"output": row_error(found["output"], truth.output)}
    for name, true in truth.gradients.items():
        actual = _rows_at(found[name], sample) if name == "values" else found[name]
        errors[f"grad_{name}"] = row_error(actual, true)
    tolerance = (WIDE_TOLERANCES if provider.wide_scores else NARROW_TOLERANCES)[problem.case.dtype]
    for name, error in errors.items():
        if not error <= tolerance:
            raise WrongResult(f"{provider.name}: {name} of {problem.case} errs by {error:.1e}, above {tolerance:.0e}")
    return errors


def row_error(actual: Tensor, truth: Tensor) -> float:
    """Largest error of a row (last dimension), relative to its true length or the root mean square, if longer."""
    if actual.shape != truth.shape:
        raise WrongResult(f"expected a shape of {list(truth.shape)}, got {list(actual.shape)}")
    if truth.numel() == 0:
        return 0.0
    lengths = torch.linalg.vector_norm(truth, dim=-1)
    typical = lengths.square().mean().sqrt()
    errors = torch.linalg.vector_norm(actual.double() - truth, dim=-1) / torch.maximum(lengths, typical)
    return float(errors.nan_to_num(nan=torch.inf).max())


def _without_graph(bound: Bound) -> tuple[Tensor, Tensor | None]:
    with torch.no_grad():
        return bound.run()


def _check_selection(slots: Tensor, problem: Problem, *, wide: bool) -> None:
    shape = problem.case.shape
    if slots.shape != (shape.B, shape.H, shape.K) or int(slots.min()) < 0 or int(slots.max()) >= shape.slots:
        raise WrongResult(f"slots of {problem.case} must be [B, H, K] in [0, {shape.slots})")
    rows = torch.randperm(shape.B, device=slots.device)[:SAMPLED_ROWS]
    queries, keys = problem.tensors["queries"][rows].double(), problem.tensors["keys"].double()
    chosen = slots[rows]
    if bool((chosen.sort(-1).values.diff(dim=-1) == 0).any()):
        raise WrongResult(f"slots of {problem.case} must differ within a row and head")
    best = torch.einsum("bhac,hanc->bhan", queries, keys).topk(shape.K, dim=-1).values  # [b, H, 2, K]
    pairs = (best[:, :, 0, :, None] + best[:, :, 1, None, :]).flatten(2)
    kth_best = pairs.topk(shape.K, dim=-1).values[..., -1:]
    eps = torch.finfo(torch.float32 if wide else DTYPES[problem.case.dtype]).eps
    band = 16 * eps * torch.linalg.vector_norm(queries, dim=-1).sum(-1, keepdim=True)  # keys have length one
    missed = score_slots(queries, keys, chosen) < kth_best - band
    if bool(missed.any()):
        raise WrongResult(f"{int(missed.sum())} slots of {problem.case} are not among the {shape.K} best of their row")


def _sample_slots(problem: Problem, slots: Tensor) -> Tensor:
    """Slots at which the values' gradient is checked, ascending: the most used, random used and random ones."""
    used, uses = slots.flatten().unique(return_counts=True)
    hottest = used[uses.topk(min(64, used.numel())).indices]
    random_used = used[torch.randint(used.numel(), (SAMPLED_SLOTS,), device=used.device)]
    random_slots = torch.randint(problem.case.shape.slots, (SAMPLED_SLOTS // 4,), device=used.device)
    return torch.cat([hottest, random_used, random_slots]).unique()


def _truth(problem: Problem, slots: Tensor, sample: Tensor, gradients: bool) -> Truth:
    shape, tensors = problem.case.shape, problem.tensors
    place = torch.full((shape.slots,), -1, dtype=torch.int32, device=sample.device)
    place[sample] = torch.arange(sample.numel(), dtype=torch.int32, device=sample.device)
    keys = tensors["keys"].double().requires_grad_() if "keys" in tensors else None
    grad_sample = torch.zeros(sample.numel(), shape.D, dtype=torch.float64, device=sample.device)
    outputs, by_row = [], {name: [] for name in ("queries", "weights") if name in tensors}
    chunk = max(1, CHUNK_BYTES // (8 * shape.bag * max(shape.D, 2 * shape.C)))
    for start in range(0, shape.B, chunk):
        rows = slice(start, start + chunk)
        inputs = {name: tensors[name][rows].double().requires_grad_() for name in by_row}
        touched = None
        output = weights = inputs.get("weights")
        if keys is not None:
            output = score_slots(inputs["queries"], keys, slots[rows])  # [b, H, K]
            weights = output.softmax(-1).flatten(1)
        if "values" in tensors:
            bag = slots[rows].flatten(1)  # [b, L]
            touched = tensors["values"][bag].double().flatten(0, 1).requires_grad_()  # [b * L, D]
            output = sum_rows(touched, torch.arange(bag.numel(), device=bag.device).view_as(bag), weights)
        outputs.append(output.detach())
        if not gradients:
            continue
        output.backward(problem.grad[rows].double())
        for name, grads in by_row.items():
            grads.append(inputs[name].grad)
        if touched is not None:
            at = place[bag.flatten()]
            grad_sample.index_add_(0, at[at >= 0].long(), touched.grad[at >= 0])
    truth = {name: torch.cat(grads) for name, grads in by_row.items() if gradients}
    if gradients and keys is not None:
        truth["keys"] = keys.grad
    if gradients and "values" in tensors:
        truth["values"] = grad_sample
    return Truth(torch.cat(outputs), truth)


def _rows_at(gradient: Tensor, sample: Tensor) -> Tensor:
    """Rows of a dense or sparse gradient at ascending slots."""
    if gradient.layout != torch.sparse_coo:
        return gradient[sample]
    rows = gradient.coalesce()
    slots = rows.indices()[0]
    at = torch.searchsorted(slots, sample).clamp_(max=max(0, slots.numel() - 1))
    return torch.where((slots[at] == sample).unsqueeze(1), rows.values()[at], 0)
