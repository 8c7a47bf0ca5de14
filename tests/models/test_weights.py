"""Weights of runs and files by our names: the forms in which they come, and what is refused."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from hpcscale.models import checkpoint, weights
from hpcscale.models.weights import WeightsError

TENSORS = {"conv1.weight": torch.arange(6.0).reshape(2, 3), "fc.bias": torch.tensor([1.0, 2.0])}


def with_prefix(prefix: str) -> dict[str, Any]:
    return {prefix + name: value for name, value in TENSORS.items()}


def same(found: dict[str, torch.Tensor]) -> bool:
    return found.keys() == TENSORS.keys() and all(torch.equal(found[name], TENSORS[name]) for name in found)


@pytest.mark.parametrize(
    "content",
    [
        TENSORS,
        with_prefix("module."),
        with_prefix("_orig_mod.module."),
        {"state_dict": with_prefix("module."), "epoch": 90, "optimizer": {"state": {}}},
        {"model": with_prefix("model."), "iteration": 3},
        TENSORS | {"step": 7},
    ],
)
def test_torch_files_as_others_write_them(tmp_path: Path, content: dict[str, Any]) -> None:
    for zipped, name in ((True, "new.pth"), (False, "old.pt")):
        torch.save(content, tmp_path / name, _use_new_zipfile_serialization=zipped)
        found = weights.read(tmp_path / name)
        assert same(found.tensors)
        assert (found.file, found.stated) == (tmp_path / name, {})
        assert found.sha256 == weights.digest(tmp_path / name)


def test_safetensors_and_what_they_say(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    save_file(TENSORS, file)
    assert same(weights.read(file).tensors)
    save_file(TENSORS, file, {"hpcscale": '{"names": "abc"}', "other": "x"})
    assert weights.read(file).stated == {"names": "abc"}
    save_file(TENSORS, file, {"hpcscale": "{"})
    with pytest.raises(WeightsError, match=r"a\.safetensors: cannot be read: .*not JSON"):
        weights.read(file)


def test_a_checkpoint_with_and_without_its_record(tmp_path: Path) -> None:
    saved = checkpoint.save(
        tmp_path, 2, TENSORS, {"conv1.weight.momentum": torch.zeros(1)}, {"names": "x"}, 1
    )
    for place in (tmp_path, saved.file):
        found = weights.read(place)
        assert same(found.tensors)
        assert (found.file, found.sha256, found.stated) == (saved.file, saved.sha256, {"names": "x"})
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(saved.file.read_bytes())
    assert same(weights.read(copy).tensors)
    assert weights.read(copy).stated == {}
    saved.file.write_bytes(saved.file.read_bytes()[:-1])
    with pytest.raises(checkpoint.CheckpointError, match="damaged checkpoint"):
        weights.read(saved.file)


class Harmful:
    def __reduce__(self) -> Any:
        return os.mkdir, ("harm",)


def test_nothing_but_tensors_is_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": TENSORS, "model": Harmful()}, tmp_path / "bad.pth")
    with pytest.raises(WeightsError, match=r"bad\.pth: holds more than tensors.*save its state_dict alone"):
        weights.read(tmp_path / "bad.pth")
    np.savez(tmp_path / "bad.npz", a=np.array([Harmful()], object))
    with pytest.raises(WeightsError, match=r"bad\.npz: cannot be read"):
        weights.read(tmp_path / "bad.npz")
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.pth", b"", "cannot be read|damaged"),
        ("a.pth", b"PK\x03\x04 cut", "cannot be read|damaged"),
        ("a.safetensors", b"\x10", "not a whole safetensors file"),
        ("a.npz", b"PK", "cannot be read"),
        ("a.onnx", b"x", r"weights are read from a run folder.*\.safetensors, \.pth, \.pt, \.npz"),
    ],
)
def test_what_is_not_weights_is_told(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=message) as caught:
        weights.read(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)


def test_empty_and_missing_places_are_told(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"none\.pth: cannot be read"):
        weights.read(tmp_path / "none.pth")
    with pytest.raises(checkpoint.NoCheckpoint, match="no checkpoint there"):
        weights.read(tmp_path)
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(WeightsError, match="holds no tensors by name"):
        weights.read(tmp_path / "list.pth")
