"""Checkpoints: a round trip is exact, and every kind of broken file raises one line that names it."""

from __future__ import annotations

import json
import resource
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lmn_model.files import remove_leftovers, replacing, write_json
from lmn_model.training.runs.checkpoint import (
    CheckpointError,
    check_tensors,
    load_checkpoint,
    remove_checkpoint_leftovers,
    save_checkpoint,
)


def _tensors() -> dict[str, torch.Tensor]:
    return {
        "weight": torch.randn(5, 7),
        "half": torch.randn(3, 2).bfloat16(),
        "ids": torch.arange(4),
        "mask": torch.tensor([True, False, True]),
        "step": torch.tensor(3.0),
        "empty": torch.zeros(0, 4),
        "transposed": torch.randn(4, 6).T,
        "state": torch.get_rng_state(),
    }


def test_round_trip_is_exact(tmp_path: Path) -> None:
    tensors = _tensors()
    metadata = {"epoch": 3, "loss": 0.1 + 0.2, "curve": [{"auc": None}], "name": "Übung"}
    save_checkpoint(tmp_path / "a.safetensors", tensors, metadata)
    found = load_checkpoint(tmp_path / "a.safetensors")
    assert found.metadata == metadata
    assert found.tensors.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found.tensors[name].dtype == tensor.dtype
        assert torch.equal(found.tensors[name], tensor)
    assert [each.name for each in tmp_path.iterdir()] == ["a.safetensors"]


def test_the_file_is_as_readable_as_any_other(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.safetensors", {"weight": torch.zeros(1)}, {})
    (tmp_path / "plain").write_text("")
    assert (tmp_path / "a.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_parameters_and_gradients_are_saved_detached(tmp_path: Path) -> None:
    weight = torch.nn.Parameter(torch.ones(2))
    save_checkpoint(tmp_path / "a.safetensors", {"weight": weight}, {})
    assert not load_checkpoint(tmp_path / "a.safetensors").tensors["weight"].requires_grad


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"none\.safetensors: there is no such checkpoint"):
        load_checkpoint(tmp_path / "none.safetensors")


@pytest.mark.parametrize("keep", [0, 5, 200, -1])
def test_truncated_file_at_any_place(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "a.safetensors"
    save_checkpoint(path, _tensors(), {})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(
        CheckpointError, match=r"a\.safetensors: not a whole checkpoint, truncated or damaged"
    ) as caught:
        load_checkpoint(path)
    assert "\n" not in str(caught.value)


def test_not_a_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_text("user_id,item_id\n1,2\n" * 100)
    with pytest.raises(CheckpointError, match=r"a\.safetensors: not a whole checkpoint"):
        load_checkpoint(path)
    save_file({"weight": torch.ones(2)}, path)
    with pytest.raises(CheckpointError, match="not a checkpoint of this program: format is None"):
        load_checkpoint(path)


def test_damaged_tensor_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_checkpoint(path, {"first": torch.zeros(64), "second": torch.ones(64)}, {})
    content = bytearray(path.read_bytes())
    at = content.index(torch.ones(1).numpy().tobytes() * 64)
    content[at + 17] ^= 4
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="the checksum of tensor 'second' does not match"):
        load_checkpoint(path)


def test_damaged_description_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_checkpoint(path, {"weight": torch.zeros(4)}, {"best": "0.7123"})
    path.write_bytes(path.read_bytes().replace(b"0.7123", b"0.9123"))
    with pytest.raises(CheckpointError, match="the checksum of the description does not match"):
        load_checkpoint(path)


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_checkpoint(path, {"weight": torch.zeros(4)}, {})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(CheckpointError, match=r"a\.safetensors: the checkpoint cannot be written: .*large"):
            save_checkpoint(path, {"weight": torch.ones(100_000)}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert torch.equal(load_checkpoint(path).tensors["weight"], torch.zeros(4))
    assert [each.name for each in tmp_path.iterdir()] == ["a.safetensors"]


def test_a_folder_that_is_none_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="the checkpoint cannot be written"):
        save_checkpoint(tmp_path / "file" / "a.safetensors", {}, {})


def test_check_tensors_names_what_differs() -> None:
    expected = {"weight": torch.zeros(2, 3), "bias": torch.zeros(2)}
    check_tensors(Path("a"), expected, expected)
    with pytest.raises(CheckpointError, match=r"a: tensor 'bias' has shape \[5\], .* needs \[2\]"):
        check_tensors(Path("a"), {**expected, "bias": torch.zeros(5)}, expected)
    with pytest.raises(CheckpointError, match="a: tensor 'bias' is missing"):
        check_tensors(Path("a"), {"weight": torch.zeros(2, 3)}, expected)
    with pytest.raises(CheckpointError, match="a: tensor 'more' is unexpected"):
        check_tensors(Path("a"), {**expected, "more": torch.zeros(1)}, expected)


def test_replacing_keeps_the_old_content_when_the_block_fails(tmp_path: Path) -> None:
    path = tmp_path / "notes.json"
    write_json(path, {"a": 1})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(OSError, match=r"File too large: '.*notes\.json'"):
            write_json(path, list(range(10_000)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"a": float("nan")})

    def fail() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert json.loads(path.read_text()) == {"a": 1}
    assert [each.name for each in tmp_path.iterdir()] == ["notes.json"]


def test_leftovers_are_swept_and_files_of_the_user_are_not(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / ".tmpAb3dE9", {"weight": torch.zeros(4)}, {})
    (tmp_path / ".last.safetensors.99.tmp").write_text("left by a killed process")
    kept = [".draft.tmp", ".tmpnotes1", ".last.safetensors.old.tmp", ".best.safetensors.99.tmp"]
    for name in kept:
        (tmp_path / name).write_text("of the user")
    folders = [".tmpdirdir", ".last.safetensors.7.tmp"]
    for name in folders:
        (tmp_path / name).mkdir()
    remove_leftovers([tmp_path / "last.safetensors"])
    remove_checkpoint_leftovers(tmp_path)
    assert sorted(each.name for each in tmp_path.iterdir()) == sorted(kept + folders)
