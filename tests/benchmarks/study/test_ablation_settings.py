"""Settings and results of ablations: which sizes they take, and that they are no results of the library's network."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pairs_factory import FEATURES
from project_root import ROOT
from rows_factory import write_rows

from benchmarks.study.ablations import AblatedMemoryNetwork
from benchmarks.study.jobs import Places, differing, make_job
from benchmarks.study.result_files import read_result, same_settings
from benchmarks.study.settings import StudySettings
from benchmarks.study.study_file import load_study
from lmn_model.ctr.model import CTRModel
from lmn_model.ctr.settings import MemorySettings
from lmn_model.training.default_sizes import DataCounts, choose_sizes
from lmn_model.training.evaluation.evaluate import evaluate_run
from lmn_model.training.runs.checkpoint import CheckpointError
from lmn_model.training.settings import Settings, SettingsError
from lmn_model.training.train_run import train


def test_flat_keys_take_no_size_that_is_too_large_for_them() -> None:
    settings = StudySettings().override({"keys": "flat", "epochs": 1, "batch_size": 8})
    sizes = choose_sizes(settings, DataCounts(1000, 10**9))
    with pytest.raises(SettingsError, match="sub_keys must be at most 256 for keys = 'flat', got 1024"):
        settings.override(sizes)


ABLATIONS = {
    "item-only address": {"address": "item"},
    "user-only address": {"address": "user"},
    "target side by side": {"target": "pair"},
    "answer instead of familiarity": {"read_out": "answer"},
    "answer and familiarity": {"read_out": "both"},
    "dot product": {"code_metric": "dot"},
    "squared distance": {"code_metric": "l2"},
    "mean squared error": {"loss": "mse"},
    "LMN of 4096 flat keys": {"keys": "flat"},
}


def test_the_study_runs_the_ablations_and_has_their_results(tmp_path: Path) -> None:
    study = load_study(ROOT / "benchmarks" / "study" / "complete_journey.toml")
    places = Places(tmp_path, ROOT / "docs" / "results" / "study")
    found = {}
    for variant in study.variants:
        memory = variant.settings.model.memory
        values_of = {name: getattr(memory, name) for name in DEFAULTS}
        changed = {name: value for name, value in values_of.items() if value != DEFAULTS[name]}
        if changed:
            found[variant.name] = changed
            network = CTRModel(FEATURES, variant.settings.override({"sub_keys": 8}).model).memory
            assert type(network) is AblatedMemoryNetwork
            values = {"address": network.halves[:1], "code_metric": network.block.metric}
            values |= {name: getattr(network, name) for name in ("target", "read_out", "loss")}
            values |= {"keys": "product" if network.flat_keys is None else "flat"}
            for name, value in changed.items():
                assert values[name] == ((value,) if name == "address" else value)
        tuned = read_result(make_job(study, variant, 0, places).result)["tuned"]
        assert differing(read_result((job := make_job(study, variant, 0, places, tuned=tuned)).result), job) == []
    assert found == ABLATIONS


DEFAULTS = {
    "address": "pair", "target": "bound", "read_out": "familiarity", "keys": "product", "code_metric": "cosine",
    "loss": "smooth_l1",
}  # fmt: skip


def test_a_result_of_an_ablation_is_none_of_the_library_s_network(tmp_path: Path) -> None:
    results = ROOT / "docs" / "results" / "study" / "complete-journey"
    result = json.loads((results / "item-only-address-seed0.json").read_text(encoding="utf-8"))
    settings = StudySettings.from_dict(result["settings"])
    assert same_settings(result, settings) == []
    assert same_settings(result, settings.override({"address": "pair"})) == ["model.memory.address"]
    with pytest.raises(SettingsError, match=r"result: model.memory.address must be 'pair', got 'item'; only the study"):
        Settings.from_dict(result["settings"], "result")


@pytest.mark.parametrize("ablated", [False, True])
def test_lmn_reads_a_run_of_the_study_only_if_nothing_is_ablated(tmp_path: Path, ablated: bool) -> None:
    values = {
        "dataset": "rows", "path": str(write_rows(tmp_path / "rows")), "window": 4, "embedding_dim": 4, "hidden": (8,),
        "sub_keys": 16, "code_dim": 8, "batch_size": 16, "threads": 1, "device": "cpu", "epochs": 1,
    }  # fmt: skip
    settings = StudySettings().override({**values, **({"address": "item"} if ablated else {})})
    results = train(settings, tmp_path / "run")["results"]
    assert train(settings, tmp_path / "run", resume=True)["results"] == results
    if not ablated:
        assert evaluate_run(tmp_path / "run")["auc"] == results["test"]["auc"]
        return
    with pytest.raises(SettingsError, match=r"settings.toml: model.memory.address must be 'pair', got 'item'"):
        evaluate_run(tmp_path / "run")
    table = (tmp_path / "run" / "settings.toml").read_text(encoding="utf-8")
    (tmp_path / "run" / "settings.toml").write_text(table.replace('address = "item"', ""), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"the settings differ .*: model.memory.address"):
        evaluate_run(tmp_path / "run")


def test_settings_at_their_old_defaults_are_no_settings(tmp_path: Path) -> None:
    old = Settings().to_dict()
    old["model"]["memory"] |= DEFAULTS
    assert Settings.from_dict(old) == Settings()
    assert StudySettings.from_dict(old).to_dict()["model"]["memory"] == old["model"]["memory"]
    for name in DEFAULTS:
        assert not hasattr(MemorySettings(), name)
        changed = {**old["model"]["memory"], name: "other"}
        with pytest.raises(SettingsError, match=f"model.memory.{name} must be '{DEFAULTS[name]}', got 'other'"):
            Settings.from_dict({**old, "model": {**old["model"], "memory": changed}})
