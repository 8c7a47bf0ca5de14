"""Numbers that only a whole run shows: the rate of every update, and evaluations between updates."""

import gc
import json
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from runs import assert_same_bits, watch_samples

from hpcscale.data.order import Whole
from hpcscale.models import networks, resnet
from hpcscale.train import optim
from hpcscale.train.pretrain import train


def test_every_update_has_the_rate_of_its_step(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Warm-up from 0 over two steps, then a tenth from step 4 on: no two neighbouring steps but 2 and 3 share
    one. Also where a run goes on, and in the log."""
    rates: list[set[float]] = []
    real = optim.step

    def noting(optimizer: torch.optim.Optimizer, bad: torch.Tensor) -> None:
        rates.append({group["lr"] for group in optimizer.param_groups})
        real(optimizer, bad)

    monkeypatch.setattr(optim, "step", noting)
    keys: dict[str, Any] = {"schedule__name": "steps", "schedule__at": [4], "schedule__warmup": 2}
    train(tiny.settings(recipe, **keys, train__steps=3), tmp_path)
    train(tiny.settings(recipe, **keys), tmp_path)
    wanted = [0.0, 0.001, 0.002, 0.002, 0.0002, 0.0002]
    assert [len(each) for each in rates] == [1] * 6
    assert [rate for each in rates for rate in each] == pytest.approx(wanted, rel=1e-12)
    assert [line["lr"] for line in tiny.events(tmp_path, "step")] == pytest.approx(wanted, rel=1e-12)


@pytest.mark.slow
def test_two_ranks_evaluate_the_network_that_they_save(recipe: Path, tmp_path: Path) -> None:
    """Running averages differ between ranks; those of rank 0 are saved, and evaluated on both."""
    command = [sys.executable, "-m", "hpcscale"]
    train_ = ["train", str(tmp_path), "--config", str(recipe), "--set", "data.held_out=0.5"]
    subprocess.run([*command, *train_, "--set", "train.steps=3", "--ranks", "2"], check=True, timeout=300)
    (inside,) = tiny.events(tmp_path, "evaluation")
    evaluate = [*command, "evaluate", str(tmp_path), "--json", "--ranks", "2"]
    done = subprocess.run(evaluate, check=True, timeout=300, stdout=subprocess.PIPE, text=True)
    afterwards = json.loads(done.stdout)
    assert (inside["set"], inside["step"]) == (afterwards["set"], afterwards["step"]) == ("held_out", 3)
    assert inside["samples"] == afterwards["metrics"]["samples"] == 13
    found = {key: inside[key] for key in afterwards["metrics"]}
    assert found == pytest.approx(afterwards["metrics"], rel=1e-6)


def test_a_run_leaves_no_network_in_memory(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hundreds of megabytes each: a process that trains many times must not grow."""
    made = []
    real = networks.build

    def building(*arguments: Any) -> resnet.ResNet:
        network = real(*arguments)
        made.append(weakref.ref(network.fc.weight))
        return network

    monkeypatch.setattr(networks, "build", building)
    train(tiny.settings(recipe, data__held_out=0.3, train__steps=2), tmp_path)
    gc.collect()
    assert [network() is None for network in made] == [True]


def test_held_out_samples_are_evaluated_and_not_trained_on(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = watch_samples(monkeypatch)
    settings = tiny.settings(recipe, data__held_out=0.3, train__evaluate_every=2, train__steps=5)
    train(settings, tmp_path)
    held_out = Whole(tiny.PICTURES, 3, 0.3).held_out_samples()
    assert not set(held_out.tolist()) & {i for batch in seen for i in batch}
    lines = tiny.events(tmp_path, "evaluation")
    assert [(line["step"], line["set"], line["samples"]) for line in lines] == [
        (step, "held_out", held_out.size) for step in (2, 4, 5)
    ]
    assert (tmp_path / "evaluations" / "held_out-00000005" / "metrics.json").exists()


def test_evaluation_changes_nothing(recipe: Path, tmp_path: Path) -> None:
    keys = {"data__held_out": 0.3, "train__steps": 3}
    train(tiny.settings(recipe, **keys), tmp_path / "seldom")
    train(tiny.settings(recipe, **keys, train__evaluate_every=1), tmp_path / "often")
    assert_same_bits(tmp_path / "seldom", tmp_path / "often")
