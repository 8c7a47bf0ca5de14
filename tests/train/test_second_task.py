"""A second task trains through the same loop: resume, kill -9, two ranks, accumulation, a frozen part."""

import subprocess
import sys
from pathlib import Path

import pytest
import regression
import tiny
import torch
from places import ROOT

from hpcscale import ranks
from hpcscale.models import checkpoint

SETS = ("data.held_out=0.3", "train.steps=8", "train.evaluate_every=4", "schedule.lr=0.02")
PROGRAM = Path(regression.__file__)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make(tmp_path_factory.mktemp("regression"))


def train(recipe: Path, run: Path, count: int = 1, *sets: str) -> int:
    words = [sys.executable, str(PROGRAM), str(run), str(recipe), *SETS, *sets]
    return ranks.launch(words, count) if count > 1 else subprocess.run(words, cwd=ROOT).returncode


def tensors(run: Path) -> dict[str, torch.Tensor]:
    model, optimizer = checkpoint.load(next(checkpoint.whole(run)))
    return model | {f"optimizer.{name}": value for name, value in optimizer.items()}


def losses(run: Path) -> list[float]:
    return [line["loss"] for line in tiny.events(run, "step")]


@pytest.fixture(scope="module")
def alone(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("alone") / "run"
    assert train(recipe, run) == 0
    return run


def test_it_learns_and_is_assessed(alone: Path) -> None:
    found = losses(alone)
    assert len(found) == 8
    assert sum(found[-3:]) < 0.5 * sum(found[:3])
    assessed = tiny.events(alone, "evaluation")
    assert [(line["set"], line["step"]) for line in assessed] == [("held_out", 4), ("held_out", 8)]
    assert assessed[1]["mse"] < assessed[0]["mse"]


def test_a_frozen_part_stays_and_costs_no_state(recipe: Path, alone: Path, tmp_path: Path) -> None:
    assert train(recipe, tmp_path / "short", 1, "train.steps=1") == 0
    first, last = tensors(tmp_path / "short"), tensors(alone)
    assert torch.equal(first["0.weight"], last["0.weight"])
    assert not torch.equal(first["4.weight"], last["4.weight"])
    assert sorted(name for name in last if name.startswith("optimizer.")) == [
        "optimizer.4.bias.momentum_buffer",
        "optimizer.4.weight.momentum_buffer",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2])
def test_parts_and_ranks_add_up_to_the_whole_batch(
    recipe: Path, alone: Path, tmp_path: Path, count: int
) -> None:
    """The network has no batch normalisation: only the order of sums differs."""
    assert train(recipe, tmp_path / "run", count, "train.accumulate=2") == 0
    assert losses(tmp_path / "run") == pytest.approx(losses(alone), rel=1e-4)
    for name, value in tensors(alone).items():
        torch.testing.assert_close(tensors(tmp_path / "run")[name], value, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2])
def test_killed_it_goes_on_with_the_same_bits(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert train(recipe, whole, count, "train.accumulate=2") == 0
    monkeypatch.setenv("KILL_AT", "6")
    assert train(recipe, killed, count, "train.accumulate=2") != 0
    assert next(checkpoint.whole(killed)).step == 4
    monkeypatch.delenv("KILL_AT")
    assert train(recipe, killed, count, "train.accumulate=2") == 0
    assert tiny.events(killed, "resume")[0]["step"] == 4
    assert losses(killed) == losses(whole)
    found, wanted = tensors(killed), tensors(whole)
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], value) for name, value in wanted.items())


@pytest.mark.slow
def test_half_precision_between_ranks_goes_on_with_the_same_bits(
    recipe: Path, alone: Path, tmp_path: Path
) -> None:
    """Loss scale and gradients in float16, on two ranks, whole and stopped after 4 steps. The first scale is
    too large for what travels, so that the first step is skipped by both."""
    sets = ("train.precision=float16", "train.compress=float16")
    assert train(recipe, tmp_path / "whole", 2, *sets) == 0
    for steps in ("train.steps=4", "train.steps=8"):
        assert train(recipe, tmp_path / "stopped", 2, *sets, steps) == 0
    found, wanted = tensors(tmp_path / "stopped"), tensors(tmp_path / "whole")
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert [line["step"] for line in tiny.events(tmp_path / "whole", "overflow")] == [1]
    assert losses(tmp_path / "whole")[0] == pytest.approx(losses(alone)[0], rel=1e-5)
    assert sum(losses(tmp_path / "whole")[-3:]) < 0.5 * sum(losses(tmp_path / "whole")[:3])
