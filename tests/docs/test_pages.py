"""The code of the README and the documentation runs, and prints what the pages show."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch.distributed as dist
from events_factory import make_events
from page_runner import blocks, run_page
from project_root import ROOT

from benchmarks.study.__main__ import STUDY
from lmn_model.cli.arguments import command_parser
from lmn_model.cli.lmn import LMN

PAGES = [ROOT / "README.md", *(path for path in sorted((ROOT / "docs").rglob("*.md")) if "results" not in path.parts)]
WITH_CODE = [page for page in PAGES if blocks(page)]
COLUMNS = {"user_id": "customer", "item_id": "sku", "timestamp": "bought_at", "category": "category", "segment": "city"}
OTHER_FLAGS = {
    "--keep-going",
    "--nproc-per-node",
    "--draw",
    "--fuxictr-python",
    "--no-deps",
    "--ignore-requires-python",
}
"""Flags on the pages that belong to neither program: of Sphinx, torchrun, pip and the benchmarks."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder of a page, with the tables and the process group that pages begin with."""
    monkeypatch.chdir(tmp_path)
    events = make_events(rows=600, users=20, items=40).rename(COLUMNS)
    events = events.with_columns(brand=events["category"])[[*COLUMNS.values(), "brand"]]
    events.write_csv("purchases.csv")
    events.head(5).drop("brand", "category", "city").write_csv("pairs.csv")
    sales = make_events(rows=700, users=20, items=40)
    sales = sales.with_columns(sales["timestamp"].dt.strftime("%d/%m/%Y %H:%M"))
    sales.head(600).write_csv("sales.csv")
    sales.tail(100).write_csv("next_week.csv")
    for name, value in {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0", "RANK": "0", "WORLD_SIZE": "1"}.items():
        monkeypatch.setenv(name, value)
    return tmp_path


def names_of(pages: list[Path]) -> list[str]:
    return [str(page.relative_to(ROOT)) for page in pages]


@pytest.mark.parametrize("page", WITH_CODE, ids=names_of(WITH_CODE))
def test_the_code_of_the_page_runs(page: Path, folder: Path) -> None:
    if page.name == "distributed.md" and not dist.is_gloo_available():
        pytest.skip("needs gloo")
    run_page(page)
    if page.name == "events.md":
        listed = re.findall(r"`([\w.]+\.\w+)`", section(page, "The run folder"))
        listed = [name for name in listed if not name.startswith("--")]
        assert {path.name for path in (folder / "runs/mine").iterdir()} == set(listed)


def section(page: Path, title: str) -> str:
    """The text of a section of a page."""
    return page.read_text(encoding="utf-8").partition(f"## {title}\n")[2].partition("\n## ")[0]


def test_pages_with_code_are_found() -> None:
    found = names_of(WITH_CODE)
    assert {"README.md", "docs/getting_started.md", "docs/guides/ops.md", "docs/guides/events.md"} <= set(found)
    assert sum(block.language == "python" for page in WITH_CODE for block in blocks(page)) >= 20


def test_a_wrong_output_is_found(folder: Path) -> None:
    page = folder / "page.md"
    page.write_text("```python\nprint(1)\n```\n\n```text\n2\n```\n", encoding="utf-8")
    with pytest.raises(AssertionError, match=r"page.md, line 2"):
        run_page(page)


@pytest.mark.parametrize("page", PAGES, ids=names_of(PAGES))
def test_flags_on_the_page_exist(page: Path) -> None:
    parsers = [command_parser(program, name) for program in (LMN, STUDY) for name in program.commands]
    known = {flag for parser in parsers for action in parser._actions for flag in action.option_strings}
    shown = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", page.read_text(encoding="utf-8")))
    assert shown <= known | OTHER_FLAGS
