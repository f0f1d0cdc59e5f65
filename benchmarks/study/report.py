"""The report of a study: its figures, and its tables between the markers of a Markdown page.

A block of the page is ``<!-- study: NAME QUESTION -->`` ... ``<!-- /study -->``: tables and figure of a question, or of
``tuning``, what tuning found; or the test split of the first question by ``history``, the number of events before a
sample, by ``item_age``, or while models keep ``writing``. The text between the markers is replaced; the rest of the
page stays as it is.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.study.figures import Dot, draw_curves, draw_dots
from benchmarks.study.jobs import Places, differing
from benchmarks.study.plan import study_jobs
from benchmarks.study.result_files import read_result
from benchmarks.study.study_file import Study
from benchmarks.study.tables import (
    Found,
    by_line,
    difference,
    history_tables,
    item_age_tables,
    metric,
    place_on,
    question_tables,
    tuning_table,
    writing_tables,
)
from benchmarks.study.variants import StudyError, Variant
from lmn_model.files import replacing

MISSING = "Not measured yet: there is no result file for it."
TUNING, HISTORY, ITEM_AGE, WRITING = "tuning", "history", "item_age", "writing"
_BLOCK = re.compile(r"(<!-- study: (\S+) (\S+) -->\n).*?(<!-- /study -->)", re.DOTALL)


def write_report(study: Study, results: Path, page: Path) -> list[Path]:
    """Draw the figures of ``study`` and replace its blocks in ``page``.

    Args:
        study: whose variants and questions the tables show, in their order.
        results: folder of the result files of all studies; figures go to the study's own folder in it.
        page: a Markdown file with blocks; without it there are figures alone.

    Returns:
        The files that were written.

    Raises:
        StudyError: a result file cannot be read or is of other settings than the study's, or the page has a block for a
            question that the study does not have.
    """
    found = _read_results(study, results)
    questions = list(dict.fromkeys(question for each in study.variants for question in each.questions))
    blocks: dict[str, list[str]] = {}
    written = []
    for question in questions:
        variants = [each for each in study.variants if question in each.questions and found[each.name]]
        if variants:
            picture = results / study.name / f"{question}.png"
            picture.parent.mkdir(parents=True, exist_ok=True)
            _draw(study, question, variants, found, picture)
            written.append(picture)
            place = Path(os.path.relpath(picture.resolve(), page.resolve().parent)).as_posix()
            image = f"![{study.title}: {question}]({place})"
            blocks[question] = [*question_tables(study, question, variants, found), image]
    blocks[TUNING] = [tuning_table(study, results)]
    first = [each for each in study.variants if questions and questions[0] in each.questions and found[each.name]]
    blocks[HISTORY], blocks[ITEM_AGE] = history_tables(first, found), item_age_tables(first, found)
    blocks[WRITING] = writing_tables(first, found)
    if page.exists():

        def fill(match: re.Match[str]) -> str:
            start, name, question, end = match.groups()
            if name != study.name:
                return match[0]
            if question not in (*questions, TUNING, HISTORY, ITEM_AGE, WRITING):
                raise StudyError(f"{page}: study {name} has no question {question!r}")
            return start + ("\n\n".join(blocks.get(question, ())) or MISSING) + "\n" + end

        text = _BLOCK.sub(fill, page.read_text(encoding="utf-8"))
        with replacing(page) as temporary:
            temporary.write_text(text, encoding="utf-8")
        written.append(page)
    return written


def _read_results(study: Study, results: Path) -> dict[str, list[dict[str, Any]]]:
    """Results of each variant; raise StudyError for one of other settings than the study's, and for different data."""
    names = [path.stem.rpartition("-seed") for path in (results / study.name).glob("*-seed*.json")]
    seeds = sorted({int(seed) for _, _, seed in names if seed.isdigit()})
    found: dict[str, list[dict[str, Any]]] = {each.name: [] for each in study.variants}
    data: dict[str, str] = {}
    for job in study_jobs(study, study.variants, seeds, Places(results, results)):
        if job.result.exists():
            result = read_result(job.result)
            if differ := differing(result, job):
                raise StudyError(f"{job.result}: is the result of other settings: {', '.join(differ)}; run it again")
            found[job.variant].append(result)
            data.setdefault(json.dumps(result["data"], sort_keys=True), str(job))
    if len(data) > 1:  # numbers of rows, users and events
        one, other = list(data.values())[:2]
        raise StudyError(f"study {study.name}: the results are of different data: {one} and {other}")
    return found


def _draw(study: Study, question: str, variants: Sequence[Variant], found: Found, path: Path) -> None:
    """A curve for each line over the axis of the question, or a dot for each variant if it has none."""
    if axis := study.axes.get(question):
        points = [
            (each.line, place, found[each.name])
            for line in by_line(variants, axis)
            for each in line
            if (place := place_on(each, axis)) is not None
        ]
        draw_curves(points, axis.replace("_", " "), path)
        return
    name = study.reference_of(question)
    reference = None if name is None else study.variant(name)
    dots = [
        Dot(
            each.label,
            metric(found[each.name], "auc"),
            None if reference is None else difference(each, reference, found),
            group=each.group,
            series=each.series,
        )
        for each in variants
    ]
    draw_dots(dots, path, reference=None if reference is None else reference.row)
