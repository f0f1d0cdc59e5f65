"""Names of users and categories, and numbers, as the page and the pictures write them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.study.contents.measures import COUNT_EDGES
from benchmarks.study.contents.reading import Contents


class Words:
    """The nouns for the users and categories of a data set.

    Example:
        >>> Words.plural("product category")
        'product categories'
    """

    def __init__(self, contents: Contents) -> None:
        self.user, feature = _noun(contents.user), _noun(contents.feature)
        self.users = self.plural(self.user)
        self.category = "category" if "category" in feature else feature
        self.categories = self.plural(self.category)
        self.named = contents.named

    @staticmethod
    def plural(word: str) -> str:
        """The regular plural of a noun."""
        return word[:-1] + "ies" if word.endswith("y") else word + "s"

    def counted(self, column: str, count: int) -> str:
        """The noun of a column for ``count`` of its values."""
        return _noun(column) if count == 1 else self.plural(_noun(column))

    def value(self, name: str) -> str:
        """The name of a category: capitals in lower case, and the noun before a number."""
        if not self.named:
            return f"{self.category} {name}"
        return name.lower() if name.isupper() else name

    def values(self, names: Sequence[str], most: int | None = None) -> str:
        """Several names in Markdown; after the first ``most`` of them only how many more there are."""
        shown = names if most is None else names[:most]
        more = [f"and {len(names) - len(shown)} more"] if len(shown) < len(names) else []
        return ", ".join([*(escaped(self.value(name)) for name in shown), *more]) or "-"


def count_range(each: dict[str, Any]) -> str:
    """The numbers of events of a group of pairs, such as ``3-4``."""
    if each["to"] is None:
        return f"{COUNT_EDGES[-1]}+"
    return str(each["from"]) if each["to"] == each["from"] + 1 else f"{each['from']}-{each['to'] - 1}"


def escaped(name: str) -> str:
    """``name`` for a table in Markdown."""
    return name.replace("|", "\\|")


def _noun(column: str) -> str:
    return column.removesuffix("_id").replace("_", " ")
