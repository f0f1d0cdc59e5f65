"""A small study: the file, its rows and a page, in a folder of its own."""

from __future__ import annotations

from pathlib import Path

import tomli_w
from rows_factory import write_rows

PAGE = """# Page

<!-- study: tiny main -->
<!-- /study -->

By hand.

<!-- study: tiny size -->
<!-- /study -->

<!-- study: tiny tuning -->
<!-- /study -->

<!-- study: tiny history -->
<!-- /study -->

<!-- study: tiny item_age -->
<!-- /study -->

<!-- study: tiny writing -->
<!-- /study -->

<!-- study: other main -->
untouched
<!-- /study -->
"""


def write_study(folder: Path) -> Path:
    """Write ``tiny.toml`` with two models, two heuristics and a sweep, ``rows`` and ``page.md`` into ``folder``."""
    write_rows(folder / "rows")
    table = {
        "name": "tiny",
        "reference": "DIN",
        "references": {"size": "size sub_keys=8"},
        "axes": {"size": "slots"},
        "seeds": [0, 1],
        "base": {
            "data": {"dataset": "rows", "path": "rows", "window_size": 4},
            "model": {"embedding_dim": 4, "hidden": [8], "memory": {"sub_keys": 8, "code_dim": 8}},
            "training": {"epochs": 1, "batch_size": 32, "device": "cpu"},
        },
        "quick": {"seeds": [0], "trials": 2, "questions": ["size"], "max_train_rows": 40},
        "tune": {
            "trials": 3, "seeds": [0, 1], "learning_rate": {"low": 0.001, "high": 0.1, "log": True},
            "embedding_std": [0.05, 0.2],
        },
        "variant": [
            {"name": "DIN", "question": "main", "settings": {"memory": "none"}},
            {"name": "LMN", "question": "main", "settings": {"window": "none"}, "tuned_as": "DIN"},
            {"name": "counts", "question": "main", "counting": "item_all"},
            {
                "name": "size", "question": "size", "settings": {"window": "none"}, "tuned_as": "DIN",
                "sweep": {"sub_keys": [8, 4]}, "line": "LMN",
            },
            {"name": "co-occurrence 4", "question": "size", "counting": "cooccurrence_category_4"},
        ],
    }  # fmt: skip
    path = folder / "tiny.toml"
    path.write_text(tomli_w.dumps(table))
    (folder / "page.md").write_text(PAGE)
    return path
