"""The process of one run, ``python -m benchmarks.study.worker``: trains, scores and writes the result file.

The job comes as a line on stdin, which the process that starts it keeps open. When stdin closes, because that process
was killed, the run stops as it does on SIGTERM: it finishes its step and saves its state.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import sys
import threading
import time
import traceback
from typing import Any

import torch

from benchmarks.study.breakdowns import FloatArray, by_history, by_item_age
from benchmarks.study.heuristics import parse_heuristic, score
from benchmarks.study.jobs import Job
from benchmarks.study.result_files import same_settings
from benchmarks.study.settings import StudySettings
from lmn_model.data import Dataset, Split
from lmn_model.files import write_json
from lmn_model.training import TrainingInterrupted, train
from lmn_model.training.build import build_model, choose_device, open_dataset
from lmn_model.training.default_sizes import take_sizes
from lmn_model.training.evaluation.metrics import auc, click_metrics, grouped_auc
from lmn_model.training.evaluation.new_events import logits_while_writing, write_new_events
from lmn_model.training.evaluation.scoring import predict_logits
from lmn_model.training.reporting.environment import describe_environment, peak_memory_mib
from lmn_model.training.reproducible import reproducible
from lmn_model.training.runs.checkpoint import CheckpointError
from lmn_model.training.runs.folder import RunFolder, RunFolderError
from lmn_model.training.runs.state import load_model
from lmn_model.training.settings import Settings

EXIT_FAILED, EXIT_FILES, EXIT_INTERRUPTED = 1, 3, 130
FILE_ERRORS = (OSError, CheckpointError, RunFolderError)
"""Failures of the machine, such as a full disk, that do not depend on the settings of the run."""


def run_job(job: Job) -> dict[str, Any]:
    """Run a job, write its result file and return its content.

    Raises:
        What :func:`lmn_model.training.train_run.train` raises.
    """
    settings = job.settings
    path = settings.data.path if job.data_path is None else job.data_path
    if path is not None:
        settings = settings.override({"path": os.path.abspath(path)})
    result = {**job.describe(), **(_train(job, settings) if job.counting is None else _count(job.counting, settings))}
    job.result.parent.mkdir(parents=True, exist_ok=True)
    write_json(job.result, result)
    if job.run_folder.exists() and not job.keep:
        shutil.rmtree(job.run_folder)
    return result


def _train(job: Job, settings: Settings) -> dict[str, Any]:
    folder = RunFolder(job.run_folder)
    dataset = open_dataset(settings.data)
    tunes = job.point is not None  # tuning does not read the test split
    if folder.holds_run():
        run = folder.load_settings(StudySettings).override({"path": settings.data.path})
        if take_sizes(settings, run) == run:
            run.save(folder.settings)  # the data may have moved: the checkpoint identifies them by their content
    metrics = train(settings, folder.root, resume=folder.holds_run(), dataset=dataset, test=not tunes)
    settings = take_sizes(settings, folder.load_settings(StudySettings))
    if differing := same_settings(metrics, settings):
        raise RuntimeError(f"{folder}: the run has other settings: {', '.join(differing)}")
    results, timing = metrics["results"], metrics["timing"]
    found = {
        "test": None,
        "best": results["best"],
        "valid": results["evaluations"],
        **{name: results[name] for name in ("epochs", "steps", "train_rows", "stopped_early", "parameters", "data")},
        "train_seconds": timing["train_seconds"],
        "samples_per_second": timing["samples_per_second"],
        "peak_memory_mib": timing["peak_memory_mib"],
        "environment": metrics["environment"],
    }
    if tunes:
        return found
    return {**found, "test": results["test"], **_score_test(folder, settings, dataset)}


def _score_test(folder: RunFolder, settings: Settings, dataset: Dataset) -> dict[str, Any]:
    """Metrics on the test split by what was known before, if the model keeps writing, and rows scored per second."""
    device = choose_device(settings.training.device)
    with reproducible(settings.training.seed, settings.training.threads, device):
        model = build_model(dataset.features, settings.model)
        load_model(folder.best, model)
        model.to(device)
        write_new_events(folder.best, model, settings.training, dataset, device)
        started = time.perf_counter()
        logits = predict_logits(model, dataset.test, settings.training.batch_size, device)
        seconds = time.perf_counter() - started
        writing = None
        if settings.model.writes_new_events:
            load_model(folder.best, model)
            again = logits_while_writing(folder.best, model, settings.training, dataset, device)
            writing = {
                **click_metrics(dataset.test.labels, again, dataset.test.groups),
                "by_history": by_history(dataset.test, again),
                "by_item_age": by_item_age(dataset, dataset.test, again),
            }
    return {
        "test_by_history": by_history(dataset.test, logits),
        "test_by_item_age": by_item_age(dataset, dataset.test, logits),
        "test_while_writing": writing,
        "predicted_rows_per_second": round(len(dataset.test) / seconds, 1),
    }


def _count(name: str, settings: Settings) -> dict[str, Any]:
    dataset = open_dataset(settings.data)

    def metrics(split: Split, scores: FloatArray) -> dict[str, Any]:
        groups = grouped_auc(split.labels, scores, split.groups)
        return {"auc": auc(split.labels, scores), "gauc": groups, "log_loss": None}

    valid_scores = score(name, dataset, dataset.valid)
    started = time.perf_counter()
    test_scores = score(name, dataset, dataset.test)
    seconds = time.perf_counter() - started

    device = torch.device("cpu")
    heuristic = parse_heuristic(name)
    return {
        "counting": {"name": name, "kind": heuristic.kind, "size": heuristic.size},
        "test": metrics(dataset.test, test_scores),
        "best": {"step": 0, "epoch": 0, **metrics(dataset.valid, valid_scores)},
        "valid": [],
        "epochs": 0,
        "steps": 0,
        "train_rows": 0,
        "stopped_early": False,
        "parameters": None,
        "data": dataset.describe(),
        "train_seconds": 0.0,
        "samples_per_second": None,
        "peak_memory_mib": peak_memory_mib(device),
        "environment": describe_environment(device),
        "test_by_history": by_history(dataset.test, test_scores, with_loss=False),
        "test_by_item_age": by_item_age(dataset, dataset.test, test_scores, with_loss=False),
        "test_while_writing": None,
        "predicted_rows_per_second": round(len(dataset.test) / seconds, 1),
    }


def _stop_with_stdin() -> None:
    while os.read(0, 4096):  # not sys.stdin, which the interpreter locks when it ends
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def main() -> int:
    """Run the job on stdin and return the exit code: 0, 1 or for :data:`FILE_ERRORS` 3, or 130 after SIGTERM."""
    logger = logging.getLogger("lmn")
    logger.addHandler(logging.StreamHandler(sys.stderr))
    logger.setLevel(logging.INFO)
    job = Job.from_dict(json.loads(sys.stdin.readline()))
    threading.Thread(target=_stop_with_stdin, daemon=True).start()
    try:
        run_job(job)
    except TrainingInterrupted as stopped:
        print(stopped, file=sys.stderr)
        return EXIT_INTERRUPTED
    except Exception as error:
        traceback.print_exc()
        print(" ".join(str(error).split()) or type(error).__name__, file=sys.stderr)
        return EXIT_FILES if isinstance(error, FILE_ERRORS) else EXIT_FAILED
    return 0


if __name__ == "__main__":
    sys.exit(main())
