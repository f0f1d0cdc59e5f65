"""Peers from other projects: timed where they are installed, listed as absent where they are not.

``product-key-memory`` (PyPI, MIT) is a whole layer: a linear map, a norm, then the retrieval. The map and the norm are
replaced by the identity, so that the retrieval alone is timed, on the same queries and with the same maths as plain
torch here. Its queries are ``[1, B, 2 * H * C]`` with the axis outermost and its keys ``[H, N, 2, C]``; both are laid
out so before the clock starts, and its table shares the problem's memory.

FBGEMM's table-batched bag is taken in its dense form, which alone gives gradients rather than an update: one table,
sums with per-sample weights.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from benchmarks.kernels.problems import Problem
from benchmarks.kernels.provider import Bound, Provider, leaves_of


def pkm_provider() -> Provider:
    """PyPI ``product-key-memory``, the retrieval of its layer."""
    note = "PyPI product-key-memory, its retrieval from given queries, dense gradient"
    try:
        import product_key_memory
    except ImportError as error:
        return Provider("pkm", note, {"layer": _bind_pkm}, absent=f"product-key-memory is not installed ({error})")
    del product_key_memory
    return Provider("pkm", note, {"layer": _bind_pkm})


def fbgemm_provider() -> Provider:
    """FBGEMM's table-batched bag, float32 alone."""
    note = "FBGEMM DenseTableBatchedEmbeddingBags, dense gradient"
    try:
        from fbgemm_gpu.split_table_batched_embeddings_ops_training import DenseTableBatchedEmbeddingBagsCodegen
    except (ImportError, OSError) as error:  # OSError: built for another torch
        return Provider("fbgemm", note, {"bag": _bind_fbgemm}, absent=f"fbgemm_gpu cannot be imported ({error})")
    del DenseTableBatchedEmbeddingBagsCodegen
    return Provider("fbgemm", note, {"bag": _bind_fbgemm})


def _bind_pkm(problem: Problem) -> Bound:
    from product_key_memory import PKM

    shape = problem.case.shape
    B, H, C = shape.B, shape.H, shape.C
    with torch.device("meta"):  # its own table would be as large as the problem's
        layer = PKM(dim=shape.D, heads=H, num_keys=shape.N, topk=shape.K, dim_head=C)
    layer.to_queries = layer.norm = nn.Identity()
    layer.eval()  # its dropouts are of probability 0
    leaves = leaves_of(problem)
    queries = leaves["queries"].detach().transpose(1, 2).reshape(1, B, 2 * H * C).requires_grad_()
    layer.keys = nn.Parameter(leaves["keys"].detach().transpose(1, 2).contiguous())
    layer.values.weight = nn.Parameter(leaves["values"].detach())
    chosen: list[Tensor] = []
    layer.values.register_forward_pre_hook(lambda _, arguments: chosen.append(arguments[0]))

    def run() -> tuple[Tensor, Tensor]:
        chosen.clear()
        return layer(queries)[0], chosen[0].view(B, H, shape.K)

    def restore(gradients: dict[str, Tensor]) -> dict[str, Tensor]:
        return {
            "queries": gradients["queries"].view(B, 2, H, C).transpose(1, 2),
            "keys": gradients["keys"].transpose(1, 2),
            "values": gradients["values"],
        }

    own = {"queries": queries, "keys": layer.keys, "values": layer.values.weight}
    return Bound(run, own, problem.grad, restore)


def _bind_fbgemm(problem: Problem) -> Bound:
    from fbgemm_gpu.split_table_batched_embeddings_ops_training import DenseTableBatchedEmbeddingBagsCodegen

    if problem.case.dtype != "fp32":
        raise NotImplementedError(f"fbgemm: its dense bag trains float32 tables alone, not {problem.case.dtype}")
    shape, values, weights = problem.case.shape, problem.tensors["values"], problem.tensors["weights"]
    bags = DenseTableBatchedEmbeddingBagsCodegen([(shape.slots, shape.D)], use_cpu=not values.is_cuda)
    bags.weights = nn.Parameter(values.detach().view(-1))
    leaves = {"values": bags.weights, "weights": weights.detach().view(-1).requires_grad_()}
    slots = problem.slots.view(-1)
    offsets = torch.arange(0, slots.numel() + 1, shape.bag, device=values.device)

    def restore(gradients: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"values": gradients["values"].view_as(values), "weights": gradients["weights"].view_as(weights)}

    return Bound(lambda: (bags(slots, offsets, leaves["weights"]), None), leaves, problem.grad, restore)
