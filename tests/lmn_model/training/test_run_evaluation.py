"""What evaluate, predict and the log say of data that are not those of training."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from events_factory import make_events
from runs_factory import tiny_flags, tiny_settings

from lmn_model.cli.main import main
from lmn_model.data import DataOptions, Schema, load_dataset, load_source, prepare_pairs
from lmn_model.data.features import open_id
from lmn_model.training import train
from lmn_model.training.evaluation import evaluate
from lmn_model.training.evaluation.evaluate import evaluate_run
from lmn_model.training.evaluation.predict import predict_pairs
from lmn_model.training.evaluation.rates_baseline import baseline_logits
from lmn_model.training.reporting.notices import without_effect
from lmn_model.training.settings import SettingsError

FRAME = make_events(rows=900, users=20, items=40, label=True)
EARLIER, LATER = FRAME.head(600), FRAME.tail(300)
LABELLED = Schema(
    label="label", item_features=("category",), user_features=("segment",), context_features=("hour", "price")
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs, DIN and a factored memory, on the first 600 of 900 events."""
    root = tmp_path_factory.mktemp("runs")
    EARLIER.write_csv(root / "events.csv")
    for name, changes in (("din", {"memory": "none"}), ("lmn", {"memory": "factored", "key_dim": 16, "top_k": 1})):
        settings = tiny_settings(root / "events.csv", **{"epochs": 1, "order": "time", "label_col": "label", **changes})
        train(settings, root / name)
    return root


@pytest.mark.parametrize("run", ["din", "lmn"])
def test_events_that_changed_since_training_are_named(folder: Path, run: str, caplog: pytest.LogCaptureFixture) -> None:
    same = evaluate_run(folder / run)
    assert "changed" not in caplog.text
    original = (folder / "events.csv").read_bytes()
    try:
        EARLIER.head(599).write_csv(folder / "events.csv")
        evaluate_run(folder / run)
        assert "the data of the run have changed since training (" in caplog.text
        assert "events: 600 rows in training, 599 here" in caplog.text
        assert "rows that the model learned from may be among those scored" in caplog.text
        assert ("its memory holds what training wrote" in caplog.text) == (run == "lmn")
        caplog.clear()
        EARLIER.with_columns(price=pl.col("price") + 1).write_csv(folder / "events.csv")
        evaluate_run(folder / run)
        assert "(as many rows, other values)" in caplog.text
    finally:
        (folder / "events.csv").write_bytes(original)
    assert evaluate_run(folder / run) == same


@pytest.mark.parametrize("run", ["din", "lmn"])
def test_other_events_are_scored_whole_after_those_of_the_run(
    folder: Path, run: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "lmn")
    LATER.write_csv(tmp_path / "next.csv")
    found = evaluate_run(folder / run, path=str(tmp_path / "next.csv"))
    assert (found["split"], found["rows"]) == ("all", 300)
    assert "comes after the run's own events" in caplog.text
    # Scored as pairs, whose histories come from both files, the rows have the same probabilities.
    FRAME.write_csv(tmp_path / "both.csv")
    if run == "din":
        LATER.drop("label").write_csv(tmp_path / "pairs.csv")
        predict_pairs(folder / run, tmp_path / "pairs.csv", tmp_path / "out.csv", path=str(tmp_path / "both.csv"))
        chances = pl.read_csv(tmp_path / "out.csv")["probability"].to_numpy()
        labels = LATER["label"].to_numpy()
        loss = -np.mean(labels * np.log(chances) + (1 - labels) * np.log1p(-chances))
        assert found["log_loss"] == pytest.approx(loss, rel=1e-5)
    caplog.clear()
    again = evaluate_run(folder / run, path=str(tmp_path / "both.csv"))
    assert again["rows"] == 900
    assert "480 of 900 rows are not later than the run's training split" in caplog.text
    assert "histories hold its own events alone" in caplog.text


