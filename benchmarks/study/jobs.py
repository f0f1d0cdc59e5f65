"""One run of a study: what it is and where its files are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.study.result_files import FORMAT, same_settings
from benchmarks.study.settings import StudySettings
from benchmarks.study.study_file import Study
from benchmarks.study.variants import Variant, slug

THREADS = 1
"""CPU threads of a run: runs share the cores, and sums on one thread repeat to the last digit."""
TUNE = "tune"
"""Folder of the results of tuning within those of a study."""


@dataclass(frozen=True)
class Job:
    """One run.

    Args:
        study: name of the study.
        variant: name of the variant.
        seed: of the run.
        settings: of the run, seed and threads included; ``data.path`` as the file of the study has it.
        result: file to write.
        run_folder: scratch folder, from which a stopped run continues.
        data_path: where the data are, if not at ``data.path``.
        counting: name of a heuristic, for a variant that is not trained.
        tuned: settings that came from tuning; None if there was none.
        tuning: the tuning that they came from; see :meth:`benchmarks.study.tuning.results.Tuned.describe`.
        point: the settings that are tried, for a run of the tuning, which is not scored on the test split; None for
            others.
        trial: number of the trial, from 1, for a run of the tuning.
        keep: keep the run folder when the run has ended.
    """

    study: str
    variant: str
    seed: int
    settings: StudySettings
    result: Path
    run_folder: Path
    data_path: str | None = None
    counting: str | None = None
    tuned: Mapping[str, Any] | None = None
    tuning: Mapping[str, Any] | None = None
    point: Mapping[str, Any] | None = None
    trial: int | None = None
    keep: bool = False

    def __str__(self) -> str:
        trial = "" if self.trial is None else f" trial {self.trial}"
        return f"{self.variant}{trial} seed {self.seed}"

    def describe(self) -> dict[str, Any]:
        """The beginning of the result file: what was run."""
        return {
            "format": FORMAT,
            "study": self.study,
            "variant": self.variant,
            "seed": self.seed,
            "counting": None,
            "tuned": self.tuned,
            **({} if self.tuning is None else {"tuning": self.tuning}),
            "point": self.point,
            **({} if self.trial is None else {"trial": self.trial}),
            "settings": self.settings.to_dict(),
        }

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        paths = {"result": str(self.result), "run_folder": str(self.run_folder)}
        return {**asdict(self), "settings": self.settings.to_dict(), **paths}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Job:
        """Rebuild from :meth:`to_dict`."""
        paths = {name: Path(values[name]) for name in ("result", "run_folder")}
        return cls(**{**values, "settings": StudySettings.from_dict(values["settings"]), **paths})


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


def differing(result: Mapping[str, Any], job: Job) -> list[str]:
    """Names of the settings, or ``counting``, that differ between a result file and the run that should make it."""
    other = (result.get("counting") or {}).get("name") != job.counting
    return [*(["counting"] if other else []), *same_settings(result, job.settings)]


def make_job(
    study: Study,
    variant: Variant,
    seed: int,
    places: Places,
    *,
    tuned: Mapping[str, Any] | None = None,
    tuning: Mapping[str, Any] | None = None,
    point: Mapping[str, Any] | None = None,
    trial: int | None = None,
    keep: bool = False,
) -> Job:
    """The run of ``variant`` with ``seed``, or of tuning it at ``point``; see :class:`Job`."""
    changes = {**(tuned or {}), **(point or {}), "seed": seed, "threads": THREADS}
    name = Path(f"{slug(variant.name)}-seed{seed}")
    if trial is not None:
        name = Path(TUNE) / f"{slug(variant.name)}-trial{trial}-seed{seed}"
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
        tuning=tuning,
        point=point,
        trial=trial,
        keep=keep,
    )
