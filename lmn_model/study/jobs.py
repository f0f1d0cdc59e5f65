"""What a study has to run: one job for each variant and seed, or for each point of the tuning grid."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lmn_model.settings import Settings
from lmn_model.study.result_files import read_result, same_settings
from lmn_model.study.study_file import Study, StudyError, Variant, slug

THREADS = 1
"""CPU threads of a run: runs share the cores, and sums on one thread repeat to the last digit."""
TUNE = "tune"
"""Folder of the results of tuning within those of a study."""
logger = logging.getLogger("lmn")


@dataclass(frozen=True)
class Job:
    """One run.

    Args:
        study: name of the study.
        variant: name of the variant.
        seed: of the run.
        settings: of the run, seed and threads included; ``data.path`` as the file of the study has it.
        result: file to write.
        run_folder: scratch folder, from which the run can go on.
        data_path: where the data are, if not at ``data.path``.
        counting: name of a heuristic, for a variant that learns nothing.
        tuned: settings that came from tuning; None if there was none.
        point: the point of the grid, for a run of the tuning, which leaves the test part out; None for others.
        keep: leave the run folder when the run is over.
    """

    study: str
    variant: str
    seed: int
    settings: Settings
    result: Path
    run_folder: Path
    data_path: str | None = None
    counting: str | None = None
    tuned: Mapping[str, Any] | None = None
    point: Mapping[str, Any] | None = None
    keep: bool = False

    def __str__(self) -> str:
        point = "" if self.point is None else f" at {_in_words(self.point)}"
        return f"{self.variant} seed {self.seed}{point}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        paths = {"result": str(self.result), "run_folder": str(self.run_folder)}
        return {**asdict(self), "settings": self.settings.to_dict(), **paths}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Job:
        """Rebuild from :meth:`to_dict`."""
        paths = {name: Path(values[name]) for name in ("result", "run_folder")}
        return cls(**{**values, "settings": Settings.from_dict(values["settings"]), **paths})


@dataclass(frozen=True)
class Places:
    """Where the files of a study are.

    Args:
        out: folder of the run folders.
        results: folder of the result files.
        data: replaces ``data.path``, if not None.
    """

    out: Path
    results: Path
    data: str | None = None


def study_jobs(
    study: Study, variants: Sequence[Variant], seeds: Sequence[int], places: Places, keep: bool = False
) -> list[Job]:
    """The runs of ``variants``, all of the first seed before those of the second, so that an early look shows all.

    Raises:
        StudyError, SettingsError: as in :func:`best_point`.
    """
    tuned = {each.name: _tuned(study, each, places) for each in variants}
    jobs = []
    for place, seed in enumerate(seeds):
        for each in variants:
            if each.counting is not None and place > 0:
                continue
            number = seed if each.counting is None else 0
            jobs.append(_job(study, each, number, places, tuned=tuned[each.name], keep=keep))
    return jobs


def tuning_jobs(study: Study, variants: Sequence[Variant], seed: int, places: Places, keep: bool = False) -> list[Job]:
    """One run for each variant that is tuned and each point of its grid.

    Raises:
        StudyError: the study has no grid.
    """
    if not study.tune:
        raise StudyError(f"study {study.name}: there is nothing to tune; it has no [tune] with lists of settings")
    return [
        _job(study, each, seed, places, point=point, keep=keep)
        for each in variants
        if each.counting is None and each.tuned_as is None
        for point in grid_points(study, each)
    ]


def grid_points(study: Study, variant: Variant) -> Iterator[dict[str, Any]]:
    """Points of the grid that ``variant`` is tuned over: all of ``[tune]`` but what the variant sets itself."""
    lists = {name: values for name, values in study.tune.items() if name not in variant.own}
    if lists:
        for values in itertools.product(*lists.values()):
            yield dict(zip(lists, values, strict=True))


def differing(result: Mapping[str, Any], job: Job) -> list[str]:
    """What a result file and the run that is to make it differ in: names of settings, or the heuristic."""
    other = (result.get("counting") or {}).get("name") != job.counting
    return [*(["counting"] if other else []), *same_settings(result, job.settings)]


def best_point(study: Study, variant: Variant, places: Places) -> dict[str, Any] | None:
    """The point of the grid with the best validation AUC, the first of equals; None if none was run.

    Raises:
        StudyError: a result file is damaged or of other settings.
    """
    best: tuple[float, dict[str, Any]] | None = None
    missing = 0
    for point in grid_points(study, variant):
        # The seed of tuning may be any; its file does not name it.
        job = _job(study, variant, study.seeds[0], places, point=point)
        if not job.result.exists():
            missing += 1
            continue
        result = read_result(job.result)
        if names := same_settings(result, job.settings, ignore=("training.seed",)):
            raise StudyError(f"{job.result}: was tuned with other settings: {', '.join(names)}; tune with --force")
        if best is None or result["best"]["auc"] > best[0]:
            best = result["best"]["auc"], point
    if best is not None and missing:
        logger.warning("%s: %d points of the tuning have no result; the best of the others is taken",
                       variant.name, missing)  # fmt: skip
    return None if best is None else best[1]


def _tuned(study: Study, variant: Variant, places: Places) -> dict[str, Any] | None:
    """What tuning gives ``variant``, without what it sets itself; None if it is not tuned."""
    if variant.counting is not None:
        return None
    by_name = {each.name: each for each in study.variants}
    source = variant if variant.tuned_as is None else by_name[variant.tuned_as]
    point = best_point(study, source, places)
    return None if point is None else {name: value for name, value in point.items() if name not in variant.own}


def _job(
    study: Study,
    variant: Variant,
    seed: int,
    places: Places,
    *,
    tuned: Mapping[str, Any] | None = None,
    point: Mapping[str, Any] | None = None,
    keep: bool = False,
) -> Job:
    changes = {**(tuned or {}), **(point or {}), "seed": seed, "threads": THREADS}
    if point is None:
        name = Path(f"{slug(variant.name)}-seed{seed}")
    else:
        name = Path(TUNE) / slug(f"{variant.name} {_in_words(point)}")
    return Job(
        study=study.name,
        variant=variant.name,
        seed=seed,
        settings=variant.settings.override(changes, f"study {study.name}: variant {variant.name!r}"),
        result=places.results / study.name / f"{name}.json",
        run_folder=places.out / study.name / name,
        data_path=places.data,
        counting=variant.counting,
        tuned=tuned,
        point=point,
        keep=keep,
    )


def _in_words(point: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in point.items())
