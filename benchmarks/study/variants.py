"""The ``[[variant]]`` tables of a study file: settings that are run once for each seed."""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.study.heuristics import parse_heuristic
from benchmarks.study.settings import StudySettings
from benchmarks.study.tune_axes import Axis, read_axes
from lmn_model.setting_types import convert
from lmn_model.training.setting_upgrades import upgrade_names
from lmn_model.training.settings import SettingsError
from lmn_model.wording import did_you_mean

TEXTS = ("name", "label", "group", "series", "line", "counting", "tuned_as")
KEYS = (*TEXTS, "question", "settings", "sweep", "tune")


class StudyError(SettingsError):
    """The file of a study is wrong, or its results are of other settings; the message names the file."""


@dataclass(frozen=True)
class Variant:
    """One row of a study's tables.

    Args:
        name: unique, also as a file name; see :func:`slug`.
        questions: keys of the tables that it belongs to.
        settings: of its runs, except for the seed.
        own: names of the settings that the variant sets itself; tuning does not change them.
        label: its name in tables and figures.
        group: heading under which tables and figures list it.
        series: variants with one label and different series share a row of a figure.
        line: variants of one line are joined in a figure over an axis.
        counting: name of a heuristic, for a variant that is not trained.
        tuned_as: name of the variant whose tuned settings it takes; None if it is tuned itself.
        tune: axes along which it is tuned beside those of all variants.
    """

    name: str
    questions: tuple[str, ...]
    settings: StudySettings
    own: frozenset[str]
    label: str
    group: str
    series: str
    line: str
    counting: str | None = None
    tuned_as: str | None = None
    tune: Mapping[str, Axis] = field(default_factory=dict)

    @property
    def row(self) -> str:
        """Its name in a table: the label and the series."""
        return f"{self.label} + {self.series}" if self.series else self.label

    @property
    def is_tuned(self) -> bool:
        """Whether the study searches settings for this variant itself."""
        return self.counting is None and self.tuned_as is None


def slug(name: str) -> str:
    """``name`` as a file name: lower case, with hyphens between words."""
    return re.sub(r"[^a-z0-9_.]+", "-", name.lower()).strip("-.")


def read_variants(entry: Any, base: StudySettings, quick: Mapping[str, Any], source: str) -> Iterator[Variant]:
    """The variants of one ``[[variant]]``: one for each combination of its sweep.

    Args:
        entry: the table.
        base: settings that it starts from.
        quick: settings that replace those of every variant.
        source: of the table, for messages.

    Raises:
        StudyError, SettingsError: the table has an unknown key or a value of the wrong kind.
    """
    check_keys(table_of(entry, f"{source}: variant"), KEYS, f"{source}: variant", needed=("name",))
    where = f"{source}: variant {entry['name']!r}"
    texts = {key: convert(entry[key], str, f"{where}: {key}") for key in TEXTS if key in entry}
    settings = table_of(entry.get("settings", {}), f"{where}: settings")
    sweep = {
        key: list_of(values, f"{where}: sweep: {key}")
        for key, values in table_of(entry.get("sweep", {}), f"{where}: sweep").items()
    }
    questions = entry.get("question", ())
    questions = convert([questions] if isinstance(questions, str) else questions, tuple[str, ...], f"{where}: question")
    for values in itertools.product(*sweep.values()):
        point = dict(zip(sweep, values, strict=True))
        name = _fill(texts["name"], point, where)
        own = base.override({**settings, **point}, where)
        yield Variant(
            name=name,
            questions=questions,
            settings=own.override(quick, where),
            own=frozenset(upgrade_names({**settings, **point}, base.model.memory.kind, where)),
            label=_fill(texts["label"], point, where) if "label" in texts else name,
            group=texts.get("group", ""),
            series=texts.get("series", ""),
            line=texts.get("line", re.sub(r"\s*\{.*?\}", "", texts["name"])),
            counting=_heuristic(_fill(texts["counting"], point, where), where) if "counting" in texts else None,
            tuned_as=texts.get("tuned_as"),
            tune=read_axes(table_of(entry.get("tune", {}), f"{where}: tune"), own, f"{where}: tune"),
        )


def check_variants(variants: Sequence[Variant], source: str) -> None:
    """Raise StudyError unless every name is a file name of its own and every ``tuned_as`` names a tuned variant."""
    files: dict[str, str] = {}
    for each in variants:
        file = slug(each.name)
        if "," in each.name or not file:
            raise StudyError(f"{source}: variant {each.name!r}: a name needs a letter or digit, and has no comma")
        if file in files:
            same = "" if files[file] == each.name else f", whose files would be those of {files[file]!r}"
            raise StudyError(f"{source}: there are two variants {each.name!r}{same}")
        files[file] = each.name
    tuned = {each.name for each in variants if each.is_tuned}
    for each in variants:
        if each.tuned_as is not None:
            check_known([each.tuned_as], tuned, f"{source}: variant {each.name!r}: tuned_as", "tuned variant")


def check_keys(table: Mapping[str, Any], known: Sequence[str], source: str, *, needed: Sequence[str]) -> None:
    """Raise StudyError for a key that is not known or one that is missing."""
    check_known(table, known, source, "key")
    for key in needed:
        if key not in table:
            raise StudyError(f"{source}: the key {key!r} is missing")


def check_known(names: Iterable[str], known: Collection[str], where: str, what: str) -> None:
    """Raise StudyError, with the nearest known name, if one of ``names`` is not known."""
    for name in names:
        if name not in known:
            raise StudyError(f"{where}: there is no {what} {name!r}{did_you_mean(name, known)}")


def table_of(value: Any, where: str) -> Mapping[str, Any]:
    """``value``, which must be a table; raise StudyError otherwise."""
    if not isinstance(value, Mapping):
        raise StudyError(f"{where} must be a table, got {value!r}")
    return value


def list_of(value: Any, where: str) -> list[Any]:
    """``value``, which must be a list with an element; raise StudyError otherwise."""
    if not isinstance(value, list) or not value:
        raise StudyError(f"{where} must be a list of values, got {value!r}")
    return value


def _heuristic(name: str, where: str) -> str:
    """``name``, which must be that of a heuristic."""
    try:
        parse_heuristic(name)
    except ValueError as error:
        raise StudyError(f"{where}: {error}") from error
    return name


def _fill(text: str, point: Mapping[str, Any], where: str) -> str:
    """``text`` with swept settings for its braces, or with the point after it if it has none."""
    if "{" not in text:
        return " ".join([text, *(f"{key}={value}" for key, value in point.items())])
    try:
        return text.format(**point)
    except (KeyError, IndexError, ValueError) as error:
        raise StudyError(f"{where}: the braces must hold settings of its sweep, not {error}") from error
