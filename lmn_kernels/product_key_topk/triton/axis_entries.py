"""First step of the backward pass: through the activation, and from slots to the sub-keys of both axes, in one launch.

In plain torch this step is a dozen small operations over all B * H * K entries, some of them in int64.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ...launch import ceil_div, launch, power_of_two
from ...triton import acc_type

BLOCK = 1024


def launch_axis_entries(
    grad: Tensor, slots: Tensor, weights: Tensor | None, N: int, activation: str
) -> tuple[Tensor, Tensor]:
    """Rows of the key table that each query half chose and the gradients of their scores: ``[B * H * 2, K]``.

    Args:
        grad: ``[B, H, K]``, of the weights if they are given, else of the scores.
        slots: ``[B, H, K]`` integers i * N + j.
        weights: ``[B, H, K]``, of ``activation``.
        N: sub-keys on an axis.
    """
    B, H, K = slots.shape
    table = H * 2 * N
    rows = slots.new_empty(B * H * 2, K, dtype=torch.int32 if table <= torch.iinfo(torch.int32).max else torch.int64)
    gradients = grad.new_empty(B * H * 2, K)
    if rows.numel() == 0:
        return rows, gradients
    block_k = power_of_two(K)
    block_r = max(1, BLOCK // block_k)
    launch(
        _product_key_topk_bwd_axes_kernel, (ceil_div(B * H, block_r),),
        grad.contiguous(), slots.contiguous(), grad if weights is None else weights.contiguous(), rows, gradients,
        B * H, H,
        N=N, K=K, ACTIVATION="none" if weights is None else activation, ACC=acc_type(grad.dtype),
        BLOCK_R=block_r, BLOCK_K=block_k, num_warps=4,
    )  # fmt: skip
    return rows, gradients


@triton.jit(do_not_specialize=["R", "H"])
def _product_key_topk_bwd_axes_kernel(
    grad_ptr, slots_ptr, weights_ptr, rows_ptr, gradients_ptr, R, H,
    N: tl.constexpr, K: tl.constexpr, ACTIVATION: tl.constexpr, ACC: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Gradient of each chosen score, for both axes, and the rows of the key table ``[H * 2 * N, C]`` it belongs to.

    A program takes ``BLOCK_R`` of the R = B * H rows; grid ``(ceil(R / BLOCK_R),)``.

    In: grad ``[R, K]``, of the weights or, where ACTIVATION is "none", of the scores; slots ``[R, K]`` int64; weights
    ``[R, K]``, not read where ACTIVATION is "none".
    Out: rows int32 or int64 and gradients of the type of grad, both ``[R, 2, K]``.
    """
    r = (tl.program_id(0).to(tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R))[:, None]
    k = tl.arange(0, BLOCK_K)[None, :]
    mask = (r < R) & (k < K)
    grad = tl.load(grad_ptr + r * K + k, mask=mask, other=0).to(ACC)  # [BLOCK_R, BLOCK_K]
    if ACTIVATION != "none":
        weights = tl.load(weights_ptr + r * K + k, mask=mask, other=0).to(ACC)
        if ACTIVATION == "softmax":
            grad = weights * (grad - tl.sum(grad * weights, axis=1)[:, None])
        elif ACTIVATION == "sigmoid":
            grad = grad * weights * (1 - weights)
        else:
            grad = tl.where(weights == 0, 0.0, grad)
    slots = tl.load(slots_ptr + r * K + k, mask=mask, other=0)
    i = slots // N
    first_row = (r % H) * 2 * N  # of the head's sub-keys
    place = r * 2 * K + k  # of axis 0; that of axis 1 is K further
    tl.store(rows_ptr + place, (first_row + i).to(rows_ptr.dtype.element_ty), mask=mask)
    # slots - i * N is j, the sub-key on axis 1.
    tl.store(rows_ptr + place + K, (first_row + N + slots - i * N).to(rows_ptr.dtype.element_ty), mask=mask)
    tl.store(gradients_ptr + place, grad, mask=mask)
    tl.store(gradients_ptr + place + K, grad, mask=mask)
