"""What a study has to run: a job for each variant and seed, or for each point that the tuning asks for next.

Tuning searches the axes of ``[tune]`` one after the other, in the order of the file: all values of the first with
everything else as the variant has it, then all values of the second with the best of the first, and so on. It looks at
the validation part alone. A full grid would see every pair of axes, for many times the runs.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.study.jobs import Job, Places, make_job
from benchmarks.study.result_files import read_result, same_settings
from benchmarks.study.study_file import Study, StudyError, Variant

logger = logging.getLogger("lmn")


@dataclass(frozen=True)
class Stage:
    """The search along one axis.

    Args:
        name: setting that the axis is of.
        scores: value and validation AUC, for the values that were run; in the order of the file.
        missing: points that have no result yet.
    """

    name: str
    scores: tuple[tuple[Any, float], ...]
    missing: tuple[Mapping[str, Any], ...]

    @property
    def best(self) -> tuple[Any, float]:
        """Value and AUC of the best, the first of equals."""
        return max(self.scores, key=lambda each: each[1])


def study_jobs(
    study: Study, variants: Sequence[Variant], seeds: Sequence[int], places: Places, keep: bool = False
) -> list[Job]:
    """The runs of ``variants``, all of the first seed before those of the second, so that an early look shows all.

    Raises:
        StudyError, SettingsError: as in :func:`tuning_stages`.
    """
    tuned = {each.name: _tuned(study, each, places) for each in variants}
    jobs = []
    for place, seed in enumerate(seeds):
        for each in variants:
            if each.counting is not None and place > 0:
                continue
            number = seed if each.counting is None else 0
            jobs.append(make_job(study, each, number, places, tuned=tuned[each.name], keep=keep))
    return jobs


def next_tuning_jobs(
    study: Study, variants: Sequence[Variant], seed: int, places: Places, *, keep: bool = False, force: bool = False
) -> list[Job]:
    """The runs without which the tuning of ``variants`` cannot go on; none when it is over.

    Args:
        study, variants, places: what is tuned, and where.
        seed: of the runs.
        keep: see :class:`Job`.
        force: take a result of other settings for missing.

    Raises:
        StudyError: the study has no axes, or as in :func:`tuning_stages`.
    """
    if not study.tune:
        raise StudyError(f"study {study.name}: there is nothing to tune; it has no [tune] with lists of settings")
    return [
        make_job(study, each, seed, places, point=point, keep=keep)
        for each in variants
        if each.counting is None and each.tuned_as is None
        for stage in tuning_stages(study, each, places, force=force)
        for point in stage.missing
    ]


def tuning_stages(study: Study, variant: Variant, places: Places, *, force: bool = False) -> list[Stage]:
    """How far the search is: its stages up to the first with missing points, which ends the list.

    An axis that the variant sets itself is left out.

    Args:
        study, variant, places: what was tuned, and where.
        force: take a result of other settings for missing.

    Raises:
        StudyError: a result file is damaged, or of other settings and ``force`` is False.
    """
    stages: list[Stage] = []
    chosen: dict[str, Any] = {}
    for name, values in study.tune.items():
        if name in variant.own:
            continue
        scores, missing = [], []
        for value in values:
            point = {**chosen, name: value}
            if stages and variant.settings.override({name: value}) == variant.settings:
                score: float | None = stages[-1].best[1]  # the best of the stage before
            else:
                score = _score(study, variant, point, places, force)
            if score is None:
                missing.append(point)
            else:
                scores.append((value, score))
        stages.append(Stage(name, tuple(scores), tuple(missing)))
        if missing:
            break
        chosen[name] = stages[-1].best[0]
    return stages


def _score(study: Study, variant: Variant, point: Mapping[str, Any], places: Places, force: bool) -> float | None:
    """Validation AUC at ``point``; None if it was not run."""
    job = make_job(study, variant, study.seeds[0], places, point=point)
    if not job.result.exists():
        return None
    result = read_result(job.result)
    # The seed of tuning may be any; its file does not name it.
    if names := same_settings(result, job.settings, ignore=("training.seed",)):
        if force:
            return None
        raise StudyError(f"{job.result}: was tuned with other settings: {', '.join(names)}; tune with --force")
    score: float = result["best"]["auc"]
    return score


def _tuned(study: Study, variant: Variant, places: Places) -> dict[str, Any] | None:
    """What tuning gives ``variant``, without what it sets itself; None if it is not tuned."""
    if variant.counting is not None:
        return None
    by_name = {each.name: each for each in study.variants}
    source = variant if variant.tuned_as is None else by_name[variant.tuned_as]
    stages = tuning_stages(study, source, places)
    found = {stage.name: stage.best[0] for stage in stages if stage.scores}
    if found and stages[-1].missing:
        logger.warning("%s: its tuning is not over; the best so far is taken", source.name)
    return {name: value for name, value in found.items() if name not in variant.own} if found else None
