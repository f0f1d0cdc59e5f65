"""Window match features against loops over rows, features and positions."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from ctr_factory import FEATURES, make_batch, make_full_batch, settings_of
from runs_factory import tiny_settings, write_events
from torch import Tensor

from lmn_model.ctr import CTRModel
from lmn_model.ctr.window import WindowMatchFeatures
from lmn_model.data.features import UNSEEN
from lmn_model.training.evaluation.evaluate import evaluate_run
from lmn_model.training.runs.growth import grow_run
from lmn_model.training.train_run import train


def plain(item: Tensor, history: Tensor, mask: Tensor, unseen: int | None = UNSEEN) -> Tensor:
    out = []
    for candidate, events, real in zip(item.tolist(), history.tolist(), mask.tolist(), strict=True):
        counts, newest = [0] * len(candidate), [0.0] * len(candidate)
        for place, (event, is_real) in enumerate(zip(events, real, strict=True)):
            for f, value in enumerate(candidate):
                if is_real and value != unseen and event[f] == value:
                    counts[f] += 1
                    newest[f] = (place + 1) / len(events)
        out.append([*(math.log(1 + count) for count in counts), *newest])
    return torch.tensor(out)


@pytest.mark.parametrize("window", [1, 5, 40])
@pytest.mark.parametrize("unseen", [None, UNSEEN])
def test_matches_are_the_loops(window: int, unseen: int | None) -> None:
    batch = make_batch(32, window)
    behind = torch.where(batch.history_mask[..., None], batch.history, batch.item[:, None])  # padding has no effect
    features = WindowMatchFeatures(unseen)(batch.item, behind, batch.history_mask)
    assert features.dtype == torch.float32
    torch.testing.assert_close(features, plain(batch.item, behind, batch.history_mask, unseen))
    assert (features[:, :3] > 0).any()
    assert (batch.item == UNSEEN).any()


def test_nothing_matches_in_an_empty_window() -> None:
    batch = make_batch(4, 0)
    features = WindowMatchFeatures()(batch.item, batch.history, batch.history_mask)
    torch.testing.assert_close(features, torch.zeros(4, 6))


@pytest.mark.parametrize("memory", ["none", "joint"])
@pytest.mark.parametrize("window", ["none", "pooling", "din", "sim_soft", "mimn"])
def test_the_tower_reads_the_matches_of_the_window(window: str, memory: str) -> None:
    model = CTRModel(FEATURES, settings_of(window, memory, matches=True)).eval()
    seen: list[Tensor] = []
    model.tower.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    batch = make_batch(16)
    model(batch)
    expected = plain(batch.item, batch.history, batch.history_mask)
    found = [(seen[0][:, at : at + 6] - expected).abs().max() < 1e-6 for at in range(seen[0].shape[1] - 5)]
    assert sum(map(bool, found)) == 1
    without = CTRModel(FEATURES, settings_of(window, memory))
    assert seen[0].shape[1] == without.tower[0].in_features + 6


def test_the_tower_reads_the_matches_of_the_events_that_a_search_found() -> None:
    model = CTRModel(FEATURES, settings_of("sim_hard", "none", matches=True)).eval()
    seen: list[Tensor] = []
    model.tower.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    batch = make_full_batch(16)
    assert batch.found is not None
    assert batch.found_mask is not None
    model(batch)
    window = plain(batch.item, batch.history, batch.history_mask)
    found = plain(batch.item, batch.found, batch.found_mask)
    assert not torch.equal(window, found)
    torch.testing.assert_close(seen[0][:, -12:], torch.cat((window, found), dim=1))


@pytest.mark.parametrize("joins", ["tower", "logit"])
def test_a_run_with_matches_is_evaluated_as_it_was_trained_and_grows(tmp_path: Path, joins: str) -> None:
    events = write_events(tmp_path / "events.parquet")
    settings = tiny_settings(events, matches=True, gate=True, joins=joins, epochs=1)
    trained = train(settings, tmp_path / "run")["results"]["evaluations"][-1]
    assert evaluate_run(tmp_path / "run", "valid")["auc"] == trained["auc"]
    grow_run(tmp_path / "run", tmp_path / "grown", epochs=2)
    assert evaluate_run(tmp_path / "grown", "valid")["auc"] == pytest.approx(trained["auc"], abs=1e-6)
