"""What the README says runs, and its figures are those of the committed results."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from events_factory import make_events
from project_root import ROOT

from lmn_model.cli.arguments import command_parser
from lmn_model.cli.lmn import LMN
from lmn_model.cli.main import main

README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_gpu_table_is_of_the_committed_result() -> None:
    """The rows of README's table, in milliseconds to three digits."""
    records = json.loads((ROOT / "benchmarks/results/gpu.json").read_text(encoding="utf-8"))["times"]
    for shown, op, passed in (
        ("router, forward", "router", "forward"),
        ("whole read, forward", "layer", "forward"),
        ("whole read, forward and backward", "layer", "both"),
    ):
        of_side = {
            record["side"]: record["p50_ms"]
            for record in records
            if (record["op"], record["shape"]["name"], record["dtype"], record["slots"], record.get("pass"))
            == (op, "lmn_1m", "bf16", "uniform", passed)
        }
        cells = " | ".join(f"{of_side[side]:.3g} ms" for side in ("lmn", "torch", "compile"))
        assert f"| {shown} | {cells} |" in README


def demo_table() -> str:
    summary = json.loads((ROOT / "docs/results/demo.json").read_text(encoding="utf-8"))
    lines = ["| model | AUC | GAUC | log loss | parameters | samples/s in training |", "|---|---|---|---|---|---|"]
    lines += [
        f"| {row['model']} | {row['auc']:.4f} | {row['gauc']:.4f} | {row['log_loss']:.4f} | {row['parameters']:,} "
        f"| {row['samples_per_second']:,.0f} |"
        for row in summary["models"]
    ]
    return "\n".join(lines)


def run_block(place: int, **names: object) -> dict[str, object]:
    """Names after a block of Python that knows ``names``."""
    exec(compile(blocks("python")[place], "README.md", "exec"), names)
    return names


def test_the_first_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    run_block(0)
    assert "slots=1048576, value_dim=32" in capsys.readouterr().out


def test_the_memory_of_the_second_example_knows_what_it_was_told(capsys: pytest.CaptureFixture[str]) -> None:
    after = run_block(1)
    assert after["told"].shape == (256, after["memory"].signals)  # type: ignore[attr-defined]
    before_and_after = re.findall(r"tensor\(([\d.]+)\)", capsys.readouterr().out)
    assert float(before_and_after[0]) == 0 < float(before_and_after[1])


def test_the_model_with_a_memory_learns(capsys: pytest.CaptureFixture[str]) -> None:
    page = (ROOT / "docs/own_model.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    exec(compile(code, "own_model.md", "exec"), {})
    assert float(capsys.readouterr().out.rpartition(" ")[2]) > 0.9


def test_the_ops_run_as_in_the_third_example() -> None:
    given = {"queries": torch.randn(5, 1, 2, 4), "keys": torch.randn(1, 2, 6, 4), "values": torch.randn(36, 3), "k": 2}
    after = run_block(2, weights=torch.rand(5, 2), **given)
    shapes = {name: tuple(after[name].shape) for name in ("scores", "slots", "output", "weights")}  # type: ignore[attr-defined]
    assert shapes == {"scores": (5, 1, 2), "slots": (5, 1, 2), "output": (5, 3), "weights": (5, 1, 2)}


def test_the_table_of_numbers_is_that_of_the_results() -> None:
    shown = README.partition("<!-- demo -->\n")[2].partition("\n<!-- /demo -->")[0]
    assert shown == demo_table(), f"put this into README.md between the demo marks:\n{demo_table()}"


def test_own_table_with_the_flags_of_the_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = {"user_id": "customer", "item_id": "sku", "timestamp": "bought_at", "category": "category", "segment": "city"}
    events = make_events(rows=600, users=20, items=40).rename(own)
    events = events.with_columns(brand=events["category"])[[*own.values(), "brand"]]
    monkeypatch.chdir(tmp_path)
    events.write_csv("purchases.csv")
    events.head(5).drop("brand", "category", "city").write_csv("pairs.csv")
    commands = [line.partition("#")[0].split() for line in blocks("bash")[2].replace("\\\n", " ").splitlines()]
    assert [command[:2] for command in commands] == [["lmn", "train"], ["lmn", "evaluate"], ["lmn", "predict"]]
    small = ["--sub-keys=8", "--top-k=4", "--embedding-dim=4", "--hidden=8", "--threads=1", "--device=cpu"]
    assert main([*commands[0][1:], *small]) == 0
    assert main(commands[1][1:]) == 0
    assert main(commands[2][1:]) == 0
    named = re.findall(r"`([a-z_]+\.(?:toml|json|log|png|safetensors))`", README)
    assert {path.name for path in (tmp_path / "runs/mine").iterdir()} == set(named)


def test_flags_in_the_readme_exist() -> None:
    parsers = [command_parser(LMN, name) for name in LMN.commands]
    known = {flag for parser in parsers for action in parser._actions for flag in action.option_strings}
    assert set(re.findall(r"--[a-z][a-z-]+", README)) <= known
