"""The file of a study: which runs there are, as TOML.

::

    name = "main"
    title = "Complete Journey"           # heading of its tables; the name if not given
    reference = "DIN 200"                # the variant that the others are compared with
    references = { size = "LMN 64" }     # another for some questions
    seeds = [0, 1, 2, 3, 4]
    [base.data]                          # and [base.model], [base.model.memory], [base.training]: as settings.toml
    [axes]                               # questions whose figure is a curve, and the setting along it, or "slots"
    window = "window_size"
    [quick]                              # settings that --quick replaces, seeds, and the questions that it runs
    [tune]                               # lists of settings: the axes along which every variant is tuned, in turn
    [[variant]]
    name = "DIN 50"
    question = "main"                    # key of the table that it belongs to, or a list of keys
    settings = { memory = "none" }       # by name, as flags of the command line
    sweep = { window_size = [50, 200] }  # one variant for each combination, named "NAME window_size=50"
    tuned_as = "DIN 200"                 # not tuned itself: takes what was found best for that variant
    [[variant]]
    name = "counts of the category"
    counting = "category_all"            # learns nothing; see benchmarks.study.heuristics

A ``name`` that holds swept settings in braces, ``"LMN {sub_keys}"``, is filled in instead of being suffixed.
"""

from __future__ import annotations

import itertools
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from benchmarks.study.heuristics import parse_heuristic
from benchmarks.study.settings import StudySettings
from lmn_model.setting_types import declared_settings
from lmn_model.training.setting_upgrades import upgrade_names
from lmn_model.training.settings import SettingsError
from lmn_model.wording import did_you_mean

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

STUDY_KEYS = ("name", "title", "reference", "references", "seeds", "axes", "base", "quick", "tune", "variant")
VARIANT_KEYS = ("name", "question", "settings", "sweep", "counting", "tuned_as", "line")
EARLIER_AXES = {"window": "window_size"}
"""Settings with numbers that had another name in earlier releases."""
SLOTS = "slots"
"""The axis of a figure over the size of the memory, N * N."""
QUICK = "-quick"
"""What ``--quick`` appends to the name of a study, so that its results never meet those of the study itself."""


class StudyError(SettingsError):
    """The file of a study is wrong, or asks for what the results do not allow; the message names it."""


@dataclass(frozen=True)
class Variant:
    """One row of a study's tables: settings that are run once for each seed.

    Args:
        name: unique, also as a file name; see :func:`slug`.
        questions: keys of the tables that it belongs to.
        settings: of its runs, but for the seed.
        own: names of the settings that the variant gives itself; tuning leaves them alone.
        line: what points of one curve have in common in a figure.
        counting: name of a heuristic, for a variant that learns nothing.
        tuned_as: name of the variant whose tuning it takes; None for its own.
    """

    name: str
    questions: tuple[str, ...]
    settings: StudySettings
    own: frozenset[str]
    line: str
    counting: str | None = None
    tuned_as: str | None = None


@dataclass(frozen=True)
class Study:
    """A study as its file gives it, sweeps expanded.

    Args:
        name: folder of its results.
        title: heading of its tables.
        reference: name of the variant that others are compared with; None for none.
        references: for some questions the name of another.
        seeds: of every variant that learns.
        questions: whose variants are run where none are named; all of them, but for what ``[quick]`` says.
        axes: for each question whose figure is a curve, what varies along it: a number of the settings or ``slots``.
        tune: lists of settings by name.
        variants: in the order of the tables.
        families: for each name in the file the names of the variants that came of it.
    """

    name: str
    title: str
    reference: str | None
    references: Mapping[str, str]
    seeds: tuple[int, ...]
    questions: tuple[str, ...]
    axes: Mapping[str, str]
    tune: Mapping[str, tuple[Any, ...]]
    variants: tuple[Variant, ...]
    families: Mapping[str, tuple[str, ...]]

    def asked(self) -> tuple[Variant, ...]:
        """The variants of ``questions``, and those that belong to none unless ``[quick]`` chose."""
        every = {question for each in self.variants for question in each.questions}
        chosen = set(self.questions)
        return tuple(each for each in self.variants if chosen == every or chosen & {*each.questions})

    def select(self, names: Sequence[str]) -> tuple[Variant, ...]:
        """The variants with these names; the name of a sweep means all that came of it.

        Raises:
            StudyError: there is no such variant.
        """
        wanted = set()
        for name in names:
            known = {each.name for each in self.variants}
            if name not in known | set(self.families):
                raise StudyError(f"study {self.name}: there is no variant {name!r}{did_you_mean(name, known)}")
            wanted |= {name, *self.families.get(name, ())}
        return tuple(each for each in self.variants if each.name in wanted)


