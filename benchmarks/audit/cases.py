"""The cases of the audit: which problem sizes, types, metrics and activations the kernels are compiled for."""

from __future__ import annotations

from itertools import zip_longest
from typing import NamedTuple

import torch

from benchmarks.kernels.problems import DTYPES
from benchmarks.kernels.shapes import NAMED, SHAPES, Shape
from lmn_kernels.activation import ACTIVATIONS
from lmn_kernels.product_key_topk.metric import METRICS

NO_ACTIVATION = "none"
CASE_FORM = "SHAPE:DTYPE[:METRIC[:ACTIVATION]]"
AUDIT_CASES = ("lmn_1m:bf16", "lmn_1m:fp32", "serve_256:bf16", "ctr_64k:fp64", "odd:fp32:l2")
"""Every kernel is in one of them."""
EVERY_CASE = (
    *(f"{shape}:{dtype}" for shape in NAMED for dtype in ("bf16", "fp32")),
    "ctr_64k:fp64",
    "lmn_1m:fp16:cosine:sigmoid",
    "ctr_64k:bf16:l2:relu",
    "ctr_64k:fp64:cosine",
    "ctr_64k:fp64:l2",
    "odd:fp32:l2",
    "many_slots:bf16",
    "lmn_1m:bf16:dot:none",
)


class Case(NamedTuple):
    """A problem size, a type, a metric and an activation; None for the router alone, which returns scores."""

    shape: Shape
    dtype: torch.dtype
    metric: str
    activation: str | None


def parse_case(case: str) -> Case:
    """Read ``SHAPE:DTYPE[:METRIC[:ACTIVATION]]``; metric and activation default to ``dot`` and ``softmax``.

    The activation ``none`` stands for the router alone.

    Raises:
        ValueError: a field is unknown or one too many.
    """
    fields = dict(zip_longest(("shape", "dtype", "metric", "activation"), case.split(":")))
    choices = {"shape": SHAPES, "dtype": DTYPES, "metric": METRICS, "activation": (*ACTIVATIONS, NO_ACTIVATION)}
    metric, activation = fields.get("metric") or "dot", fields.get("activation") or "softmax"
    for name, value in {**fields, "metric": metric, "activation": activation}.items():
        if name not in choices or value not in choices[name]:
            raise ValueError(
                f"--case must be {CASE_FORM}, of {', '.join(SHAPES)}; {', '.join(DTYPES)}; {', '.join(METRICS)}; "
                f"{', '.join(choices['activation'])}; got {case}"
            )
    return Case(
        SHAPES[fields["shape"]], DTYPES[fields["dtype"]], metric, None if activation == NO_ACTIVATION else activation
    )
