"""Tables of 2**24 slots: a checkpoint of one survives a kill, detects damage, and needs no second copy in memory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from project_root import ROOT
from runs_factory import run_python
from safetensors import safe_open

from lmn_model.training.runs.checkpoint import CheckpointError, load_checkpoint, open_checkpoint, save_checkpoint
from lmn_model.training.runs.folder import RunFolder

SLOTS, WIDTH = 1 << 24, 4
BYTES = SLOTS * WIDTH * 4

WRITE_UNTIL_KILLED = """
import itertools, sys, torch
from pathlib import Path
from lmn_model.training.runs.checkpoint import save_checkpoint
values = torch.ones(1 << 24, 4)
print("ready", flush=True)
for number in itertools.count(1):
    save_checkpoint(Path(sys.argv[1]), {"values": values.fill_(number)}, {"number": number})
    print(number, flush=True)
"""


def test_a_kill_while_a_table_is_written_loses_nothing(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.settings.write_text("")  # a run is here
    with subprocess.Popen(
        [sys.executable, "-c", WRITE_UNTIL_KILLED, str(folder.last)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        assert writer.stdout.readline() == "1\n"
        deadline = time.monotonic() + 60
        while not 0 < _bytes_beside(folder.last) < BYTES:  # in the middle of the next
            assert time.monotonic() < deadline
        os.kill(writer.pid, signal.SIGKILL)
    assert writer.returncode == -signal.SIGKILL
    found = load_checkpoint(folder.last)
    number = found.metadata["number"]
    assert (found.tensors["values"] == number).all()
    folder.open()
    assert sorted(each.name for each in tmp_path.iterdir()) == [folder.last.name, folder.settings.name]


def _bytes_beside(path: Path) -> int:
    """Bytes on the disk of what is being written next to ``path``."""
    try:
        return sum(
            each.stat().st_blocks * 512
            for each in path.parent.iterdir()
            if each != path and each.name not in ("settings.toml",)
        )
    except FileNotFoundError:  # renamed meanwhile
        return 0


def test_a_flipped_byte_in_a_large_table_is_named_and_nothing_is_filled(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    values = torch.zeros(SLOTS, WIDTH)
    save_checkpoint(path, {"keys": torch.ones(8), "values": values, "total": torch.zeros(SLOTS)}, {})
    with path.open("r+b") as file:
        file.seek(BYTES // 2)
        file.write(b"\x01")
    with (
        pytest.raises(CheckpointError, match=r"a\.safetensors: damaged: the checksum of tensor 'values'"),
        open_checkpoint(path) as file_read,
    ):
        file_read.read_into("values", values)
    assert not values.any()


def test_rows_are_read_without_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_checkpoint(path, {"values": torch.arange(4000.0).view(1000, 4)}, {})
    with safe_open(path, framework="pt") as file:
        rows = file.get_slice("values")[10:12]
    assert rows.tolist() == [[40.0, 41.0, 42.0, 43.0], [44.0, 45.0, 46.0, 47.0]]


PEAK = r"""
import re, sys, torch
from pathlib import Path
from lmn_kernels.optim import RowAdagrad
from lmn_model.training.runs.checkpoint import open_checkpoint, save_checkpoint
from lmn_model.modules.memory_layer import MemoryLayer
torch.set_num_threads(1)

def peak():  # of this program; getrusage's is also that of the process it was forked from
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) * 1024

path = Path(sys.argv[2])
small = MemoryLayer(8, 4, sub_keys=64)
small(torch.randn(2, 8)).sum().backward()
RowAdagrad(small.values_parameters()).step()  # what a first step needs of its own, such as what torch imports
before = peak()
layer = MemoryLayer(8, 16, sub_keys=2048, value_std=1.0)
rows = RowAdagrad(layer.values_parameters())
if sys.argv[1] == "save":
    layer(torch.randn(64, 8)).sum().backward()
    rows.step()
    save_checkpoint(path, {"values": layer.values, **rows.state[layer.values]}, {})
else:
    with open_checkpoint(path) as file:
        file.read_into("values", layer.values)
        state = {name: file.read(name) for name in file.tensors if name != "values"}
    packed = rows.state_dict()
    packed["state"] = {0: state}
    rows.load_state_dict(packed)
held = layer.values.nbytes + rows.state[layer.values]["total"].nbytes
print((peak() - before) / held)
"""


def test_training_saving_and_loading_need_no_second_copy(tmp_path: Path) -> None:
    for what in ("save", "load"):
        done = run_python(PEAK, [what, str(tmp_path / "a.safetensors")])
        assert done.returncode == 0, done.stderr
        assert float(done.stdout) < 1.25, what