def slug(name: str) -> str:
    """``name`` as a file name: lower case, with hyphens between words."""
    return re.sub(r"[^a-z0-9_.]+", "-", name.lower()).strip("-.")


def load_study(path: Path | str, *, quick: bool = False) -> Study:
    """Read and check the file of a study.

    Args:
        path: the TOML file.
        quick: replace the settings and seeds that ``[quick]`` names, and mark the study's name.

    Raises:
        StudyError: the file is missing or no TOML, or something in it is unknown, wrong or there twice.
        SettingsError: a setting is unknown, of the wrong type or out of range.
    """
    path = Path(path)
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StudyError(f"{path}: the study cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise StudyError(f"{path}: not a TOML file: {error}") from error
    _check_keys(table, STUDY_KEYS, str(path), ("name", "seeds", "variant"))
    name = _text(table["name"], f"{path}: name")
    if not slug(name) or slug(name) != name:
        raise StudyError(f"{path}: name must be of lower-case letters, digits, '-', '_' and '.', got {name!r}")
    overrides = dict(_mapping(table.get("quick", {}), f"{path}: quick"))
    quick_seeds = overrides.pop("seeds", table["seeds"])
    quick_questions = overrides.pop("questions", None)
    base = StudySettings.from_dict(_mapping(table.get("base", {}), f"{path}: base"), f"{path}: base")
    base.override(overrides, f"{path}: quick")  # a mistake there is one without --quick as well
    seeds = _seeds(table["seeds"], f"{path}: seeds"), _seeds(quick_seeds, f"{path}: quick: seeds")
    if not isinstance(table["variant"], list) or not table["variant"]:
        raise StudyError(f"{path}: variant must be a list of tables, [[variant]]")
    families: dict[str, tuple[str, ...]] = {}
    variants: list[Variant] = []
    for entry in table["variant"]:
        found = list(_variants(_mapping(entry, f"{path}: variant"), base, overrides if quick else {}, str(path)))
        families[entry["name"]] = (*families.get(entry["name"], ()), *(each.name for each in found))
        variants += found
    references = _mapping(table.get("references", {}), f"{path}: references")
    compared = {f"references: {question}": name for question, name in references.items()}
    if "reference" in table:
        compared["reference"] = table["reference"]
    compared = {what: _text(name, f"{path}: {what}") for what, name in compared.items()}
    _check_names(variants, compared, str(path))
    _check_questions(references, variants, f"{path}: references")
    questions = list(dict.fromkeys(question for each in variants for question in each.questions))
    if quick_questions is not None:
        quick_questions = _list(quick_questions, f"{path}: quick: questions")
        _check_questions(
            (_text(each, f"{path}: quick: questions") for each in quick_questions), variants, f"{path}: quick"
        )
    axes = _mapping(table.get("axes", {}), f"{path}: axes")
    axes = {key: EARLIER_AXES.get(axis, axis) if isinstance(axis, str) else axis for key, axis in axes.items()}
    _check_axes(axes, variants, base, str(path))
    return Study(
        name=name + QUICK * quick,
        title=_text(table.get("title", name), f"{path}: title"),
        reference=table.get("reference"),
        references=references,
        seeds=seeds[quick],
        questions=tuple(quick_questions if quick and quick_questions is not None else questions),
        axes=axes,
        tune=_tune(table.get("tune", {}), base, str(path)),
        variants=tuple(variants),
        families=families,
    )


def _variants(
    entry: Mapping[str, Any], base: StudySettings, quick: Mapping[str, Any], source: str
) -> Iterator[Variant]:
    """The variants of one ``[[variant]]``: one for each combination of its sweep."""
    _check_keys(entry, VARIANT_KEYS, f"{source}: variant", ("name",))
    name = _text(entry["name"], f"{source}: variant: name")
    where = f"{source}: variant {name!r}"
    settings = _mapping(entry.get("settings", {}), f"{where}: settings")
    swept = _mapping(entry.get("sweep", {}), f"{where}: sweep")
    sweep = {key: _list(values, f"{where}: sweep: {key}") for key, values in swept.items()}
    for texts in ("counting", "tuned_as", "line"):
        if texts in entry:
            _text(entry[texts], f"{where}: {texts}")
    questions = entry.get("question", ())
    questions = [questions] if isinstance(questions, str) else _list(questions, f"{where}: question", empty=True)
    if not all(isinstance(each, str) for each in questions):
        raise StudyError(f"{where}: question must be a text or a list of texts, got {entry['question']!r}")
    if "counting" in entry:
        try:
            parse_heuristic(entry["counting"])
        except ValueError as error:
            raise StudyError(f"{where}: {error}") from error
    plain = re.sub(r"\s*\{[^{}]*\}", "", name).strip() or name
    for values in itertools.product(*sweep.values()):
        point = dict(zip(sweep, values, strict=True))
        made = base.override({**settings, **point}, where)
        yield Variant(
            name=_named(name, point, where),
            questions=tuple(questions),
            settings=made.override(quick, where),
            own=frozenset(upgrade_names({**settings, **point}, base.model.memory.kind, where)),
            line=entry.get("line", plain if sweep else made.model.name),
            counting=entry.get("counting"),
            tuned_as=entry.get("tuned_as"),
        )


def _named(name: str, point: Mapping[str, Any], where: str) -> str:
    if "{" not in name:
        return " ".join([name, *(f"{key}={value}" for key, value in point.items())])
    try:
        return name.format(**point)
    except (KeyError, IndexError, ValueError) as error:
        raise StudyError(f"{where}: the braces of name must hold settings of its sweep, not {error}") from error


def _check_names(variants: Sequence[Variant], compared: Mapping[str, str], source: str) -> None:
    """Raise StudyError for names that are there twice, or as one file, or not there.

    Args:
        variants: of the study.
        compared: names of variants, by what asks for them.
        source: of the study, for messages.
    """
    files: dict[str, str] = {}
    for each in variants:
        file = slug(each.name)
        if "," in each.name or not file:
            raise StudyError(f"{source}: variant {each.name!r}: a name needs a letter or digit, and has no comma")
        if file in files:
            same = "" if files[file] == each.name else f", whose files would be those of {files[file]!r}"
            raise StudyError(f"{source}: there are two variants {each.name!r}{same}")
        files[file] = each.name
    names = set(files.values())
    tuned = {each.name for each in variants if each.counting is None and each.tuned_as is None}
    wanted = [(f"variant {each.name!r}: tuned_as", each.tuned_as) for each in variants if each.tuned_as is not None]
    for what, name in [*wanted, *compared.items()]:
        if name not in names:
            close = did_you_mean(name, names) if isinstance(name, str) else ""
            raise StudyError(f"{source}: {what} names no variant, got {name!r}{close}")
    for each in variants:
        if each.tuned_as is not None and each.tuned_as not in tuned:
            raise StudyError(f"{source}: variant {each.name!r}: tuned_as must name a variant that is tuned itself, "
                             f"got {each.tuned_as!r}")  # fmt: skip


def _check_axes(axes: Mapping[str, Any], variants: Sequence[Variant], base: StudySettings, source: str) -> None:
    _check_questions(axes, variants, f"{source}: axes")
    for question, axis in axes.items():
        if axis != SLOTS:
            name = _text(axis, f"{source}: axes: {question}")
            base.value(name, f"{source}: axes: {question}")  # or there is no such setting
            kinds = next(each.kind for each in declared_settings(StudySettings) if each.name == name)
            if not {int, float} & {kinds, *get_args(kinds)}:
                raise StudyError(f"{source}: axes: {question} must be a setting with a number, got {axis!r}")


def _check_questions(names: Iterable[str], variants: Sequence[Variant], where: str) -> None:
    questions = {question for each in variants for question in each.questions}
    for name in names:
        if name not in questions:
            raise StudyError(f"{where}: there is no question {name!r}{did_you_mean(name, questions)}")


def _tune(table: Any, base: StudySettings, source: str) -> dict[str, tuple[Any, ...]]:
    grid: dict[str, tuple[Any, ...]] = {}
    for name, values in _mapping(table, f"{source}: tune").items():
        listed = tuple(_list(values, f"{source}: tune: {name}"))
        grid[EARLIER_AXES.get(name, name) if type(listed[0]) is int else name] = listed
    for name, values in grid.items():
        for value in values:
            base.override({name: value}, f"{source}: tune")
    return grid


def _check_keys(table: Mapping[str, Any], known: Sequence[str], source: str, needed: Sequence[str]) -> None:
    for key in table:
        if key not in known:
            raise StudyError(f"{source}: there is no key {key!r}{did_you_mean(key, known)}")
    for key in needed:
        if key not in table:
            raise StudyError(f"{source}: the key {key!r} is missing")


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise StudyError(f"{where} must be a text, got {value!r}")
    return value


def _mapping(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise StudyError(f"{where} must be a table, got {value!r}")
    return value


def _list(value: Any, where: str, empty: bool = False) -> list[Any]:
    if not isinstance(value, (list, tuple)) or not (value or empty):
        raise StudyError(f"{where} must be a list of values, got {value!r}")
    return list(value)


def _seeds(value: Any, where: str) -> tuple[int, ...]:
    seeds = _list(value, where)
    if not all(type(seed) is int and seed >= 0 for seed in seeds) or len(set(seeds)) != len(seeds):
        raise StudyError(f"{where} must be different integers of at least 0, got {value!r}")
    return tuple(seeds)
