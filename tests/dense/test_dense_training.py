"""Dense tasks train on the common loop: two ranks, kill -9, resume with the same bits; evaluations."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from click.testing import CliRunner
from places import ROOT

from hpcscale import config, ranks, tasks
from hpcscale.cli import main
from hpcscale.config import ConfigError
from hpcscale.data.manifest import DataError
from hpcscale.dense import training
from hpcscale.models import checkpoint

PROGRAM = Path(__file__).with_name("killed_training.py")
TASKS = ("faster_rcnn", "conv4", "mask_rcnn", "keypoint_rcnn", "retinanet", "deeplab")
pytestmark = pytest.mark.usefixtures("thin_network")


def train(recipe: Path, run: Path, count: int = 1, kill_at: int = 0, *sets: str) -> int:
    words = [sys.executable, str(PROGRAM), str(run), str(recipe), *sets]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KILL_AT", str(kill_at))
        return ranks.launch(words, count) if count > 1 else subprocess.run(words, cwd=ROOT).returncode


def tensors(run: Path) -> dict[str, torch.Tensor]:
    model, optimizer = checkpoint.load(checkpoint.find(run))
    return model | {f"optimizer.{name}": value for name, value in optimizer.items()}


def in_process(recipe: Path, run: Path, *sets: str) -> dict[str, Any]:
    settings = tasks.load(recipe, sets)
    assert isinstance(settings, tasks.Dense)
    training.train(settings, run)
    (folder,) = (run / "evaluations").glob("*")
    found: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    return found


@pytest.mark.parametrize("name", ["faster_rcnn", "deeplab"])
def test_two_ranks_killed_and_resumed_end_with_the_same_bits(
    recipes: dict[str, Path], tmp_path: Path, name: str
) -> None:
    assert train(recipes[name], tmp_path / "whole", 2) == 0
    assert train(recipes[name], tmp_path / "killed", 2, 4) != 0
    assert checkpoint.find(tmp_path / "killed").step == 2
    assert train(recipes[name], tmp_path / "killed", 2) == 0
    one, other = tensors(tmp_path / "whole"), tensors(tmp_path / "killed")
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)
    losses = [[line["loss"] for line in tiny.events(tmp_path / run, "step")] for run in ("whole", "killed")]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 4


@pytest.mark.parametrize("name", TASKS)
def test_every_task_trains_and_is_evaluated(recipes: dict[str, Path], tmp_path: Path, name: str) -> None:
    run = tmp_path / "run"
    said = in_process(recipes[name], run)
    losses = [line["loss"] for line in tiny.events(run, "step")]
    assert len(losses) == 4
    assert all(0 < loss < 100 for loss in losses)
    wanted = "mIoU" if name == "deeplab" else "AP50"
    assert 0 <= said["metrics"][wanted] <= 1
    assert said["pictures"] == 6
    (mine := run / "evaluations" / "validation-00000004" / "mine.txt").write_text("mine")
    again = CliRunner().invoke(main, ["evaluate", str(run), "--json"])
    assert again.exit_code == 0, again.output
    assert (
        json.loads(again.stdout)["metrics"] == said["metrics"]
    )  # by a new process's way, from the checkpoint
    assert mine.read_text() == "mine"
    report = CliRunner().invoke(main, ["report", str(run)])
    assert report.exit_code == 0, report.output
    text = (run / "report.md").read_text()
    assert f"{wanted} " in text
    assert "pictures.png" in text
    found = json.loads((run / "evaluations" / "validation-00000004" / "found.json").read_text())
    keys = {"mask_rcnn": "segmentation", "keypoint_rcnn": "keypoints", "deeplab": "confusion"}
    assert found
    assert all(keys.get(name, "bbox") in record for record in found)


def test_a_detector_learns_its_pictures(recipes: dict[str, Path], tmp_path: Path) -> None:
    """Barely: a thin network from random weights, in 40 steps; `make detect-demo` shows more."""
    in_process(recipes["faster_rcnn"], tmp_path / "run", "train.steps=40", "schedule.lr=0.01")
    losses = [line["loss"] for line in tiny.events(tmp_path / "run", "step")]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def test_the_body_starts_from_a_run_and_refuses_other_preprocessing(
    recipes: dict[str, Path], tmp_path: Path
) -> None:
    recipe = tiny.make(tmp_path)
    from hpcscale.train import pretrain

    pretrain.train(config.load(recipe, ["train.steps=1", "model.name=resnet50"]), tmp_path / "before")
    init = f"model.init={tmp_path / 'before'}"
    with pytest.raises(ConfigError, match="mean"):  # values were signed there, and are imagenet here
        in_process(recipes["faster_rcnn"], tmp_path / "refused", init)
    in_process(recipes["faster_rcnn"], tmp_path / "run", init, "input.values=signed", "detector.frozen=5")
    before, after = (checkpoint.load(checkpoint.find(tmp_path / run))[0] for run in ("before", "run"))
    assert torch.equal(after["backbone.body.layer4.0.conv3.weight"], before["layer4.0.conv3.weight"])
    assert tiny.events(tmp_path / "run", "start")[0]["init"]["taken"] > 50


def test_what_does_not_go_together_is_told(recipes: dict[str, Path], tmp_path: Path, packed: Path) -> None:
    with pytest.raises(ConfigError, match="one section of detector"):
        tasks.load(recipes["deeplab"], ['detector.name="retinanet"'])
    with pytest.raises(ConfigError, match=r"detector.anchor: unknown key; known are .*anchors"):
        tasks.load(recipes["faster_rcnn"], ["detector.anchor=[1]"])
    with pytest.raises(ConfigError, match="square"):
        tasks.load(recipes["deeplab"], ["input.square=0"])
    tiny.make(tmp_path)
    with pytest.raises(DataError, match="annotations"):
        in_process(recipes["faster_rcnn"], tmp_path / "run", f"data.train={tmp_path / 'data'}")
    assert not (tmp_path / "run").exists()


def test_a_run_of_another_task_is_not_gone_on_with(recipes: dict[str, Path], tmp_path: Path) -> None:
    in_process(recipes["faster_rcnn"], tmp_path / "run", "train.steps=2")
    with pytest.raises(ConfigError, match="another configuration"):
        in_process(recipes["mask_rcnn"], tmp_path / "run")
    result = CliRunner().invoke(main, ["evaluate", str(tmp_path / "run"), "--set", "train"])
    assert (result.exit_code, "data.validation" in result.stderr) == (2, True), result.output
    assert os.listdir(tmp_path / "run" / "evaluations") == ["validation-00000002"]
