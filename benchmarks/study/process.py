"""The process of a run: how it gets its job, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

from benchmarks.result_files import ROOT
from benchmarks.study.jobs import THREADS, Job

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS")


class JobProcess(subprocess.Popen[bytes]):
    """A worker process with a job; its output goes to a file beside the run folder.

    Args:
        job: that it gets through its stdin, which stays open: when this process dies, it closes and the worker stops.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self.log = job.run_folder.with_name(f"{job.run_folder.name}.log")
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.started = time.monotonic()
        search = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))  # it is not installed
        with self.log.open("ab") as log:
            super().__init__(
                [sys.executable, "-m", "benchmarks.study.worker"],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env={**os.environ, **dict.fromkeys(THREAD_VARIABLES, str(THREADS)), "PYTHONPATH": search},
                start_new_session=True,  # Ctrl-C reaches this process alone, which passes it on
            )
        if self.stdin is None:
            raise RuntimeError("the process of a run must have a pipe for its job")
        try:
            self.stdin.write(json.dumps(job.to_dict()).encode() + b"\n")
            self.stdin.flush()
        except BrokenPipeError:  # it ended at once, and its exit code shows that
            pass

    def reason(self) -> str:
        """Why the run failed: the last line of its output, or the signal that ended it."""
        if self.returncode < 0:
            hint = ", perhaps for lack of memory" if -self.returncode == signal.SIGKILL else ""
            return f"ended by {signal.Signals(-self.returncode).name}{hint}"
        lines = self.log.read_text(encoding="utf-8", errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), f"exit code {self.returncode}")

    def close(self) -> None:
        """Wait for the end of the process and close its stdin."""
        self.wait()
        if self.stdin is not None:
            self.stdin.close()


def stop_all(running: Sequence[JobProcess]) -> None:
    """Request all to stop and wait for their end; a second Ctrl-C meanwhile ends them at once."""
    for process in running:
        process.terminate()
    try:
        for process in running:
            process.close()
    except BaseException:
        for process in running:
            process.kill()
        raise
