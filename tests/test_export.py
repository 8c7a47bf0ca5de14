"""Exported networks: safetensors and ONNX that are run here, what they say, and what is refused."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from click.testing import CliRunner
from safetensors import safe_open
from torch import Tensor

from hpcscale import config, export, files
from hpcscale.cli import main
from hpcscale.config import ConfigError
from hpcscale.export import ExportError
from hpcscale.models import checkpoint, networks, surgery, weights
from hpcscale.train.pretrain import train


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two steps, with an average of its weights."""
    folder = tmp_path_factory.mktemp("export")
    recipe = tiny.make(folder)
    train(tiny.settings(recipe, train__steps=2, train__average=0.5, evaluate__crop=36), folder / "run")
    return folder / "run"


def said(run: Path) -> dict[str, Any]:
    found = checkpoint.find(run)
    return {
        "model": "resnet50", "stride": "3x3", "output_stride": 32,
        "preprocessing": found.metadata["preprocessing"], "step": 2, "checkpoint_sha256": found.sha256,
        "classes": list(tiny.TREE), "names": found.metadata["names"],
    }  # fmt: skip


def test_row_16_safetensors_have_the_names_of_torchvision_and_the_same_logits(
    run: Path, tmp_path: Path
) -> None:
    """The file fills a network of another build, which then gives the logits of the run, bit for bit."""
    out = tmp_path / "a.safetensors"
    found = export.export(run, out)
    assert (found["difference"], found["file"]) == (0.0, str(out))
    trained = networks.load(run)
    with safe_open(out, framework="pt") as stored:
        names = set(stored.keys())
        stated = json.loads(stored.metadata()["hpcscale"])
    assert {"conv1.weight", "bn1.running_mean", "layer4.2.conv3.weight", "fc.bias"} < names
    assert names == trained.model.state_dict().keys()
    assert stated.pop("hpcscale")
    assert stated == said(run)
    given = weights.read(out)
    other = networks.build(config.Model(), 5)
    mine = checkpoint.find(run).metadata
    report = surgery.put(other, config.Model(init=out, head="keep"), given, mine)
    assert (report["notes"], report["left"], report["missing"]) == ([], [], [])
    pictures = torch.randn(2, 3, 36, 36)
    with torch.inference_mode():
        assert torch.equal(other.eval()(pictures), trained.model(pictures))


def test_row_16_onnx_gives_the_same_logits_for_any_batch(run: Path, tmp_path: Path) -> None:
    import onnxruntime

    out = tmp_path / "a.onnx"
    found = CliRunner().invoke(main, ["export", str(run), str(out), "--json"])
    assert found.exit_code == 0, found.output
    printed = json.loads(found.stdout)
    assert printed["difference"] < 1e-5
    session = onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"])
    stated = json.loads(session.get_modelmeta().custom_metadata_map["hpcscale"])
    assert stated.items() >= said(run).items()
    trained = networks.load(run)
    for batch in (1, 5):
        pictures = torch.randn(batch, 3, 36, 36)
        with torch.inference_mode():
            wanted = trained.model(pictures).numpy()
        (logits,) = session.run(["logits"], {"images": pictures.numpy()})
        np.testing.assert_allclose(logits, wanted, rtol=0, atol=1e-4 * np.abs(wanted).max())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a.pth", r"a\.pth: its ending says the format; allowed: \.safetensors, \.onnx"),
        ("there.onnx", r"there\.onnx: is there already"),
        ("run/checkpoints/a.onnx", "is an input of this command or lies in one"),
    ],
)
def test_outputs_that_are_refused_before_any_work(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    monkeypatch.setattr(networks, "load", None)
    (tmp_path / "there.onnx").write_text("mine")
    out = run.parent / name if name.startswith("run") else tmp_path / name
    with pytest.raises(files.Told, match=message) as caught:
        export.export(run, out)
    assert caught.value.code == 2
    assert (tmp_path / "there.onnx").read_text() == "mine"


def test_a_file_of_other_logits_gets_no_name(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = export._safetensors

    def other(trained: networks.Trained, pictures: Tensor, file: Path, text: str) -> Tensor:
        return real(trained, pictures, file, text) + 1e-3

    monkeypatch.setitem(export.WRITERS, ".safetensors", other)
    with pytest.raises(
        ExportError, match=r"its logits differ by 0\.001 from those of the network, more than 0"
    ):
        export.export(run, tmp_path / "a.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_what_onnx_needs_is_told(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "ONNX_MOST", 1000)
    with pytest.raises(ExportError, match=r"bytes of weights are too many .* export to \.safetensors"):
        export.export(run, tmp_path / "a.onnx")
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnx" else real(name))
    with pytest.raises(files.Usage, match=r"ONNX needs onnx: pip install 'hpcscale\[onnx\]'"):
        export.export(run, tmp_path / "a.onnx")
    assert list(tmp_path.iterdir()) == []


def test_classes_that_were_not_trained_on_are_refused(run: Path, tmp_path: Path) -> None:
    vocabulary = run.parent / "vocabulary.json"
    before = vocabulary.read_text()
    vocabulary.write_text(before.replace('"dog"', '"cat"'))
    try:
        with pytest.raises(ConfigError, match=r"data.vocabulary: the classes of .* are not those that"):
            export.export(run, tmp_path / "a.safetensors")
    finally:
        vocabulary.write_text(before)


def test_a_folder_without_a_checkpoint_is_told(tmp_path: Path) -> None:
    found = CliRunner().invoke(main, ["export", str(tmp_path), str(tmp_path / "a.onnx")])
    assert found.exit_code != 0
    assert "cannot be read" in found.output
