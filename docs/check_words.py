"""List words that this project's code and prose avoid, with what to write instead: ``python docs/check_words.py``.

The field's terms win over private ones. Exit code 1 if a tracked text file, other than the changelog, holds one.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SUFFIXES = {".py", ".md", ".toml", ".ini", ".svg"}
EXEMPT = {"CHANGELOG.md", "docs/check_words.py"}
RESULTS = "docs/results/"
"""Results hold values of data sets, such as the names of categories."""
FORMER = "# a former name"
"""End of a line of code that reads a name of earlier files."""
WORDS = {
    r"\btold\b|\btells?\b|\btelling\b": "a table, model or memory has, gives or holds; memory_features",
    r"\basks?\b(?!\()|\basked\b|\basking\b": "query, request, is queried with; require, set",
    r"\bknows?\b|\bknowing\b": "stores, has, is aware of a value",
    r"\blook(s|ed|ing)? after\b": "monitor, maintain",
    r"\b(training|train|test|validation|valid) parts?\b": "split",
    r"\bcells?\b": "slots addressed by (item code, user code)",
    r"\basleep\b|\bawake\b|\bwakes?\b|\bwoken\b|\bwaking\b|(?<!time\.)\bsleeps?\b(?!\()|\bsleeping\b": "inactive",
    r"(?<!side by )\bsides?\b(?! by side\b)|(?-i:\bSIDES?\b)": "providers (of a benchmark); half, end",
    r"\bbars\b|\bCPU bar\b": "targets",
    r"\bfloors\b": "roofline",
    r"\bthe house\b": "code layout",
    r"\bin silence\b": "silently; no silent fallback: it runs or raises",
    r"\bhow lately\b": "recency",
    r"(?-i:\b[A-Z_]*(LEAST|MOST)_[A-Z_]+\b|\b[A-Z_]+_(LEAST|MOST)\b)": "MIN_, MAX_",
    r"\bluck\b|\bgoes_to\b": "random_priority, dest_row",
    r"(?-i:\b(?:for )?(some|whole|live|way|numbers)(?: in | = |: [A-Za-z]+ = ))(?=.*)": "a noun: chunk, run_layout",
    r"\bof (one's|your) own\b|\bown model\b|own_model": "your model",
    r"\bfor who(ever)?\b": "use when",
    r"\bin outline\b": "the paper omits key details; what is ours is marked",
    r"\bgoods\b": "items",
    r"\bnobody\b": "no user; pairs that are never written",
    r"\bgo(es|ing)? on\b|\bcatch(es|ing)?[ _]up\b": "continue; write newer events",
    r"\bremembers?\b": "stores",
    r"\bbefore trusting a metric\b": "check unseen_items before trusting AUC",
    r"\bleft out\b": "skipped, omitted",
    r"\bforg[eo]ts?\b|\bforgotten\b": "invalidate, reset",
}


def main() -> int:
    """Print every hit as ``file:line: word -> instead``."""
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    patterns = [(re.compile(pattern, re.IGNORECASE), instead) for pattern, instead in WORDS.items()]
    hits = 0
    for name in files:
        path = ROOT / name
        if path.suffix not in SUFFIXES or name in EXEMPT or name.startswith(RESULTS) or not path.is_file():
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            for pattern, instead in () if line.endswith(FORMER) else patterns:
                if found := pattern.search(line):
                    hits += 1
                    print(f"{name}:{number}: {found[0].strip()!r} -> {instead}")
    print(f"{hits} hits" if hits else "no avoided word")
    return 1 if hits else 0


if __name__ == "__main__":
    sys.exit(main())
