"""Ctrl-C, SIGTERM and closed or full outputs at any time of any command: one line, a clear exit code, no traceback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from project_root import ROOT
from runs_factory import run_python, tiny_flags, write_events

from lmn_model import files
from lmn_model.cli.main import main
from lmn_model.cli.output import describe_os_error

LINES = {signal.SIGINT: "lmn: interrupted\n", signal.SIGTERM: "lmn: terminated\n"}
linux = pytest.mark.skipif(sys.platform != "linux", reason="reads the signals that a process handles from /proc")
full_disk = pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="there is no /dev/full")


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_events(tmp_path_factory.mktemp("events") / "events.parquet", rows=100_000)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    table = write_events(tmp_path_factory.mktemp("events") / "events.parquet", rows=600)
    folder = tmp_path_factory.mktemp("runs") / "mine"
    assert main(["train", f"--out={folder}", *tiny_flags(table, "pooling", epochs=1)]) == 0
    return folder


def _start(*arguments: object) -> subprocess.Popen[str]:
    """The command in a process that has taken its signals over; nothing else handles SIGTERM."""
    command = [sys.executable, "-m", "lmn_model.cli", *map(str, arguments)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for _ in range(1000):
        status = Path(f"/proc/{process.pid}/status").read_text()
        caught = int(next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt")), 16)
        if caught >> (signal.SIGTERM - 1) & 1:
            return process
        time.sleep(0.005)
    raise AssertionError("the command handles no signals")


@linux
@pytest.mark.parametrize(
    ("seconds", "number"),
    [*((each, signal.SIGINT) for each in (0.0, 0.1, 0.6, 1.5, 3.0)), (0.0, signal.SIGTERM), (3.0, signal.SIGTERM)],
)
def test_a_signal_at_any_moment_before_the_first_step_is_one_line(
    tmp_path: Path, events: Path, seconds: float, number: signal.Signals
) -> None:
    process = _start("train", f"--out={tmp_path / 'run'}", *tiny_flags(events, "pooling", epochs=100))
    time.sleep(seconds)
    process.send_signal(number)
    sent = time.monotonic()
    out, error = process.communicate(timeout=60)
    assert time.monotonic() - sent < 2
    assert process.returncode == 128 + number
    assert out == ""
    if "data " in error or "train " in error:  # training had begun: it saves
        assert error.splitlines()[-1].startswith("lmn: stopped after step ")
    else:
        assert error == LINES[number]


@linux
@pytest.mark.parametrize("seconds", [0.2, 1.0])
@pytest.mark.parametrize("command", ["evaluate", "predict"])
def test_a_signal_ends_other_commands_too(
    run: Path, events: Path, tmp_path: Path, command: str, seconds: float
) -> None:
    files = [f"--pairs={events}", f"--out={tmp_path / 'scores.csv'}"] if command == "predict" else []
    process = _start(command, f"--run={run}", f"--path={events}", *files)
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert (process.returncode, error) == (130, "lmn: interrupted\n")
    assert list(tmp_path.iterdir()) == []


@linux
@pytest.mark.parametrize(
    "busy",
    [
        "sum(1 for _ in range(10**9))",  # Python that swallows the exception
        "__import__('zlib').crc32(bytes(10**9))",  # C that looks for no signal
    ],
)
def test_work_that_ignores_ctrl_c_is_ended(tmp_path: Path, busy: str) -> None:
    kept = tmp_path / "kept.json"
    kept.write_text("{}")
    code = f"""
import sys
from pathlib import Path
from lmn_model import signals
from lmn_model.cli import main as cli
from lmn_model.files import replacing
signals.take_over()
signals.loaded()
with replacing(Path({str(kept)!r})) as temporary:
    said = False
    while True:
        try:
            if not said:
                said = True
                print("ready", flush=True)
            while True:
                {busy}
        except KeyboardInterrupt:
            pass
