"""The tables and figures of a study, made of its result files, and put between the markers of a Markdown page.

A block of the page is ``<!-- study: NAME QUESTION -->`` ... ``<!-- /study -->``: the table of a question of the study,
for the question ``tuning`` what tuning found, or for ``history`` the test part by the events before a sample. What
stands between the markers is replaced; the rest of the page is its author's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.study.figures import Dot, draw_curves, draw_dots
from benchmarks.study.heuristics import parse_heuristic
from benchmarks.study.jobs import Places, differing
from benchmarks.study.plan import study_jobs, tuning_stages
from benchmarks.study.result_files import read_result
from benchmarks.study.statistics import Estimate, estimate, paired_difference
from benchmarks.study.study_file import SLOTS, Study, StudyError, Variant, slug
from lmn_model.files import replacing

MISSING = "Not measured yet: there is no result file for it."
_BLOCK = re.compile(r"(<!-- study: (\S+) (\S+) -->\n).*?(<!-- /study -->)", re.DOTALL)
Result = dict[str, Any]


def write_report(study: Study, results: Path, page: Path) -> list[Path]:
    """Draw the figures of ``study`` and replace its blocks in ``page``.

    Args:
        study: whose variants and questions the tables show, in their order.
        results: folder of the result files of all studies; figures go to the study's own folder in it.
        page: a Markdown file with blocks, or missing for figures alone.

    Returns:
        The files that were written.

    Raises:
        StudyError: a result file cannot be read or is of other settings than the study's, or a block of the page asks
            for a question that the study has not.
    """
    found = {each.name: _results_of(study, each, results) for each in study.variants}
    _check_data(study, found)
    questions = list(dict.fromkeys(question for each in study.variants for question in each.questions))
    blocks, written = {}, []
    for question in questions:
        variants = [each for each in study.variants if question in each.questions and found[each.name]]
        if not variants:
            continue
        axis = study.axes.get(question)
        if axis is not None:
            variants = _along(variants, axis)
        blocks[question] = [_table(study, question, variants, found)]
        picture = results / study.name / f"{question}.png"
        picture.parent.mkdir(parents=True, exist_ok=True)
        if axis is not None:
            placed = [(each.line, _place(each, axis), found[each.name]) for each in variants]
            curves = [(line, place, runs) for line, place, runs in placed if place is not None]
            draw_curves(curves, axis.replace("_", " "), picture)
        else:
            own = study.references.get(question)  # differences to the study's reference are in the table
            dots = [_dot(each, own, found) for each in variants]
            draw_dots(dots, study.title, picture, reference=own)
        written.append(picture)
        blocks[question].append(f"![{study.title}: {question}]({_relative(picture, page)})")
    if tuning := _tuning_table(study, results):
        blocks["tuning"] = [tuning]
    if history := _history_table(study, found):
        blocks["history"] = [history]
    if page.exists():
        text = page.read_text(encoding="utf-8")

        def fill(match: re.Match[str]) -> str:
            start, name, question, end = match.groups()
            if name != study.name:
                return match[0]
            if question not in (*questions, "tuning", "history"):
                raise StudyError(f"{page}: study {name} has no question {question!r}")
            return start + "\n\n".join(blocks.get(question, [MISSING])) + "\n" + end

        with replacing(page) as temporary:
            temporary.write_text(_BLOCK.sub(fill, text), encoding="utf-8")
        written.append(page)
    return written


def _results_of(study: Study, variant: Variant, results: Path) -> list[Result]:
    """Results of ``variant``; raise StudyError for one that the study, as it is and was tuned, would not give."""
    name = slug(variant.name)
    paths = (results / study.name).glob(f"{name}-seed*.json")
    seeds = [int(seed[1]) for path in paths if (seed := re.fullmatch(rf"{re.escape(name)}-seed(\d+)", path.stem))]
    if not seeds:
        return []
    found = []
    for job in study_jobs(study, [variant], sorted(seeds), Places(results, results)):
        found.append(read_result(job.result))
        if names := differing(found[-1], job):
            raise StudyError(f"{job.result}: is the result of other settings: {', '.join(names)}; run it anew")
    return found


def _check_data(study: Study, found: dict[str, list[Result]]) -> None:
    """Raise StudyError for results of different data, as far as their numbers of rows, users and events tell."""
    known: dict[str, str] = {}
    for name, results in found.items():
        for result in results:
            known.setdefault(json.dumps(result["data"], sort_keys=True), f"{name} seed {result['seed']}")
    if len(known) > 1:
        one, other = list(known.values())[:2]
        raise StudyError(f"study {study.name}: the results are of different data: {one} and {other}")


def _estimate(found: Sequence[Result], metric: str) -> Estimate | None:
    values = [each["test"][metric] for each in found]
    return estimate(values) if values and None not in values else None


def _difference(reference: str | None, variant: Variant, found: dict[str, list[Result]]) -> Estimate | None:
    if reference is None or reference == variant.name or not found.get(reference):
        return None
    ours, theirs = (
        {None if each["counting"] else each["seed"]: each["test"]["auc"] for each in found[name]}
        for name in (variant.name, reference)
    )
    return paired_difference(ours, theirs)


def _dot(variant: Variant, reference: str | None, found: dict[str, list[Result]]) -> Dot:
    return Dot(
        variant.name,
        _estimate(found[variant.name], "auc"),
        memory=variant.counting is None and variant.settings.model.has_memory,
        difference=_difference(reference, variant, found),
    )


def _table(study: Study, question: str, variants: Sequence[Variant], found: dict[str, list[Result]]) -> str:
    reference, axis = study.references.get(question, study.reference), study.axes.get(question)
    along, less = [axis.replace("_", " ")] if axis else [], [f"less {reference}"] if reference else []
    header = ["model", *along, "seeds", "AUC", *less, "GAUC", "log loss"]
    header += ["samples/s in training", "seconds", "peak MiB"]
    usage = any("memory" in each["best"] for variant in variants for each in found[variant.name])
    rows = []
    for variant in variants:
        own = found[variant.name]
        learnt = variant.counting is None
        row = [variant.name, *([_number(_place(variant, axis))] if axis else [])]
        row += [str(len(own)) if learnt else "-", _in_words(_estimate(own, "auc"))]
        if reference:
            less = _in_words(_difference(reference, variant, found), "+.4f")
            row.append("" if variant.name == reference else less)
        row += [_in_words(_estimate(own, "gauc")), _in_words(_estimate(own, "log_loss"))]
        row += [_mean(own, "samples_per_second"), _mean(own, "train_seconds") if learnt else "-"]
        row.append(f"{max(each['peak_memory_mib']['resident'] for each in own):,.0f}")
        if usage:
            row += [_usage(own, name) for name in ("coverage", "gini", "top_1_percent", "kl_to_uniform")]
        rows.append(row)
    if usage:
        header += ["coverage", "Gini", "share of the top 1 %", "KL to uniform"]
    return _markdown(header, rows)


def _usage(found: Sequence[Result], name: str) -> str:
    values = [each["best"]["memory"][name] for each in found if "memory" in each["best"]]
    return f"{sum(values) / len(values):.3f}" if values else ""


def _tuning_table(study: Study, results: Path) -> str:
    """Validation AUC along every axis of the tuning, one after the other; the best of an axis in bold."""
    rows = []
    for variant in study.variants:
        if variant.counting is not None or variant.tuned_as is not None:
            continue
        stages = {stage.name: stage for stage in tuning_stages(study, variant, Places(results, results))}
        if not any(stage.scores for stage in stages.values()):
            continue
        row = [variant.name]
        for name in study.tune:
            stage = stages.get(name)
            best = stage.best[0] if stage is not None and not stage.missing else None
            scores = () if stage is None else stage.scores
            texts = [f"{value:g}: {score:.4f}" for value, score in scores]
            row.append(", ".join(f"**{text}**" if value == best else text
                                 for text, (value, _) in zip(texts, scores, strict=True)) or "-")  # fmt: skip
        rows.append(row)
    return _markdown(["validation AUC", *study.tune], rows) if rows else ""


def _history_table(study: Study, found: dict[str, list[Result]]) -> str:
    """Test AUC of the variants of the first question, apart by the number of the user's events before a sample."""
    question = next((question for each in study.variants for question in each.questions), None)
    variants = [each for each in study.variants if question in each.questions and found[each.name]]
    ranges: dict[tuple[int, int | None], tuple[int, int]] = {}
    rows = []
    for part in (part for each in variants for run in found[each.name] for part in run["test_by_history"]):
        ranges[part["from"], part["to"]] = part["rows"], part["users"]
    for variant in variants:
        cells = []
        for bounds in sorted(ranges):
            parts = [part for run in found[variant.name] for part in run["test_by_history"]]
            values = [part["auc"] for part in parts if (part["from"], part["to"]) == bounds]
            cells.append(_in_words(estimate(values) if values and None not in values else None))
        rows.append([variant.name, *cells])
    sizes = [f"{samples:,} ({users:,})" for _, (samples, users) in sorted(ranges.items())]
    header = [f"{low:,} and more" if high is None else f"{low:,} to {high - 1:,}" for low, high in sorted(ranges)]
    return _markdown(["AUC by events before", *header], [["samples (users)", *sizes], *rows]) if ranges else ""


