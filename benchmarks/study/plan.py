"""What a study has to run: a job for each variant and seed, or for each point of the tuning that is missing.

Tuning is a coordinate search over the axes of ``[tune]``, in the order of the file: all values of the first axis with
everything else as the variant has it, then all values of the second with the best of the first, and so on. It reads the
validation split alone. A full grid would see every combination, for many times the runs.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.study.jobs import Job, Places, make_job
from benchmarks.study.result_files import read_result, same_settings
from benchmarks.study.study_file import Study
from benchmarks.study.variants import StudyError, Variant

logger = logging.getLogger("lmn")


@dataclass(frozen=True)
class Stage:
    """The search along one axis.

    Args:
        name: setting that varies.
        scores: value and validation AUC of the points that were run, in the order of the file.
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
    """The runs of ``variants``, all of the first seed before those of the second; a heuristic has one run.

    Raises:
        StudyError, SettingsError: as in :func:`tuning_stages`.
    """
    sources = {each.tuned_as or each.name for each in variants if each.counting is None}
    found = {name: _tuned(study, study.variant(name), places) for name in sources}

    def tuned(variant: Variant) -> dict[str, Any] | None:
        values = None if variant.counting is not None else found[variant.tuned_as or variant.name]
        if values is None:
            return None
        return {name: value for name, value in values.items() if name not in variant.own}

    return [
        make_job(study, each, seed if each.counting is None else 0, places, tuned=tuned(each), keep=keep)
        for place, seed in enumerate(seeds)
        for each in variants
        if each.counting is None or place == 0
    ]


def next_tuning_jobs(
    study: Study, variants: Sequence[Variant], seed: int, places: Places, *, keep: bool = False, force: bool = False
) -> list[Job]:
    """The runs that the tuning of ``variants`` needs next; none when it is complete.

    Raises:
        StudyError: the study has no axes, or as in :func:`tuning_stages`.
    """
    if not study.tune:
        raise StudyError(f"study {study.name}: there is nothing to tune; it has no [tune] with lists of settings")
    return [
        make_job(study, each, seed, places, point=point, keep=keep)
        for each in variants
        if each.is_tuned
        for stage in tuning_stages(study, each, places, force=force)
        for point in stage.missing
    ]


def tuning_stages(study: Study, variant: Variant, places: Places, *, force: bool = False) -> list[Stage]:
    """The stages of the search up to the first with missing points, which ends the list.

    An axis that the variant sets itself is skipped. With ``force`` a result of other settings counts as missing.

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
                score: float | None = stages[-1].best[1]  # this point is the best of the stage before
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
    # Any seed may be tuned with; the name of the file does not hold it.
    if names := same_settings(result, job.settings, ignore=("training.seed",)):
        if force:
            return None
        raise StudyError(f"{job.result}: was tuned with other settings: {', '.join(names)}; tune with --force")
    score: float = result["best"]["auc"]
    return score


def _tuned(study: Study, variant: Variant, places: Places) -> dict[str, Any] | None:
    """The settings that tuning found for ``variant``; None if it was not tuned."""
    stages = tuning_stages(study, variant, places)
    found = {stage.name: stage.best[0] for stage in stages if stage.scores}
    if found and stages[-1].missing:
        logger.warning("%s: its tuning is not complete; the runs use the best settings so far", variant.name)
    return found or None
