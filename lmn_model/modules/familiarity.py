"""How strongly a pair was written, from a read-out and what would have been written of the pair."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def pair_familiarity(output: Tensor, target: Tensor) -> Tensor:
    """``[..., 4]`` of read-outs and bound codes ``[..., D]``; see :meth:`FactoredMemoryNetwork.forward`."""
    projection = (output * target).mean(-1)  # a code is of signs: its square is 1 everywhere
    length = output.square().mean(-1).sqrt()
    cosine = projection / length.clamp_min(1e-6)
    features = (2 * projection, torch.log1p(10 * projection.clamp_min(0)), 3 * cosine, 2 * length)
    return torch.stack(features, dim=-1)


def embedding_familiarity(output: Tensor, embedding: Tensor) -> list[Tensor]:
    """Cosine, projection and relative distance ``[B]`` of read-outs to embeddings, both ``[B, D]``."""
    length = torch.linalg.vector_norm(embedding, dim=-1).clamp_min(1e-6)
    projection = (output * embedding).sum(-1) / length.square()
    distance = torch.linalg.vector_norm(output - embedding, dim=-1) / length
    return [F.cosine_similarity(output, embedding, dim=-1, eps=1e-6), projection, distance]
