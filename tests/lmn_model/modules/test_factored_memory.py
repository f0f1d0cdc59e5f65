"""The factored memory: addresses and read-outs against loops, stored lists that stay current, nothing of the future."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from rows_factory import make_rows, write_rows
from runs_factory import stop_after, tiny_settings, write_events
from torch.nn import functional as F

from lmn_kernels.optim import RowAdagrad
from lmn_model.ctr import CTRModel, MemorySettings, ModelSettings
from lmn_model.data import BatchLoader, CategoricalFeature, FeatureSpec
from lmn_model.modules.factored_memory import FactoredMemoryNetwork
from lmn_model.modules.growth import grow
from lmn_model.modules.pair_ids import with_marginals
from lmn_model.modules.reseeding import reseed
from lmn_model.modules.usage import MemoryUsage
from lmn_model.training import TrainingInterrupted, train
from lmn_model.training.build import open_dataset
from lmn_model.training.evaluation.evaluate import evaluate_run
from lmn_model.training.evaluation.metrics import auc
from lmn_model.training.evaluation.new_events import write_new_events
from lmn_model.training.evaluation.scoring import predict_logits
from lmn_model.training.runs.checkpoint import open_checkpoint
from lmn_model.training.runs.folder import RunFolder
from lmn_model.training.runs.growth import grow_run
from lmn_model.training.runs.loading import load_run
from lmn_model.training.runs.state import load_model, save_model
from lmn_model.training.settings import Settings, SettingsError

ITEM = (CategoricalFeature("item", 30), CategoricalFeature("category", 6))
USER = CategoricalFeature("user", 11)


def make(**sizes: Any) -> FactoredMemoryNetwork:
    return FactoredMemoryNetwork(
        [each.size for each in ITEM], USER.size, **{"code_dim": 16, "sub_keys": 12, "marginals": False, **sizes}
    )


def draw(rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    item = torch.stack([torch.randint(1, feature.size, (rows,)) for feature in ITEM], dim=-1)
    return item, torch.randint(1, USER.size, (rows,))


def by_hand(network: FactoredMemoryNetwork, item: int, feature: int, user: int) -> dict[int, float]:
    """Weight of each slot that a pair reads, from all N * N sums."""
    layer = network.block
    row = item + sum(each.size for each in ITEM[:feature])
    halves = (network.item_codes[row], network.user_codes[user])
    scores = [F.cosine_similarity(code, layer.keys[0, axis], dim=-1) for axis, code in enumerate(halves)]
    scores = [score.masked_fill(mask, -torch.inf) for score, mask in zip(scores, layer.inactive[0], strict=True)]
    best = (scores[0][:, None] + scores[1][None, :]).flatten().topk(layer.top_k)
    return dict(zip(best.indices.tolist(), best.values.softmax(0).tolist(), strict=True))


@pytest.mark.parametrize("top_k", [1, 3])
@pytest.mark.parametrize("inactive", [False, True])
def test_slots_of_pairs_are_the_best_of_all(top_k: int, inactive: bool) -> None:
    network = make(top_k=top_k)
    if inactive:
        network.block.inactive[0, 0, ::2] = True
        network.block.inactive[0, 1, :5] = True
    item, user = draw(40)
    slots, weights = network.pair_slots(item, user)
    for row in range(40):
        for feature in range(2):
            found = dict(zip(slots[row, feature].tolist(), weights[row, feature].tolist(), strict=True))
            assert found == pytest.approx(by_hand(network, int(item[row, feature]), feature, int(user[row])), abs=1e-6)


def test_an_empty_memory_reads_as_zeros_and_a_written_pair_as_written() -> None:
    network = make(sub_keys=64)
    item, user = draw(1)
    assert not network(item, user).any()
    slots, _ = network.pair_slots(item, user)
    bound = network.item_codes[item[0] + network.offsets] * network.user_codes[user]  # [F, D]
    with torch.no_grad():
        network.block.values.index_copy_(0, slots.flatten(), bound)
    expected = torch.tensor([2.0, math.log(11.0), 3.0, 2.0])  # projection, its logarithm, cosine, length
    torch.testing.assert_close(network(item, user), expected.repeat(2).unsqueeze(0))
    assert not network(item, user).requires_grad


def test_the_loss_is_that_of_each_pair_and_moves_its_slots_alone() -> None:
    network = make(top_k=2)
    torch.nn.init.normal_(network.block.values)
    item, user = draw(9)
    loss = network.losses(item, user).answer
    loss.backward()
    total, touched = 0.0, set()
    for row in range(9):
        for feature in range(2):
            weights = by_hand(network, int(item[row, feature]), feature, int(user[row]))
            answer = sum(weight * network.block.values[slot] for slot, weight in weights.items())
            code = network.item_codes[int(item[row, feature]) + [0, ITEM[0].size][feature]]
            total += float(F.smooth_l1_loss(answer, code * network.user_codes[user[row]]))
            touched |= set(weights)
    assert float(loss) == pytest.approx(total / 18, rel=1e-5)
    assert set(network.block.values.grad.coalesce().indices()[0].tolist()) == touched
    assert [name for name, each in network.named_parameters() if each.requires_grad] == ["block.values"]
    assert network.losses(item[:0], user[:0]).answer == 0


@pytest.mark.parametrize("marginals", [False, True])
def test_pairs_with_the_unseen_id_are_never_written(marginals: bool) -> None:
    network = make(marginals=marginals, sub_keys=64, unseen=1)
    open_to_all = make(marginals=marginals, sub_keys=64)
    open_to_all.load_state_dict(network.state_dict())
    torch.nn.init.normal_(network.block.values)
    open_to_all.block.values.data.copy_(network.block.values.data)
    item, user = torch.tensor([[5, 2], [1, 2], [5, 1], [5, 2], [1, 1]]), torch.tensor([3, 3, 3, 1, 1])
    known = torch.tensor([[True, True], [False, True], [True, False], [False, False], [False, False]])
    if marginals:  # then [item, category, any item] with the user, and with any user
        known = torch.cat((known, user.unsqueeze(1) > 1), dim=1)
        anyone = torch.cat((item > 1, torch.ones(5, 1, dtype=torch.bool)), dim=1)
        known = torch.stack((known, anyone), dim=1).flatten(1)
    features, open_features = network(item, user).unflatten(1, (-1, 4)), open_to_all(item, user).unflatten(1, (-1, 4))
    assert not features[~known].any()
    assert torch.equal(features[known], open_features[known])
    network.losses(item, user).answer.backward()
    slots = network.pair_slots(*with_marginals(item, user, USER.size) if marginals else (item, user)).slots
    gradient = network.block.values.grad.to_dense()
    written = set(slots.reshape(known.shape)[known].tolist())
    assert set(gradient.any(1).nonzero().flatten().tolist()) == written
    if not marginals:
        assert network.losses(item[3:], user[3:]).answer == 0  # nothing to write


def test_a_model_on_events_knows_no_unseen_and_one_on_rows_has_none() -> None:
    features = FeatureSpec(user=(USER,), item=ITEM, context=(), numeric=())
    for unseen in (1, None):
        model = CTRModel(replace(features, unseen=unseen), ModelSettings(memory=MemorySettings(sub_keys=8)))
        assert isinstance(model.memory, FactoredMemoryNetwork)
        assert model.memory.unseen == unseen


def test_marginals_are_the_pairs_with_any_user_and_any_item() -> None:
    network = make(marginals=True)
    sizes = [*(each.size for each in ITEM), 1]
    explicit = FactoredMemoryNetwork(sizes, USER.size + 1, code_dim=16, sub_keys=12, marginals=False)
    explicit.load_state_dict(network.state_dict())
    torch.nn.init.normal_(network.block.values)
    explicit.block.values.data.copy_(network.block.values.data)
    item, user = draw(9)
    item = torch.cat((item, torch.zeros(9, 1, dtype=torch.int64)), dim=1)
    anyone = torch.full_like(user, USER.size)
    features = network(item[:, :2], user)
    assert features.shape == (9, network.signals) == (9, 2 * 3 * 4)
    torch.testing.assert_close(features, torch.cat((explicit(item, user), explicit(item, anyone)), dim=1))
    loss = network.losses(item[:, :2], user).answer
    pairs = explicit.losses(torch.cat((item, item)), torch.cat((user, anyone))).answer
    torch.testing.assert_close(loss, pairs)
    loss.backward()
    pairs.backward()
    torch.testing.assert_close(network.block.values.grad.to_dense(), explicit.block.values.grad.to_dense())


def test_crowded_slots_still_show_which_pairs_were_written() -> None:
    network = FactoredMemoryNetwork([400], 100, code_dim=64, sub_keys=16, marginals=False)
    pairs = torch.randperm(400 * 100)[:4000]
    written, other = pairs[:2000], pairs[2000:]  # 8 written pairs a slot
    optimizer = RowAdagrad([network.block.values], lr=0.05)
    for chunk in written.split(50):
        network.losses(chunk.remainder(400).unsqueeze(1), chunk.div(400, rounding_mode="floor")).answer.backward()
        optimizer.step()
        optimizer.zero_grad()
    familiar = network(pairs.remainder(400).unsqueeze(1), pairs.div(400, rounding_mode="floor"))[:, 0]
    labels = (torch.arange(4000) < 2000).double()
    assert len(other) == 2000
    assert auc(labels.numpy(), familiar.double().numpy()) > 0.85


def _rereads(network: FactoredMemoryNetwork) -> bool:
    """Whether the slots are still those by hand."""
    item, user = draw(20)
    slots, _ = network.pair_slots(item, user)
    return all(
        set(slots[row, feature].tolist()) == set(by_hand(network, int(item[row, feature]), feature, int(user[row])))
        for row in range(20)
        for feature in range(2)
    )


def test_stored_lists_follow_the_sub_keys(tmp_path: Path) -> None:
    network = make(top_k=2)
    assert _rereads(network)
    before = network.pair_slots(*draw(5))
    assert before.slots.shape == (5, 2, 2)
    with torch.no_grad():
        network.block.keys.normal_()
    assert _rereads(network)
    usage = network.block.usage = MemoryUsage(12)
    item, user = draw(30)
    network.losses(item, user)
    assert int(usage.slot_reads.sum()) == 30 * 2 * 2
    assert reseed(network.block, usage).sub_keys.any() or bool((usage.last_read > 0).all())
    assert _rereads(network)
    answers = network(item, user)
    grow(network.block)
    torch.testing.assert_close(network(item, user), answers)
    assert _rereads(network)

    features = FeatureSpec(user=(USER,), item=ITEM, context=(), numeric=())
    settings = ModelSettings(window="none", hidden=(4,), memory=MemorySettings(sub_keys=12, code_dim=16))
    one, other = CTRModel(features, settings), CTRModel(features, settings)
    assert isinstance(other.memory, FactoredMemoryNetwork)
    assert _rereads(other.memory)
    save_model(tmp_path / "a.safetensors", one, {})
    load_model(tmp_path / "a.safetensors", other)
    assert _rereads(other.memory)


def test_what_does_not_go_together_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="code_dim must be at least 1, got 0"):
        make(code_dim=0)
    with pytest.raises(SettingsError, match="search_by must name an item feature for window = 'sim_hard', got None"):
        Settings().override({"window": "sim_hard"})
    for wrong in ({"heads": 2}, {"balance_weight": 0.1}):
        with pytest.raises(ValueError, match="heads must be 1 and balance_weight 0 for memory = 'factored'"):
            MemorySettings(**wrong)  # type: ignore[arg-type]
    with pytest.raises(
        SettingsError, match=r"order must be 'time' for memory = 'factored', profiles .*, got 'shuffle'"
    ):
        Settings().override({"order": "shuffle"})
    assert Settings().override({"order": "shuffle", "memory": "joint"}).model.memory.slots_read == 16
    assert Settings().model.memory.slots_read == 1
    dataset = open_dataset(_settings(write_rows(tmp_path / "rows")).data)
    model = CTRModel(dataset.features, ModelSettings(hidden=(4,), memory=MemorySettings(sub_keys=8)))
    batch = next(iter(BatchLoader(dataset.train, 8)))
    with pytest.raises(ValueError, match="batch must have new_items and new_users"):
        model(batch)
    with pytest.raises(ValueError, match="it has neither factored memory nor collaborative features"):
        CTRModel(dataset.features, ModelSettings(memory=MemorySettings(kind="none"))).write_losses(batch)


def _settings(path: Path, **changes: Any) -> Settings:
    values = {
        "dataset": "rows", "path": str(path), "window_size": 4, "window": "din", "embedding_dim": 4, "hidden": (8,),
        "sub_keys": 16, "code_dim": 8, "epochs": 2, "batch_size": 16, "threads": 1, "device": "cpu", "eval_every": 5,
    }  # fmt: skip
    return Settings().override({**values, **changes})


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("prepared") / "rows")


@pytest.mark.parametrize("step", [3, 12])
def test_a_run_resumes_to_the_same_digits(
    rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    settings = _settings(rows)
    uncut = train(settings, tmp_path / "uncut")["results"]
    stop_after(monkeypatch, step)
    with pytest.raises(TrainingInterrupted):
        train(settings, tmp_path / "cut")
    monkeypatch.undo()
    assert train(settings, tmp_path / "cut", resume=True)["results"] == uncut


def test_newer_events_are_written_before_the_test_split(rows: Path, tmp_path: Path) -> None:
    settings = _settings(rows, window="none")
    results = train(settings, tmp_path / "run")["results"]
    assert evaluate_run(tmp_path / "run") == {"split": "test", "rows": 150, **results["test"]}
    found = evaluate_run(tmp_path / "run", "valid")  # with the memory as it was
    assert {**found, "split": 0, "rows": 0} == {**{n: results["best"][n] for n in found if n in results["best"]},
                                                "split": 0, "rows": 0}  # fmt: skip
    with open_checkpoint(RunFolder(tmp_path / "run").best) as file:
        assert "optimizer.memory.block.values/total" in file.tensors
    grow_run(tmp_path / "run", tmp_path / "grown")
    assert evaluate_run(tmp_path / "grown") == pytest.approx(evaluate_run(tmp_path / "run"), abs=1e-6)
    before = load_run(tmp_path / "run").model
    dataset = open_dataset(settings.data)
    stale = predict_logits(before, dataset.test, 16, torch.device("cpu"))
    assert auc(dataset.test.labels, stale) != results["test"]["auc"]  # 2 in 5 events of the histories were missing


def test_a_memory_writes_nothing_of_other_data(rows: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = _settings(rows, window="none")
    train(settings, tmp_path / "run")
    longer = write_rows(tmp_path / "longer", make_rows(seed=1))
    assert evaluate_run(tmp_path / "run", path=str(shutil.copytree(rows, tmp_path / "copy"))) == evaluate_run(
        tmp_path / "run"
    )
    caplog.clear()
    found = evaluate_run(tmp_path / "run", path=str(longer))
    assert "longer: not the data of the run (" in caplog.text
    assert "its memory holds what training wrote, and no later event" in caplog.text
    run = load_run(tmp_path / "run")
    test = open_dataset(replace(settings.data, path=str(longer)), run.vocabularies).test
    stale = predict_logits(run.model, test, 16, run.device)
    assert found["auc"] == auc(test.labels, stale)


def test_after_a_best_model_within_an_epoch_all_newer_events_are_written(rows: Path, tmp_path: Path) -> None:
    for seed in range(6):
        settings = _settings(rows, window="none", epochs=1, seed=seed, learning_rate=0.02)
        step = train(settings, tmp_path / str(seed))["results"]["best"]["step"]
        if step == 5:  # of 10
            break
    else:
        pytest.fail("no run is best within its epoch")
    dataset = open_dataset(settings.data)
    run = load_run(tmp_path / str(seed))
    starts = dataset.train.tables.histories.starts
    written, end = starts[:-1].copy(), starts[:-1].copy()
    np.maximum.at(written, dataset.train.users[: 5 * 16], dataset.train.history_ends[: 5 * 16])
    for split in (dataset.train, dataset.valid):
        np.maximum.at(end, split.users, split.history_ends)
    best = RunFolder(tmp_path / str(seed)).best
    assert write_new_events(best, run.model, settings.training, dataset, run.device) == (end - written).sum()


def _shuffle_the_future(tables: dict[str, pl.DataFrame]) -> dict[str, pl.DataFrame]:
    """The same tables with every event at or after the user's first test sample replaced."""
    first = dict(tables["test"].group_by("user_index").agg(pl.col("seq_len").min()).iter_rows())
    rng = np.random.default_rng(1)
    histories = [
        [*events[: first.get(user, len(events))], *rng.integers(1, 40, len(events[first.get(user, len(events)) :]))]
        for user, events in enumerate(tables["user_info"]["full_item_seq"].to_list())
    ]
    changed = pl.DataFrame({"full_item_seq": histories}, schema={"full_item_seq": pl.List(pl.Int64)})
    return {**tables, "user_info": changed}


