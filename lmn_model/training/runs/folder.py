"""The folder of a run: its files, and the rule that a run is never overwritten.

======================  ==============================================================
``settings.toml``       all settings; written first, so that it marks the folder as a run
``vocabularies.json``   ids and standardisation, to make the same batches at prediction
``last.safetensors``    all that a run needs to continue: model, optimisers, position, curve
``best.safetensors``    the model with the best validation AUC
``metrics.json``        results, timing and environment, rewritten at each evaluation
``learning_curves.png`` loss and AUC over the steps, redrawn as the run proceeds
``memory_usage.png``    reads of the memory's slots, of a model with a memory
``train.log``           the log lines
======================  ==============================================================
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from lmn_model.files import remove_leftovers
from lmn_model.training.runs.checkpoint import remove_checkpoint_leftovers
from lmn_model.training.setting_upgrades import EARLIER_RULES
from lmn_model.training.settings import Settings, SettingsError

logger = logging.getLogger("lmn")


class RunFolderError(ValueError):
    """The run folder cannot be used; the message names it."""


class RunFolder:
    """Paths of a run's files.

    Args:
        root: the folder; it need not exist yet.
    """

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)
        self.settings = self.root / "settings.toml"
        self.vocabularies = self.root / "vocabularies.json"
        self.last = self.root / "last.safetensors"
        self.best = self.root / "best.safetensors"
        self.metrics = self.root / "metrics.json"
        self.curves = self.root / "learning_curves.png"
        self.memory_usage = self.root / "memory_usage.png"
        self.log = self.root / "train.log"
        self.files = (
            self.settings,
            self.vocabularies,
            self.last,
            self.best,
            self.metrics,
            self.curves,
            self.memory_usage,
            self.log,
        )

    def __str__(self) -> str:
        return str(self.root)

    def holds_run(self) -> bool:
        """Whether a run was started here."""
        return self.settings.exists()

    def create(self) -> None:
        """Make the folder and prove that it can be written, before hours go into what is to be stored there.

        Raises:
            RunFolderError: the folder holds a run or files with a run's names, or cannot be written.
        """
        taken = [path.name for path in self.files if path.exists()]
        if self.holds_run():
            raise RunFolderError(
                f"{self} already holds a run; continue it (lmn train --resume {self}) or choose another --out"
            )
        if taken:
            raise RunFolderError(
                f"{self} already holds {', '.join(taken)}, which a run would replace; choose another --out"
            )
        self.make()
        self._prove_writable()

    def make(self) -> None:
        """Make the folder unless it is there; raise RunFolderError if that fails."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunFolderError(f"{self}: the run folder cannot be made: {error.strerror}") from error

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from training here while the block runs; the lock goes with the process.

        Raises:
            RunFolderError: another process holds the lock, or the folder cannot be opened.
        """
        try:
            descriptor = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise RunFolderError(f"{self}: the run folder cannot be opened: {error.strerror}") from error
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RunFolderError(f"another process is running in {self}; wait for it or stop it") from None
            except OSError as error:  # some network file systems lock no folders
                logger.warning("%s: cannot be locked (%s); start no second process in it", self, error.strerror)
            yield
        finally:
            os.close(descriptor)

    def open(self) -> None:
        """Check that a run is here and that the folder can be written; remove the temporary files of a killed process.

        Raises:
            RunFolderError: no run is here, or the folder cannot be written.
        """
        self.require_run()
        self._prove_writable()
        remove_leftovers(self.files)
        remove_checkpoint_leftovers(self.root)

    def require_run(self) -> None:
        """Raise RunFolderError unless a run was started here."""
        if not self.holds_run():
            raise RunFolderError(f"{self}: there is no run here (no {self.settings.name})")

    def load_settings(self, kind: type[Settings] = Settings) -> Settings:
        """The settings of the run, of the class that it was started with.

        Raises:
            RunFolderError: no run is here.
            SettingsError: the file was edited and is wrong, or lacks a setting that a run chooses when it opens.
        """
        self.require_run()
        settings = kind.load(self.settings)
        if earlier := {name: EARLIER_RULES[name] for name in settings.unset() if name in EARLIER_RULES}:
            settings = settings.override(earlier, str(self.settings))  # the run is older than these settings
        if names := settings.unset():
            raise SettingsError(f"{self.settings}: {', '.join(names)} must be set in the settings of a run")
        return settings

    def load_metrics(self) -> dict[str, Any] | None:
        """The content of ``metrics.json``, or None before the first evaluation.

        Raises:
            RunFolderError: the file is no JSON object, or lacks an entry that a run writes.
        """
        if not self.metrics.exists():
            return None
        try:
            metrics = json.loads(self.metrics.read_text(encoding="utf-8"))
        except ValueError as error:
            raise RunFolderError(f"{self.metrics}: not a JSON file: {error}") from error
        if not isinstance(metrics, dict):
            raise RunFolderError(f"{self.metrics}: must hold a JSON object, got {type(metrics).__name__}")
        for name, kind in (("status", str), ("results", dict), ("timing", dict), ("environment", dict)):
            if not isinstance(metrics.get(name), kind):
                raise RunFolderError(f"{self.metrics}: damaged: it holds no {name!r} of a run")
        if metrics["status"] == "finished":
            results = metrics["results"]
            kinds = {"best": dict, "test": dict | None, "epochs": int, "stopped_early": bool}  # no test while tuning
            missing = [name for name, kind in kinds.items() if not isinstance(results.get(name, ...), kind)]
            if missing:
                raise RunFolderError(f"{self.metrics}: damaged: the results of a finished run hold no {missing[0]!r}")
        return metrics

    @contextmanager
    def logging_to_file(self, logger: logging.Logger) -> Iterator[None]:
        """Append the records of ``logger``, from INFO on, to the run's log file while the block runs."""
        level = logger.level
        handler = _LogFile(self.log, encoding="utf-8", errors="backslashreplace")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logger.addHandler(handler)
        logger.setLevel(min(logger.getEffectiveLevel(), logging.INFO))
        try:
            yield
        finally:
            logger.setLevel(level)
            logger.removeHandler(handler)
            handler.close()

    def _prove_writable(self) -> None:
        try:
            with tempfile.TemporaryFile(dir=self.root) as probe:
                probe.write(bytes(4096))
                probe.flush()
                os.fsync(probe.fileno())
        except OSError as error:
            raise RunFolderError(f"{self}: the run folder cannot be written: {error.strerror}") from error


class _LogFile(logging.FileHandler):
    def handleError(self, record: logging.LogRecord) -> NoReturn:
        # The default prints a traceback and continues; a full disk has to stop the run with one line.
        error = sys.exc_info()[1]
        if isinstance(error, OSError):
            error.filename = self.baseFilename
        raise
