"""The problems of the benchmarks: an op at a shape, in a type, with slots that are uniform or follow a power law.

Keys have length one, so that no sub-key is popular by its length, and scores are of order one, as under the published
initialisation. Uniform: every query is drawn alone. Zipf: a query is that of a popular item plus a little noise, items
drawn with probability proportional to rank^-1.05 of 65,536; rows with one item then choose nearly the same slots, as
in a recommender. The slots of a bag, which no query chooses, are drawn over the M slots by that law directly. How
often a slot repeats is measured and written beside each time.

Several problems of a case share the parameters and differ in the rest, so that a timing loop can rotate them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.kernels.shapes import Shape
from lmn_kernels import huge_zeros

OPS = ("router", "bag", "layer")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "fp64": torch.float64}
SLOTS = ("uniform", "zipf")
ZIPF_EXPONENT = 1.05
ZIPF_ITEMS = 65_536
ZIPF_NOISE = 0.1


@dataclass(frozen=True)
class Case:
    """An op at a shape, in a type, with a law of slots; ``sweep`` names the letter that varies in a series, if any."""

    op: str
    shape: Shape
    dtype: str = "fp32"
    slots: str = "uniform"
    sweep: str | None = None

    def __str__(self) -> str:
        size = self.shape
        sizes = f"B={size.B} H={size.H} C={size.C} N={size.N} K={size.K} D={size.D}"
        return f"{self.op} {size.name} ({sizes}) {self.dtype} {self.slots}"


@dataclass(frozen=True)
class Problem:
    """Inputs of one case, in this library's layout; without those that the op does not take.

    ``tensors`` are the differentiable inputs by name: queries ``[B, H, 2, C]``, keys ``[H, 2, N, C]``, values
    ``[M, D]`` and weights ``[B, L]``. ``slots`` is ``[B, L]`` int64 for a bag. ``grad`` is the gradient of the output,
    ``[B, H, K]`` for the router and ``[B, D]`` otherwise.
    """

    case: Case
    tensors: dict[str, Tensor]
    slots: Tensor | None
    grad: Tensor


def make_problems(case: Case, count: int, device: torch.device | str = "cpu", seed: int = 0) -> list[Problem]:
    """``count`` problems of a case; the same for the same arguments on one kind of device.

    Raises:
        ValueError: the op, the type or the law of slots is unknown.
    """
    for name, value, known in (("op", case.op, OPS), ("dtype", case.dtype, DTYPES), ("slots", case.slots, SLOTS)):
        if value not in known:
            raise ValueError(f"make_problems: {name} must be one of {', '.join(known)}, got {value!r}")
    generator = torch.Generator(device).manual_seed(seed)
    parameters = _parameters(case, generator)
    return [_problem(case, parameters, generator) for _ in range(count)]


def zipf(count: int, population: int, generator: torch.Generator, exponent: float = ZIPF_EXPONENT) -> Tensor:
    """``count`` ranks in [0, population), rank r with probability proportional to ``(r + 1) ** -exponent``."""
    ranks = torch.arange(1, population + 1, dtype=torch.float64, device=generator.device)
    cumulative = ranks.pow_(-exponent).cumsum(0)
    drawn = torch.rand(count, dtype=torch.float64, device=generator.device, generator=generator) * cumulative[-1]
    return torch.searchsorted(cumulative, drawn).clamp_(max=population - 1)


def _parameters(case: Case, generator: torch.Generator) -> dict[str, Tensor]:
    shape, dtype, device = case.shape, DTYPES[case.dtype], generator.device
    made = {}
    if case.op != "bag":
        keys = torch.randn(shape.H, 2, shape.N, shape.C, generator=generator, device=device)
        made["keys"] = F.normalize(keys, dim=-1).to(dtype)
    if case.op != "router":
        values = huge_zeros(shape.slots, shape.D, dtype=dtype, device=device)
        made["values"] = values.uniform_(-1, 1, generator=generator)
    return made


def _problem(case: Case, parameters: dict[str, Tensor], generator: torch.Generator) -> Problem:
    shape, dtype, device = case.shape, DTYPES[case.dtype], generator.device

    def normal(*sizes: int) -> Tensor:
        return torch.randn(*sizes, generator=generator, device=device)

    tensors = dict(parameters)
    slots = None
    if case.op == "bag":
        slots = _bag_slots(case, generator)
        tensors["weights"] = normal(shape.B, shape.bag).softmax(-1).to(dtype)
    else:
        queries = normal(shape.B, shape.H, 2, shape.C)
        if case.slots == "zipf":
            items = torch.randn(ZIPF_ITEMS, shape.H, 2, shape.C, generator=_same_items(device), device=device)
            queries = items[zipf(shape.B, ZIPF_ITEMS, generator)] + ZIPF_NOISE * queries
        tensors["queries"] = queries.to(dtype)
    output = (shape.B, shape.H, shape.K) if case.op == "router" else (shape.B, shape.D)
    return Problem(case, tensors, slots, normal(*output).to(dtype))


def _same_items(device: torch.device) -> torch.Generator:
    return torch.Generator(device).manual_seed(1)  # every problem has the same items and draws other queries


def _bag_slots(case: Case, generator: torch.Generator) -> Tensor:
    shape, device = case.shape, generator.device
    entries = shape.B * shape.bag
    if case.slots == "uniform":
        drawn = torch.randint(shape.slots, (entries,), generator=generator, device=device)
    else:
        scattered = torch.randperm(shape.slots, generator=_same_items(device), device=device)
        drawn = scattered[zipf(entries, shape.slots, generator)]
    return drawn.view(shape.B, shape.bag)