@pytest.mark.parametrize(("window", "matches"), [("none", False), ("din", False), ("din", True)])
def test_nothing_of_the_future_reaches_a_sample(tmp_path: Path, window: str, matches: bool) -> None:
    tables = make_rows()
    changed = _shuffle_the_future(tables)
    assert not changed["user_info"].equals(tables["user_info"])
    scores = []
    for name, each in (("before", tables), ("after", changed)):
        path = write_rows(tmp_path / name, each)
        settings = _settings(path, window=window, matches=matches)
        results = train(settings, tmp_path / f"{name}-run")["results"]
        run = load_run(tmp_path / f"{name}-run")
        dataset = open_dataset(settings.data)
        best = RunFolder(tmp_path / f"{name}-run").best
        assert write_new_events(best, run.model, settings.training, dataset, run.device) > 0
        logits = predict_logits(run.model, dataset.test, 16, run.device)
        starts = dataset.test.tables.histories.starts
        order = np.lexsort(
            (dataset.test.items, dataset.test.users, dataset.test.history_ends - starts[dataset.test.users])
        )
        first = np.full(len(starts), np.iinfo(np.int64).max)
        np.minimum.at(first, dataset.test.users, dataset.test.history_ends)
        earliest = dataset.test.history_ends[order] == first[dataset.test.users[order]]
        scores.append((results["evaluations"], logits[order][earliest]))
    assert scores[0][0] == scores[1][0]
    assert len(scores[0][1]) >= 10
    assert (scores[0][1] == scores[1][1]).all()


def test_events_train_too_and_a_run_grows(tmp_path: Path) -> None:
    events = write_events(tmp_path / "events.parquet")
    settings = tiny_settings(events, memory="factored", key_dim=16, order="time", top_k=1, code_dim=8, reseed_every=5)
    results = train(settings, tmp_path / "run")["results"]
    assert results["evaluations"][-1]["memory"]["reads"] > 0
    grow_run(tmp_path / "run", tmp_path / "grown", epochs=3)
    before, after = evaluate_run(tmp_path / "run", "valid"), evaluate_run(tmp_path / "grown", "valid")
    assert after == pytest.approx(before, abs=1e-6)
    grown = replace(settings, model=replace(settings.model, memory=replace(settings.model.memory, sub_keys=16)))
    grown = grown.override({"epochs": 3})
    assert train(grown, tmp_path / "grown", resume=True)["results"]["epochs"] == 3
