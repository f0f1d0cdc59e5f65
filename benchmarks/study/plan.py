"""What a study has to run: a job for each variant and seed, with the settings that tuning found."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from benchmarks.study.jobs import Job, Places, make_job
from benchmarks.study.study_file import Study
from benchmarks.study.tuning.results import find_tuned
from benchmarks.study.variants import Variant

logger = logging.getLogger("lmn")


def study_jobs(
    study: Study, variants: Sequence[Variant], seeds: Sequence[int], places: Places, keep: bool = False
) -> list[Job]:
    """The runs of ``variants``, all of the first seed before those of the second; a heuristic has one run.

    Raises:
        StudyError, SettingsError: as in :func:`benchmarks.study.tuning.results.find_tuned`.
    """
    sources = dict.fromkeys(each.tuned_as or each.name for each in variants if each.counting is None)
    found = find_tuned(study, [study.variant(name) for name in sources], places)
    for name, tuned in found.items():
        if not tuned.is_complete:
            logger.warning("%s: its tuning is not complete; the runs use the best settings so far", name)

    def job(variant: Variant, seed: int) -> Job:
        tuned = None if variant.counting is not None else found.get(variant.tuned_as or variant.name)
        if tuned is None:
            return make_job(study, variant, seed, places, keep=keep)
        settings = {name: value for name, value in tuned.point.items() if name not in variant.own}
        return make_job(study, variant, seed, places, tuned=settings, tuning=tuned.describe(), keep=keep)

    return [
        job(each, seed if each.counting is None else 0)
        for place, seed in enumerate(seeds)
        for each in variants
        if each.counting is None or place == 0
    ]
