"""FuxiCTR's half of :mod:`benchmarks.training.against_fuxictr`, a script for a Python that has ``fuxictr==2.3.9``.

It takes one JSON object as argument and prints one, see ``main``. Models, loader and training loop are the package's
own, called as its ``run_expid.py`` calls them; the settings are those of its ``config/din_config`` and
``config/sim_config``, but for what the argument names. Nothing of this repository is imported here.
"""

from __future__ import annotations

import itertools
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from fuxictr.features import FeatureMap
from fuxictr.pytorch.dataloaders import RankDataLoader
from fuxictr.pytorch.torch_utils import seed_everything
from model_zoo.LongCTR import DIN, SIM
from model_zoo.LongCTR.longctr_dataloader import LongCTRDataLoader

MODELS = {"din": DIN, "sim_soft": SIM}
CONFIG: dict[str, Any] = {
    "task": "binary_classification",
    "loss": "binary_crossentropy",
    "metrics": ["AUC", "logloss"],
    "monitor": "AUC",
    "monitor_mode": "max",
    "optimizer": "adam",
    "embedding_regularizer": 0,
    "net_regularizer": 0,
    "dnn_activations": "relu",
    "net_dropout": 0,
    "batch_norm": False,
    "accumulation_steps": 1,
    "epochs": 1,
    "shuffle": True,
    "verbose": 0,
    "gpu": -1,
    # DIN
    "attention_hidden_units": [64],
    "attention_hidden_activations": "Dice",
    "attention_dropout": 0,
    "din_use_softmax": False,
    # SIM
    "attention_dim": 64,
    "num_heads": 2,
    "gsu_type": "soft",
    "alpha": 1,
    "beta": 1,
    "topk": 50,
    "short_seq_len": 50,
}


class Timed:
    """The first ``steps + 1`` batches of a loader, and the time of each request, which ends the step before."""

    def __init__(self, batches: Any, steps: int) -> None:
        self.batches, self.steps = batches, steps
        self.stamps: list[float] = []

    def __len__(self) -> int:
        return self.steps + 1

    def __iter__(self) -> Iterator[Any]:
        batches = iter(self.batches)
        for _ in range(len(self)):
            self.stamps.append(time.perf_counter())
            yield next(batches)


def main() -> None:
    """Train by the settings of the argument, and print seconds and losses.

    The argument holds ``rows``, ``feature_map`` (folder of it), ``dataset_id``, ``model``, ``window``,
    ``embedding_dim``, ``hidden``, ``batch_size``, ``learning_rate``, ``threads``, ``workers``, ``seed``, ``warm_up``,
    ``steps`` (None for one epoch) and ``ready_steps``.
    """
    request = json.loads(sys.argv[1])
    torch.set_num_threads(request["threads"])
    rows = Path(request["rows"])
    params: dict[str, Any] = {
        **CONFIG,
        "dataset_id": request["dataset_id"],
        "model_id": request["model"],
        "embedding_dim": request["embedding_dim"],
        "dnn_hidden_units": request["hidden"],
        "learning_rate": request["learning_rate"],
        "batch_size": request["batch_size"],
        "max_len": request["window"],
        "num_workers": request["workers"],
        "user_info": str(rows / "user_info.parquet"),
        "item_info": str(rows / "item_info.parquet"),
        "train_data": str(rows / "train.parquet"),
        "valid_data": str(rows / "valid.parquet"),
        "data_loader": LongCTRDataLoader,
    }
    with tempfile.TemporaryDirectory() as folder:
        params["model_root"] = folder
        (Path(folder) / request["dataset_id"]).mkdir()
        feature_map = FeatureMap(request["dataset_id"], request["feature_map"])
        feature_map.load(str(Path(request["feature_map"]) / "feature_map.json"), params)
        train, valid = RankDataLoader(feature_map, stage="train", **params).make_iterator()
        print(json.dumps(_measure(request, params, feature_map, train, valid)))


def _measure(
    request: dict[str, Any], params: dict[str, Any], feature_map: Any, train: Any, valid: Any
) -> dict[str, Any]:
    ready = list(itertools.islice(train, request["ready_batches"]))
    more = iter(train)
    next(more)  # the workers have started
    first = time.perf_counter()
    for _ in range(request["ready_batches"]):
        next(more)
    loader_seconds = time.perf_counter() - first
    del more
    few_to_score = list(itertools.islice(valid, 2))  # fit scores once; it is not timed

    def train_on(batches: Any, steps: int) -> tuple[float, list[float], int]:
        seed_everything(seed=request["seed"])
        model = MODELS[request["model"]](feature_map, **params)
        losses: list[float] = []
        step = model.train_step

        def kept(batch: Any) -> Any:
            loss = step(batch)
            losses.append(loss.item())
            return loss

        model.train_step = kept
        timed = Timed(batches, request["warm_up"] + steps)
        model.fit(timed, validation_data=few_to_score, **params)
        parameters = sum(parameter.numel() for parameter in model.parameters())
        return timed.stamps[request["warm_up"] + steps] - timed.stamps[request["warm_up"]], losses, parameters

    steps = request["steps"] or len(train) - 1 - request["warm_up"]
    seconds, losses, parameters = train_on(train, steps)
    ready_seconds, _, _ = train_on(itertools.cycle(ready), request["ready_steps"])
    return {
        "steps": steps,
        "seconds": seconds,
        "ready_steps": request["ready_steps"],
        "ready_seconds": ready_seconds,
        "loader_batches": request["ready_batches"],
        "loader_seconds": loader_seconds,
        "mean_loss": sum(losses[:-1]) / (len(losses) - 1),
        "parameters": parameters,
        "packages": {name: version(name) for name in ("fuxictr", "torch", "numpy", "pandas")},
        "python": sys.version.split()[0],
    }


if __name__ == "__main__":
    main()
