"""The code in docs/pytorch.md runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from project_root import ROOT

PAGE = (ROOT / "docs" / "pytorch.md").read_text(encoding="utf-8")
EVERY = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
BLOCKS = [block for block in EVERY if "import torch\n" in block]
"""Those that stand alone; tests/lmn_kernels/test_data_parallel.py runs the others on two ranks."""


def test_the_page_has_code() -> None:
    assert len(BLOCKS) >= 10
    for block in EVERY:
        compile(block, "docs/pytorch.md", "exec")


@pytest.mark.parametrize("place", range(len(BLOCKS)))
def test_the_code_of_the_page_runs(place: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.compiler.reset()
    exec(compile(BLOCKS[place], "docs/pytorch.md", "exec"), {})