def _along(variants: Sequence[Variant], axis: str) -> list[Variant]:
    """The variants line by line, each along the axis, those that have no place on it last."""
    lines = list(dict.fromkeys(each.line for each in variants))

    def key(variant: Variant) -> tuple[bool, int, float]:
        place = _place(variant, axis)
        return place is None, lines.index(variant.line), place or 0.0

    return sorted(variants, key=key)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,}"


def _place(variant: Variant, axis: str) -> float | None:
    """Where ``variant`` stands on an axis, which is a setting or ``slots``; None for nowhere."""
    if variant.counting is not None:
        kind, _, size = parse_heuristic(variant.counting)
        if size is None or (kind == "cells") != (axis == SLOTS):
            return None
        return size**2 if kind == "cells" else size
    if axis == SLOTS:
        sub_keys = variant.settings.model.memory.sub_keys
        return None if sub_keys is None else sub_keys**2
    return variant.settings.value(axis)


def _in_words(value: Estimate | None, form: str = ".4f") -> str:
    if value is None:
        return "-"
    return f"{value.mean:{form}}" + ("" if value.half is None else f" ± {value.half:.4f}")


def _mean(found: Sequence[Result], name: str) -> str:
    values = [each[name] for each in found if each[name] is not None]
    return f"{sum(values) / len(values):,.0f}" if values else "-"


def _markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows))


def _relative(picture: Path, page: Path) -> str:
    try:
        return picture.resolve().relative_to(page.resolve().parent).as_posix()
    except ValueError:
        return picture.as_posix()
