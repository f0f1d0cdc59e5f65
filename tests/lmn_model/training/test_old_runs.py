"""Run folders of version 0.1.0, whose tensors and settings had other names: they evaluate and resume."""

from __future__ import annotations

import json
import signal
from functools import partial
from pathlib import Path

import pytest
import tomli_w
from events_factory import make_events
from runs_factory import before_step, tiny_settings, write_events

from lmn_model.files import replacing
from lmn_model.training import train_run
from lmn_model.training.build import open_dataset
from lmn_model.training.evaluation.evaluate import evaluate_run
from lmn_model.training.loop import Trainer, TrainingInterrupted
from lmn_model.training.runs.checkpoint import load_checkpoint, save_checkpoint
from lmn_model.training.runs.folder import RunFolder
from lmn_model.training.runs.growth import grow_run
from lmn_model.training.settings import SettingsError
from lmn_model.training.train_run import train

OLD_SETTINGS = {
    "address": "pair", "target": "bound", "read_out": "familiarity", "keys": "product", "code_metric": "cosine",
    "loss": "smooth_l1",
}  # fmt: skip


def as_of_0_1_0(folder: RunFolder, **changes: str) -> None:
    """Give tensors and settings of a run the names that they had, all of them."""
    for path in (folder.last, folder.best):
        tensors, metadata = load_checkpoint(path)
        old = {_old(name): tensor for name, tensor in tensors.items()}
        assert old.keys() != tensors.keys()
        metadata["optimizer_numbers"] = {_old(name): each for name, each in metadata["optimizer_numbers"].items()}
        flat = metadata["settings"] | {
            f"model.memory.{name}": each for name, each in {**OLD_SETTINGS, **changes}.items()
        }
        assert flat.pop("model.window") == "din"
        flat |= {
            "model.interest": "lmn",
            "model.memory.query": flat.pop("model.memory.kind"),
            "data.window": flat.pop("data.window_size"),
        }
        flat.pop("training.writes")
        flat = {name: each for name, each in flat.items() if not name.startswith("model.collaborative.")}
        metadata["settings"] = flat
        save_checkpoint(path, old, metadata)
    table = folder.load_settings().to_dict()
    memory = table["model"]["memory"] | {**OLD_SETTINGS, **changes}
    memory["query"] = memory.pop("kind")
    assert table["model"].pop("window") == "din"
    table["model"].pop("collaborative")
    table["model"] |= {"interest": "lmn", "memory": memory}
    table["data"]["window"] = table["data"].pop("window_size")
    table["training"].pop("writes", None)
    with replacing(folder.settings) as temporary:
        temporary.write_text(tomli_w.dumps(table), encoding="utf-8")


def _old(name: str) -> str:
    return name.replace("memory.block.", "memory.memory.").replace("memory.inactive", "memory.asleep")  # a former name


@pytest.mark.parametrize(
    "options",
    [{}, {"memory_optimizer": "row_adam"}, {"memory": "factored", "top_k": 1, "key_dim": 16, "order": "time"}],
    ids=["joint", "joint, row_adam", "factored"],
)
def test_a_run_of_the_last_release_is_evaluated_and_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, object]
) -> None:
    settings = tiny_settings(write_events(tmp_path / "events.parquet"), **options)
    factored = settings.model.writes_new_events
    opened = settings.override({"writes": "samples"}) if factored else settings  # there was no other rule
    results = train(opened, tmp_path / "run")["results"]
    scores = evaluate_run(tmp_path / "run")
    as_of_0_1_0(RunFolder(tmp_path / "run"))
    assert evaluate_run(tmp_path / "run") == scores

    after = Trainer._after_step

    def stopping(self: Trainer, stop: object, report: object) -> bool:
        if self.state.progress.step == 30:
            stop.set()  # type: ignore[attr-defined]
        return after(self, stop, report)  # type: ignore[arg-type]

    monkeypatch.setattr(Trainer, "_after_step", stopping)
    with pytest.raises(TrainingInterrupted):
        train(opened, tmp_path / "cut")
    monkeypatch.undo()
    as_of_0_1_0(RunFolder(tmp_path / "cut"))
    assert RunFolder(tmp_path / "cut").load_settings().training.writes == ("samples" if factored else None)
    assert train(settings, tmp_path / "cut", resume=True)["results"] == results


def test_a_run_of_another_model_is_refused_by_the_name_of_the_setting(tmp_path: Path) -> None:
    settings = tiny_settings(write_events(tmp_path / "events.parquet"), epochs=1)
    train(settings, tmp_path / "run")
    as_of_0_1_0(RunFolder(tmp_path / "run"), target="pair")
    with pytest.raises(SettingsError, match=r"settings.toml: model.memory.target must be 'bound', got 'pair'; only"):
        evaluate_run(tmp_path / "run")


def test_a_run_with_one_id_for_all_new_values_resumes_and_grows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = make_events(rows=900, users=60, items=40, label=True)
    table.write_parquet(tmp_path / "events.parquet")
    settings = tiny_settings(tmp_path / "events.parquet", label_col="label", memory="factored", top_k=1, order="time",
                             key_dim=16, code_dim=8, epochs=1, profile_levels=2, profile_signed=True)  # fmt: skip
    shared = partial(open_dataset, open_ids=False)
    monkeypatch.setattr(train_run, "open_dataset", lambda data, open_ids: shared(data))
    before_step(monkeypatch, 9, lambda trainer: signal.raise_signal(signal.SIGINT))
    with pytest.raises(TrainingInterrupted):
        train(settings, tmp_path / "run")
    monkeypatch.undo()
    saved = json.loads((tmp_path / "run" / "vocabularies.json").read_text())
    assert saved.pop("open_ids") is False
    (tmp_path / "run" / "vocabularies.json").write_text(json.dumps(saved))  # as 0.1.0 wrote it
    for path in (RunFolder(tmp_path / "run").last, RunFolder(tmp_path / "run").best):
        if path.exists():
            tensors, metadata = load_checkpoint(path)
            assert metadata["features"].pop("open_ids") is False
            save_checkpoint(path, tensors, metadata)
    assert train(settings, tmp_path / "run", resume=True)["status"] == "finished"
    grow_run(tmp_path / "run", tmp_path / "grown", epochs=2)
    grown = RunFolder(tmp_path / "grown")
    assert train(grown.load_settings(), grown.root, resume=True)["status"] == "finished"