@pytest.mark.parametrize("link", [False, True])
def test_the_own_table_of_a_run_is_read_once(
    folder: Path, tmp_path: Path, link: bool, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder / "events.csv"
    if link:
        (tmp_path / "link.csv").symlink_to(path)
        path = tmp_path / "link.csv"
    read = []
    monkeypatch.setattr(evaluate, "load_source", lambda *args, **kw: read.append(args) or load_source(*args, **kw))
    assert evaluate_run(folder / "din", path=str(path))["rows"] == 600
    assert len(read) == 1
    assert "does not come after the run's own events, so histories hold its own events alone" in caplog.text


def test_a_few_rows_of_one_day_are_scored_too(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    LATER.head(7).write_csv(tmp_path / "next.csv")
    assert main(["evaluate", f"--run={folder / 'din'}", f"--path={tmp_path / 'next.csv'}"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 7
    for name, changes in (("clock", {"timestamp": pl.lit(17)}), ("label", {"label": pl.lit(1)})):
        LATER.with_columns(**changes).write_csv(tmp_path / f"{name}.csv")
        capsys.readouterr()
        assert main(["evaluate", f"--run={folder / 'din'}", f"--path={tmp_path / f'{name}.csv'}"]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1
    with pytest.raises(SettingsError, match="'all' is for a table of other events"):
        evaluate_run(folder / "din", "all")


def test_features_of_unknown_items_and_users_come_from_the_pairs(caplog: pytest.LogCaptureFixture) -> None:
    vocabularies = load_dataset(EARLIER, LABELLED, DataOptions(window=5)).vocabularies
    known = EARLIER.row(0, named=True)
    row = {"user_id": "new", "item_id": 7, "hour": 2, "price": 3.0, "category": "c3", "segment": "s1"}
    pairs = pl.DataFrame([row, {**row, "category": "c4"}, {**row, "category": "never seen"}])
    batch = prepare_pairs(pairs, EARLIER, LABELLED, vocabularies, 5).batch(np.arange(3))
    categories = vocabularies.encoder.vocabularies["category"].values.to_list()  # type: ignore[union-attr]
    segments = vocabularies.encoder.vocabularies["segment"].values.to_list()  # type: ignore[union-attr]
    wanted = [categories.index("c3") + 2, categories.index("c4") + 2, open_id("never seen")]
    assert batch.item.tolist() == [[open_id("7"), each] for each in wanted]
    assert batch.user.tolist() == [[open_id("new"), segments.index("s1") + 2]] * 3
    assert "another value" not in caplog.text
    priced = Schema(label="label", item_features=("price",))
    saved = load_dataset(EARLIER, priced, DataOptions(window=5)).vocabularies
    prepare_pairs(pl.DataFrame([{**known, "price": 1e3}]).drop("label"), EARLIER, priced, saved, 5)  # type: ignore[arg-type]
    assert "column 'price': 1 of 1 rows give another value" in caplog.text
    prepare_pairs(pairs.with_columns(hour=77), EARLIER, LABELLED, vocabularies, 5)
    assert "column 'hour': training has not seen the value of 100 % of the rows" in caplog.text
    caplog.clear()
    other = next(each for each in categories if each != known["category"])
    pairs = pl.DataFrame([row, {**row, "item_id": known["item_id"], "category": other}])
    batch = prepare_pairs(pairs, EARLIER, LABELLED, vocabularies, 5).batch(np.arange(2))
    assert batch.item[1, 1] == categories.index(known["category"]) + 2, "what training saved is used"
    assert (
        f"column 'category': 1 of 2 rows give another value .* '{other}' of {known['item_id']} in row 2".split(" .* ")[
            1
        ]
        in caplog.text
    )


def test_pairs_without_any_history_are_said_to_be_so(caplog: pytest.LogCaptureFixture) -> None:
    vocabularies = load_dataset(EARLIER, LABELLED, DataOptions(window=5)).vocabularies
    pairs = LATER.drop("label").head(20)
    prepare_pairs(pairs, EARLIER, LABELLED, vocabularies, 5)
    assert "empty history" not in caplog.text
    prepare_pairs(pairs.with_columns(user_id=pl.lit("U1")), EARLIER, LABELLED, vocabularies, 5)
    assert "all of the 20 pairs have an empty history" in caplog.text


def test_new_users_and_items_are_shown_and_warned_of(tmp_path: Path) -> None:
    frame = FRAME.with_columns(
        user_id=pl.when(pl.int_range(pl.len()) >= 810).then(pl.col("user_id") + "-new").otherwise("user_id")
    )
    dataset = load_dataset(frame, LABELLED)
    assert "| test 90 rows," in dataset.summary()
    assert ", 100 % of users new, 0 % of items new" in dataset.summary()
    assert dataset.describe()["test"]["unseen_users"] == 1.0  # type: ignore[index]
    warnings = [each for each in dataset.warnings() if each.startswith("test split: 100 % of the rows are of users")]
    assert len(warnings) == 1
    frame.write_parquet(tmp_path / "events.parquet")
    settings = tiny_settings(tmp_path / "events.parquet", "din", epochs=1, label_col="label")
    results = train(settings, tmp_path / "run")["results"]
    assert warnings[0] in results["warnings"]
    assert warnings[0] in (tmp_path / "run" / "train.log").read_text()
    assert set(results["baseline"]["test"]) == {"auc", "gauc", "log_loss"}


def test_sampled_negatives_of_a_catalogue_that_turns_over_are_warned_of() -> None:
    rng = np.random.default_rng(0)
    item = np.arange(2000) // 20 * 5 + rng.integers(0, 40, 2000)  # each item lives for a while
    frame = pl.DataFrame({"user_id": rng.integers(0, 30, 2000), "item_id": item, "timestamp": np.arange(2000)})
    warning = next(each for each in load_dataset(frame, Schema()).warnings() if each.startswith("test split"))
    assert "of the sampled negatives. Whether an item is new is enough to move AUC from 0.5 to 0." in warning
    assert not load_dataset(frame.with_columns(item_id=pl.Series(rng.integers(0, 40, 2000))), Schema()).warnings()


def test_the_baseline_is_of_what_came_strictly_before() -> None:
    frame = FRAME.with_columns(label=pl.Series(np.random.default_rng(0).integers(0, 2, 900)))
    dataset = load_dataset(frame, LABELLED)
    found = baseline_logits(dataset.train, [dataset.valid], dataset.test)
    users, items = frame["user_id"].to_numpy(), frame["item_id"].to_numpy()
    times, labels = frame["timestamp"].to_numpy(), frame["label"].to_numpy()
    overall = labels[:720][: len(dataset.train)].mean()
    expected = []
    for event in dataset.test.events:
        same_item = (items == items[event]) & (np.arange(900) < len(dataset.train))
        before = (users == users[event]) & (times < times[event])
        rates = [(labels[rows].sum() + 10 * overall) / (rows.sum() + 10) for rows in (same_item, before)]
        expected.append(sum(np.log(rate / (1 - rate)) for rate in rates) - np.log(overall / (1 - overall)))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_settings_without_effect_are_named(tmp_path: Path) -> None:
    dataset = load_dataset(FRAME, LABELLED)
    settings = tiny_settings(
        tmp_path,
        "din",
        negatives=3,
        search_by="category",
        reseed_every=5,
        sub_keys=8,
        top_k=4,
        key_dim=4,
    )
    named = [each.split(" = ")[0] for each in without_effect(settings, dataset)]
    assert named[:3] == ["negatives", "search_by", "memory_learning_rate"]
    assert {"reseed_every", "sub_keys", "top_k", "key_dim"} <= set(named)
    plain = load_dataset(FRAME.drop("label"), Schema())
    assert [each for each in without_effect(tiny_settings(tmp_path, history="all", order="time"), plain)] == [
        "history = 'all' has no effect: without labels all events enter histories"
    ]


def test_predict_copies_what_it_does_not_use(folder: Path, tmp_path: Path) -> None:
    lines = ["order,user_id,item_id,hour,price,when,note"]
    lines += [f'{"1" * 23},u{row},100{row},07,1.10,2020-11-12 12:14:27,"a ""b"", c"' for row in range(5)]
    (tmp_path / "pairs.csv").write_bytes("\r\n".join(lines).encode())
    arguments = ["predict", f"--run={folder / 'din'}", f"--pairs={tmp_path / 'pairs.csv'}"]
    assert main([*arguments, f"--out={tmp_path / 'out.csv'}"]) == 0
    written = (tmp_path / "out.csv").read_bytes().split(b"\r\n")
    assert [line.rsplit(b",", 1)[0].decode() for line in written[:5]] == lines[:5]
    for suffix in ("parquet", "tsv"):
        assert main([*arguments, f"--out={tmp_path / f'out.{suffix}'}"]) == 0
    frame = pl.read_parquet(tmp_path / "out.parquet")
    assert frame.row(0)[:-1] == ("1" * 23, "u0", "1000", "07", "1.10", "2020-11-12 12:14:27", 'a "b", c')


def test_a_full_disk_has_its_reason(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import resource

    LATER.drop("label").write_csv(tmp_path / "pairs.csv")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    for suffix in ("csv", "parquet"):
        arguments = ["predict", f"--run={folder / 'din'}", f"--pairs={tmp_path / 'pairs.csv'}"]
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
            code = main([*arguments, f"--out={tmp_path / f'out.{suffix}'}"])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        error = capsys.readouterr().err
        assert code == 2
        assert f"out.{suffix}: cannot be written: " in error
        assert "File too large" in error
        assert "None" not in error
        assert not (tmp_path / f"out.{suffix}").exists()


def test_flags_name_kinds_and_missing_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    EARLIER.with_columns(price=pl.when(pl.int_range(pl.len()) != 7).then("price")).write_csv(tmp_path / "e.csv")
    flags = tiny_flags(tmp_path / "e.csv", "din", epochs=1, label_col="label")
    assert main(["train", f"--out={tmp_path / 'a'}", *flags]) == 2
    assert "--missing-numbers indicator" in capsys.readouterr().err
    flags = [*flags, "--missing-numbers=indicator", "--numeric=hour"]
    assert main(["train", f"--out={tmp_path / 'a'}", *flags]) == 0
    assert "'hour' numeric, marked where it is missing; 'price' numeric" in capsys.readouterr().err
    assert main(["train", f"--out={tmp_path / 'b'}", *flags, "--categorical=hours"]) == 2
    assert "categorical: must name feature columns, got 'hours'; did you mean 'hour'?" in capsys.readouterr().err
