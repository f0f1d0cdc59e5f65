"""The figures of the README are those of the committed results."""

from __future__ import annotations

import json

from project_root import ROOT

from benchmarks.result_files import load

README = (ROOT / "README.md").read_text(encoding="utf-8")


def marked(name: str) -> str:
    """What stands between the markers ``name``."""
    return README.partition(f"<!-- {name} -->\n")[2].partition(f"\n<!-- /{name} -->")[0]


def gpu_table() -> str:
    """Three rows of the committed result of the GPU, in milliseconds to three digits."""
    records = load(ROOT / "benchmarks/results/gpu.json")["times"]
    lines = ["| median time | this library | plain torch | `torch.compile` |", "|---|---|---|---|"]
    for shown, op, passed in (
        ("router, forward", "router", "forward"),
        ("router and values, forward", "layer", "forward"),
        ("router and values, forward and backward", "layer", "both"),
    ):
        times = {
            record["provider"]: record["p50_ms"]
            for record in records
            if (record["op"], record["shape"]["name"], record["dtype"], record["slots"], record.get("pass"))
            == (op, "lmn_1m", "bf16", "uniform", passed)
        }
        columns = " | ".join(f"{times[provider]:.3g} ms" for provider in ("lmn", "torch", "compile"))
        lines.append(f"| {shown} | {columns} |")
    return "\n".join(lines)


def demo_table() -> str:
    """The models of ``make demo``."""
    summary = json.loads((ROOT / "docs/results/demo.json").read_text(encoding="utf-8"))
    lines = ["| model | AUC | GAUC | log loss | parameters | samples/s in training |", "|---|---|---|---|---|---|"]
    lines += [
        f"| {row['model']} | {row['auc']:.4f} | {row['gauc']:.4f} | {row['log_loss']:.4f} | {row['parameters']:,} "
        f"| {row['samples_per_second']:,.0f} |"
        for row in summary["models"]
    ]
    return "\n".join(lines)


def test_gpu_table_is_of_the_committed_result() -> None:
    assert marked("gpu") == gpu_table(), f"put this into README.md between the gpu markers:\n{gpu_table()}"


def test_demo_table_is_of_the_committed_result() -> None:
    assert marked("demo") == demo_table(), f"put this into README.md between the demo markers:\n{demo_table()}"


def test_shape_of_the_gpu_table_is_the_one_measured() -> None:
    records = load(ROOT / "benchmarks/results/gpu.json")["times"]
    (shape,) = {
        (shape["B"], shape["N"] ** 2, shape["K"], shape["D"])
        for shape in (record["shape"] for record in records)
        if shape["name"] == "lmn_1m"
    }
    assert "({:,} queries, {:,} slots, K = {}, D = {};".format(*shape) in README.replace("bf16, ", "")
