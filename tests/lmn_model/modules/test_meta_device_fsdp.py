"""FSDP2 from the meta device on two ranks: every module is reset where its tensors are sharded."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from lmn_model import FactoredMemoryNetwork, LargeMemoryNetwork, MemoryLayer
from lmn_model.ctr.feature_embedding import FeatureEmbedding
from lmn_model.ctr.window import window_model
from lmn_model.data import CategoricalFeature


def build() -> nn.Module:
    features = (CategoricalFeature("item", 9),)
    return nn.Sequential(
        MemoryLayer(5, 7, sub_keys=6, top_k=3, sparse_grad=False, value_std=1.0),
        LargeMemoryNetwork(4, 3, sub_keys=6, top_k=2, sparse_grad=False),
        FactoredMemoryNetwork([30, 6], 11, sub_keys=8, sparse_grad=False),
        FeatureEmbedding(features, 4, 0.1),
        window_model("mimn", 4),
    )


def _reset_on_rank(rank: int, store: str) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    with torch.device("meta"):
        model = build()
    fully_shard(model, mesh=init_device_mesh("cpu", (2,)))
    model.to_empty(device="cpu")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(torch.nan)
    for module in model.modules():
        if [*module.parameters(recurse=False), *module.buffers(recurse=False)]:
            module.reset_parameters()
    for name, parameter in model.named_parameters():
        found = parameter.full_tensor().detach()
        if not found.isfinite().all():
            raise RuntimeError(f"{name} holds NaN")
    padding = model[3].tables[0].weight.full_tensor().detach()[0]
    if padding.count_nonzero():
        raise RuntimeError(f"the padding row is {padding}")
    torch.distributed.destroy_process_group()


def test_two_ranks_reset_their_shards(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(_reset_on_rank, (f"{tmp_path}/store",), nprocs=2)