"""
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGINT)
    sent = time.monotonic()
    _, error = process.communicate(timeout=60)
    assert time.monotonic() - sent < 2
    assert process.returncode == 130
    assert error == b"lmn: interrupted\n"
    assert [path.name for path in tmp_path.iterdir()] == ["kept.json"]


def test_the_package_and_its_help_load_no_torch() -> None:
    code = "import sys; from lmn_model.cli.main import main\ntry: main(sys.argv[1:])\nexcept SystemExit: pass\n"
    code += "print([name for name in ('torch', 'polars', 'numpy') if name in sys.modules])"
    for arguments in (["--help"], ["train", "--help-all"], ["train", "--batch-size=many"], ["evaluate"], ["sell"]):
        assert run_python(code, arguments).stdout.splitlines()[-1] == "[]"


def test_the_names_of_the_package_are_found_when_they_are_used() -> None:
    code = (
        "import lmn_model, sys; assert 'torch' not in sys.modules; from lmn_model import *; print(MemoryLayer.__name__)"
    )
    assert run_python(code).stdout == "MemoryLayer\n"
    done = run_python("import lmn_model; lmn_model.Memory")
    assert "module 'lmn_model' has no attribute 'Memory'" in done.stderr


def test_the_settings_of_training_need_no_torch() -> None:
    code = (
        "import sys; from lmn_model.training import Settings, SettingsError; assert 'torch' not in sys.modules\n"
        "from lmn_model.training import *; print(train.__name__, evaluate_run.__name__, TrainingError.__name__)"
    )
    assert run_python(code).stdout == "train evaluate_run TrainingError\n"


@pytest.mark.parametrize("buffered", [True, False])
@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["train", "--help-all"], ["evaluate"]])
def test_a_reader_that_is_gone_is_no_traceback(run: Path, arguments: list[str], buffered: bool) -> None:
    read, write = os.pipe()
    os.close(read)
    arguments = [*arguments, f"--run={run}"] if arguments == ["evaluate"] else arguments
    environment = {**os.environ, "PYTHONUNBUFFERED": "" if buffered else "1"}
    command = [sys.executable, "-m", "lmn_model.cli.main", *arguments]
    done = subprocess.run(command, cwd=ROOT, stdout=write, stderr=subprocess.PIPE, text=True, env=environment)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


@full_disk
@pytest.mark.parametrize("buffered", [True, False])
@pytest.mark.parametrize("arguments", [["--help"], ["evaluate"]])
def test_a_full_disk_behind_stdout_is_one_line(run: Path, arguments: list[str], buffered: bool) -> None:
    arguments = [*arguments, f"--run={run}"] if arguments == ["evaluate"] else arguments
    environment = {**os.environ, "PYTHONUNBUFFERED": "" if buffered else "1"}
    command = [sys.executable, "-m", "lmn_model.cli.main", *arguments]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, env=environment)
    assert done.returncode == 2
    assert done.stderr == "lmn: error: standard output: No space left on device\n"


@full_disk
def test_a_full_disk_behind_stderr_changes_nothing(run: Path) -> None:
    command = [sys.executable, "-m", "lmn_model.cli.main", "evaluate"]
    with open("/dev/full", "w") as full:
        for arguments, code in (([f"--run={run}"], 0), (["--run=none"], 2)):
            done = subprocess.run([*command, *arguments], cwd=ROOT, stdout=subprocess.PIPE, stderr=full)
            assert done.returncode == code


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device", "x.csv"),
        OSError("No space left on device (os error 28)"),  # polars
        ValueError("parquet: underlying IO error: No space left on device (os error 28)"),  # polars again
    ],
)
def test_errors_of_the_system_have_a_file_and_a_reason(error: Exception) -> None:
    named = files.os_error(error, Path("x.csv"))
    assert named is not None
    assert describe_os_error(named) == "x.csv: No space left on device"
    assert named.errno == 28


def test_other_errors_are_not_taken_for_errors_of_the_system() -> None:
    assert files.os_error(ValueError("no"), Path("x.csv")) is None
    assert describe_os_error(OSError("No space left on device (os error 28)")) == "No space left on device"
    assert "None" not in describe_os_error(OSError())


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "--path"],
        ["train", "--out"],
        ["train", "--rows"],
        ["train", "--config"],
        ["train", "--resume"],
        ["train", "--item-features"],
        ["evaluate", "--run"],
        ["predict", "--run=x", "--out=o.csv", "--pairs"],
        ["grow", "--run=x", "--out"],
        ["prepare", "--dataset=complete-journey", "--out"],
        [],
    ],
)
def test_a_path_that_is_no_text_is_one_line(arguments: list[str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "lmn_model.cli.main", *arguments, b"\xff.csv"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 2
    assert done.stdout == b""
    assert done.stderr == b"lmn: error: argument '\\udcff.csv' must be UTF-8 text; rename the file if it names one\n"
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_no_text_is_one_line(events: Path, tmp_path: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
    folder.mkdir()
    command = [sys.executable, "-m", "lmn_model.cli.main", "train", "--path=events.parquet", "--out=run"]
    done = subprocess.run(command, cwd=folder, capture_output=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 2
    assert b"path must be UTF-8 text" in done.stderr
    assert done.stderr.count(b"\n") == 1
