"""What the documentation quotes exists: messages, result files, diagrams."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
from pathlib import Path

import pytest
from project_root import ROOT

from benchmarks.study.statistics import estimate
from benchmarks.study.study_file import slug

DOCS = ROOT / "docs"


def literals() -> list[str]:
    """All texts in the code of both packages, with … for what is filled in."""
    found = []
    for package in ("lmn_kernels", "lmn_model"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    parts = (each.value if isinstance(each, ast.Constant) else "…" for each in node.values)
                    found.append("".join(map(str, parts)))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value)
    return found


def quoted(section: str) -> list[str]:
    """The messages in the first column of a section's table."""
    text = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    table = text.partition(f"## {section}\n")[2].partition("\n## ")[0]
    return re.findall(r"^\| `([^`]+)`", table, re.MULTILINE)


def test_messages_on_the_page_are_those_of_the_code() -> None:
    messages = quoted("Messages of the ops and modules") + quoted("Messages of lmn")
    assert len(messages) >= 15
    texts = literals()
    missing = [message for message in messages if not any(matches(message, text) for text in texts)]
    assert not missing


def matches(message: str, text: str) -> bool:
    """Whether ``text`` of the code has ``message``, whose … stand for what is filled in."""
    return re.search(".*".join(re.escape(part) for part in message.split("…")), text) is not None


def test_the_summary_of_the_study_is_that_of_the_result_files() -> None:
    page = (DOCS / "study/index.md").read_text(encoding="utf-8")
    table = page.partition("<!-- summary -->\n")[2].partition("\n<!-- /summary -->")[0].splitlines()
    assert len(table) >= 7
    for row in table[2:]:
        name, auc = (column.strip() for column in row.strip("|").split("|"))
        paths = (DOCS / "results/study/complete-journey").glob(f"{slug(name)}-seed*.json")
        found = estimate([json.loads(path.read_text(encoding="utf-8"))["test"]["auc"] for path in paths])
        assert auc == f"{found.mean:.4f}" + ("" if found.half is None else f" ± {found.half:.4f}"), name


def test_the_readme_quotes_the_summary() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    page = (DOCS / "study/index.md").read_text(encoding="utf-8")
    gains = readme.partition("## Two queries\n")[2].partition("\nThose AUCs")[0]
    quoted_aucs = re.findall(r"0\.\d{4}", gains)
    assert len(quoted_aucs) == 3
    assert all(f"| {auc} ± " in page for auc in quoted_aucs)


@pytest.mark.parametrize("name", ["read", "queries"])
def test_diagrams_are_those_of_the_script(name: str, tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("diagrams", DOCS / "diagrams.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main(["--out", str(tmp_path)])
    assert words(tmp_path / f"{name}.svg") == words(DOCS / "diagrams" / f"{name}.svg")


def words(path: Path) -> list[str]:
    """The texts of an SVG file, in order."""
    return re.findall(r"<text [^>]*>([^<]+)</text>", path.read_text(encoding="utf-8"))
