"""How ``python -m benchmarks.study contents`` speaks of users, categories, events and numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.study.contents.measures import COUNT_EDGES
from benchmarks.study.contents.reading import Contents


class Words:
    """How the page speaks of users, categories and events of a data set.

    Example:
        >>> Words.plural("product category")
        'product categories'
    """

    def __init__(self, contents: Contents) -> None:
        self.user = spoken(contents.user.removesuffix("_id"))
        self.users = self.plural(self.user)
        feature = spoken(contents.feature.removesuffix("_id"))
        self.category = "category" if "category" in feature else feature
        self.categories = self.plural(self.category)
        self.bought = "bought" if contents.dataset == "complete-journey" else "chose"
        self.chosen = "bought" if contents.dataset == "complete-journey" else "chosen"
        self.named = contents.named

    @staticmethod
    def plural(word: str) -> str:
        """The plural of a noun, as English mostly makes it."""
        return word[:-1] + "ies" if word.endswith("y") else word + "s"

    def value(self, name: str) -> str:
        """A category as a reader wants it: not shouted, and with its kind where it is a number."""
        if not self.named:
            return f"{self.category} {name}"
        return name.lower() if name.isupper() else name

    def values(self, names: Sequence[str], most: int | None = None) -> str:
        """Several, in Markdown; only the number of those after the ``most``-th."""
        shown = names if most is None else names[:most]
        more = [f"and {len(names) - len(shown)} more"] if len(shown) < len(names) else []
        return ", ".join([*(escaped(self.value(name)) for name in shown), *more]) or "-"


def drawn(found: dict[str, Any]) -> str:
    users, in_all = found["users"], found["users_in_all"]
    return f"{users:,}" if users == in_all else f"a draw of {users:,} of {in_all:,}"


def counted(count: int, word: str) -> str:
    return f"{count:,} {word if count == 1 else Words.plural(word)}"


def count_range(each: dict[str, Any]) -> str:
    if each["to"] is None:
        return f"{COUNT_EDGES[-1]}+"
    return str(each["from"]) if each["to"] == each["from"] + 1 else f"{each['from']}-{each['to'] - 1}"


def spoken(name: str) -> str:
    return name.replace("_", " ")


def short(name: str, most: int = 28) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"


def escaped(name: str) -> str:
    return name.replace("|", "\\|")


def percent(share: float, digits: int = 1) -> str:
    return f"{100 * share:.{digits}f} %"


def number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def thousands(count: int) -> str:
    return f"{count / 1000:,.0f} k" if count >= 10_000 else f"{count:,}"
