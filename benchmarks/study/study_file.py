"""The file of a study: which runs there are, as TOML.

::

    name = "main"
    title = "Complete Journey"           # of its figures; the name if not given
    reference = "DIN 200"                # the variant that the others are compared with
    references = { size = "LMN 64" }     # another for some questions
    seeds = [0, 1, 2, 3, 4]
    [base.data]                          # and [base.model], [base.model.memory], [base.training]: as settings.toml
    [axes]                               # questions whose figure is a curve, and the setting along it, or "slots"
    window = "window_size"
    [quick]                              # settings that --quick replaces, seeds, trials, and the questions that it runs
    [tune]                               # how every variant is tuned; its other keys are the axes, settings by name
    trials = 12                          # points that are tried, the first of them the variant's own settings
    seeds = [0, 1, 2]                    # of each; the score is the mean validation AUC. These three if not given
    embedding_dim = [16, 32]             # an axis of listed values
    learning_rate = { low = 0.0005, high = 0.02, log = true }  # or of all numbers between two
    [[variant]]
    name = "DIN 50"
    label = "DIN, 50 events"             # its name in tables and figures; the name if not given
    group = "Window models"              # heading of its table, and of its rows in a figure
    series = "match features"            # shares the row of the variant with the same label and no series
    question = "main"                    # key of the table that it belongs to, or a list of keys
    settings = { memory = "none" }       # by name, as flags of the command line
    sweep = { window_size = [50, 200] }  # one variant for each combination, named "NAME window_size=50"
    tune = { matches = [false, true] }   # axes that it has beside those of [tune]; none of those that it sets itself
    tuned_as = "DIN 200"                 # is not tuned itself: takes the settings found best for that variant
    line = "DIN"                         # variants of one line are joined in a curve; the name if not given
    [[variant]]
    name = "counts of the category"
    counting = "category_all"            # is not trained; see benchmarks.study.heuristics

Swept settings in braces, ``"LMN {sub_keys}"``, are filled in instead of being appended to the name.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from benchmarks.study.settings import StudySettings
from benchmarks.study.tune_axes import EARLIER_AXES, Axis, Tune, read_axes
from benchmarks.study.variants import (
    StudyError,
    Variant,
    check_keys,
    check_known,
    check_variants,
    list_of,
    read_variants,
    slug,
    table_of,
)
from lmn_model.setting_types import convert, declared_settings

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

KEYS = ("name", "title", "reference", "references", "seeds", "axes", "base", "quick", "tune", "variant")
SLOTS = "slots"
"""The axis of a figure over the size of the memory, N * N."""
TUNING_SEEDS = (0, 1, 2)
QUICK = "-quick"
"""What ``--quick`` appends to the name of a study, so that a rehearsal has a results folder of its own."""


@dataclass(frozen=True)
class Study:
    """A study as its file gives it, sweeps expanded.

    Args:
        name: folder of its results.
        title: of its figures.
        reference: name of the variant that others are compared with; None for none.
        references: for some questions the name of another.
        seeds: of every variant that is trained.
        questions: whose variants are run where none are named; all of them unless ``[quick]`` chooses.
        axes: for each question whose figure is a curve, what varies along it: a numeric setting or ``slots``.
        tune: how variants are tuned; None for not at all.
        variants: in the order of the tables.
        sweeps: for each ``name`` in the file the names of the variants that it expands to.
    """

    name: str
    title: str
    reference: str | None
    references: Mapping[str, str]
    seeds: tuple[int, ...]
    questions: tuple[str, ...]
    axes: Mapping[str, str]
    tune: Tune | None
    variants: tuple[Variant, ...]
    sweeps: Mapping[str, tuple[str, ...]]

    def default_variants(self) -> tuple[Variant, ...]:
        """The variants of ``questions``, and those that belong to none unless ``[quick]`` chose."""
        every, chosen = {*_questions(self.variants)}, {*self.questions}
        return tuple(each for each in self.variants if chosen == every or chosen & {*each.questions})

    def select(self, names: Sequence[str]) -> tuple[Variant, ...]:
        """The variants with these names; the name of a sweep means all that it expands to.

        Raises:
            StudyError: there is no such variant.
        """
        check_known(names, {*self.sweeps, *(each.name for each in self.variants)}, f"study {self.name}", "variant")
        wanted = {expanded for name in names for expanded in (name, *self.sweeps.get(name, ()))}
        return tuple(each for each in self.variants if each.name in wanted)

    def reference_of(self, question: str) -> str | None:
        """Name of the variant that those of a question are compared with."""
        return self.references.get(question, self.reference)

    def axes_of(self, variant: Variant) -> dict[str, Axis]:
        """The axes along which ``variant`` is tuned: those of ``[tune]`` that it does not set itself, and its own."""
        shared = {} if self.tune is None else self.tune.axes
        return {**{name: axis for name, axis in shared.items() if name not in variant.own}, **variant.tune}

    def variant(self, name: str) -> Variant:
        """The variant with this name, which must be there."""
        return next(each for each in self.variants if each.name == name)


def load_study(path: Path | str, *, quick: bool = False) -> Study:
    """Read and check the file of a study.

    Args:
        path: the TOML file.
        quick: replace the settings and seeds that ``[quick]`` names, and mark the study's name.

    Raises:
        StudyError: the file is missing or no TOML, or something in it is unknown, wrong or there twice.
        SettingsError: a setting is unknown, of the wrong type or out of range.
    """
    source = str(path)
    table = _read_toml(Path(path))
    check_keys(table, KEYS, source, needed=("name", "seeds", "variant"))
    name = convert(table["name"], str, f"{source}: name")
    if not name or slug(name) != name:
        raise StudyError(f"{source}: name must be of lower-case letters, digits, '-', '_' and '.', got {name!r}")
    base = StudySettings.from_dict(table_of(table.get("base", {}), f"{source}: base"), f"{source}: base")
    overrides = dict(table_of(table.get("quick", {}), f"{source}: quick"))
    quick_seeds, quick_questions = overrides.pop("seeds", table["seeds"]), overrides.pop("questions", None)
    quick_trials = overrides.pop("trials", None)
    base.override(overrides, f"{source}: quick")  # a mistake there is one without --quick as well
    variants, sweeps = _variants(table["variant"], base, overrides if quick else {}, source)
    questions = _questions(variants)
    if quick_questions is not None:
        check_known(list_of(quick_questions, f"{source}: quick: questions"), questions, f"{source}: quick", "question")
    references = table_of(table.get("references", {}), f"{source}: references")
    check_known(references, questions, f"{source}: references", "question")
    compared = {f"references: {question}": name for question, name in references.items()}
    for key, other in {**compared, **({"reference": table["reference"]} if "reference" in table else {})}.items():
        where = f"{source}: {key}"
        check_known([convert(other, str, where)], {each.name for each in variants}, where, "variant")
    axes = table_of(table.get("axes", {}), f"{source}: axes")
    check_known(axes, questions, f"{source}: axes", "question")
    axes = {question: _axis(axis, base, f"{source}: axes: {question}") for question, axis in axes.items()}
    seeds = _seeds(table["seeds"], f"{source}: seeds"), _seeds(quick_seeds, f"{source}: quick: seeds")
    tune = _tune(table_of(table.get("tune", {}), f"{source}: tune"), base, f"{source}: tune")
    _check_tuned(tune, variants, source)
    if quick_trials is not None:
        _trials(quick_trials, f"{source}: quick: trials")
    if tune is not None and quick:
        tune = replace(tune, seeds=seeds[True], trials=quick_trials or tune.trials)
    return Study(
        name=name + QUICK * quick,
        title=convert(table.get("title", name), str, f"{source}: title"),
        reference=table.get("reference"),
        references=references,
        seeds=seeds[quick],
        questions=tuple(quick_questions) if quick and quick_questions else questions,
        axes=axes,
        tune=tune,
        variants=variants,
        sweeps=sweeps,
    )


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StudyError(f"{path}: the study cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise StudyError(f"{path}: not a TOML file: {error}") from error


def _variants(
    tables: Any, base: StudySettings, quick: Mapping[str, Any], source: str
) -> tuple[tuple[Variant, ...], dict[str, tuple[str, ...]]]:
    """All variants of the file, and the names of those that each ``name`` expands to."""
    sweeps: dict[str, tuple[str, ...]] = {}
    variants: list[Variant] = []
    for entry in list_of(tables, f"{source}: variant"):
        found = list(read_variants(entry, base, quick, source))
        sweeps[entry["name"]] = (*sweeps.get(entry["name"], ()), *(each.name for each in found))
        variants += found
    check_variants(variants, source)
    return tuple(variants), sweeps


def _axis(axis: Any, base: StudySettings, where: str) -> str:
    """The present name of an axis, which must be slots or a setting with a number."""
    name = EARLIER_AXES.get(convert(axis, str, where), axis)
    if name != SLOTS:
        base.value(name, where)  # raises if there is no such setting
        kind = next(each.kind for each in declared_settings(StudySettings) if each.name == name)
        if not {int, float} & {kind, *get_args(kind)}:
            raise StudyError(f"{where} must be a setting with a number, got {name!r}")
    return name


def _tune(table: Mapping[str, Any], base: StudySettings, where: str) -> Tune | None:
    if not table:
        return None
    axes = dict(table)
    check_keys(axes, (*axes,), where, needed=("trials",))
    trials = _trials(axes.pop("trials"), f"{where}: trials")
    seeds = _seeds(axes.pop("seeds", [*TUNING_SEEDS]), f"{where}: seeds")
    if not axes:
        raise StudyError(f"{where}: there are no axes; name settings with a list or a range of values")
    return Tune(read_axes(axes, base, where), trials, seeds)


def _check_tuned(tune: Tune | None, variants: Iterable[Variant], source: str) -> None:
    """Raise StudyError for a variant with axes that are not used."""
    for each in variants:
        where = f"{source}: variant {each.name!r}: tune"
        if each.tune and (tune is None or not each.is_tuned):
            why = "the study has no [tune]" if tune is None else "it is not tuned itself"
            raise StudyError(f"{where} has no effect, for {why}")
        if both := sorted({*each.tune} & each.own):
            raise StudyError(f"{where}: {both[0]} is set by the variant too; leave one of them out")


def _trials(value: Any, where: str) -> int:
    if type(value) is not int or value < 1:
        raise StudyError(f"{where} must be an integer of at least 1, got {value!r}")
    return value


def _questions(variants: Iterable[Variant]) -> tuple[str, ...]:
    """The questions of variants, each once, in the order of the file."""
    return tuple(dict.fromkeys(question for each in variants for question in each.questions))


def _seeds(value: Any, where: str) -> tuple[int, ...]:
    if not all(type(seed) is int and seed >= 0 for seed in list_of(value, where)) or len(set(value)) != len(value):
        raise StudyError(f"{where} must be different integers of at least 0, got {value!r}")
    return tuple(value)
