"""train/average.py: the average against its formula, and in whole runs: stored, judged, loaded, resumed."""

from pathlib import Path

import pytest
import tiny
import torch
from runs import assert_same_bits, weights
from torch import nn

from hpcscale.config import Optimizer
from hpcscale.evaluate import evaluations
from hpcscale.evaluate.classify import evaluate_run
from hpcscale.models import checkpoint, networks
from hpcscale.train import average, optim
from hpcscale.train.pretrain import train

DECAY = 0.3
GOOD, BAD = torch.tensor([0.0, 1.0], dtype=torch.float64)


def by_hand(before: torch.Tensor, after: torch.Tensor, step: int) -> torch.Tensor:
    decay = min(DECAY, (1 + step) / (10 + step))  # below DECAY up to step 2
    return decay * before + (1 - decay) * after


def test_average_of_weights_and_statistics_but_not_of_a_bad_step() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).double()
    model[0].bias.requires_grad_(False)
    optimizer = optim.build(model, Optimizer())
    average.begin(model, optimizer, DECAY)
    wanted = {name: value.clone() for name, value in model.state_dict().items()}
    for step in range(1, 6):
        for name, value in model.state_dict().items():
            if name not in ("0.bias", "1.num_batches_tracked"):
                value.add_(torch.rand_like(value))
                if step != 4:
                    wanted[name] = by_hand(wanted[name], value, step)
        average.update(optimizer, DECAY, step, BAD if step == 4 else GOOD)
    found, state = average.stored(model.state_dict(), optim.state(model, optimizer))
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=1e-12, atol=0)
    assert not [key for key in state if key.endswith(".average")]
    assert torch.equal(state["1.running_mean.weights"], model[1].running_mean)
    images = torch.rand(4, 3, dtype=torch.float64)
    model.eval()
    with average.in_use(optimizer):
        inside = model(images)
    plain = model(images)
    model.load_state_dict(found)
    torch.testing.assert_close(inside, model(images))
    assert not torch.equal(inside, plain)


@pytest.fixture(scope="module")
def averaged(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("averaged")
    keys = {"train__average": DECAY, "train__keep_at": [4, 5], "data__held_out": 0.3}
    train(tiny.settings(recipe, **keys), run)
    return run


def test_checkpoint_and_all_who_load_have_the_average(averaged: Path) -> None:
    before, after = weights(averaged, 4), weights(averaged, 5)
    for name in ("fc.weight", "fc.bias", "layer4.0.bn3.weight", "bn1.running_var"):
        wanted = by_hand(before[name], after[f"optimizer.{name}.weights"], 5)
        torch.testing.assert_close(after[name], wanted, rtol=1e-5, atol=1e-7)
        assert not torch.equal(after[name], after[f"optimizer.{name}.weights"])
    loaded, stored = networks.load(averaged).model.state_dict(), weights(averaged)
    assert all(torch.equal(value, stored[name]) for name, value in loaded.items())


def test_averaging_changes_no_weight_that_trains_on(recipe: Path, averaged: Path, tmp_path: Path) -> None:
    train(tiny.settings(recipe, data__held_out=0.3), tmp_path)
    found, plain = weights(averaged), weights(tmp_path)
    for name, value in plain.items():
        if not name.startswith("optimizer."):
            assert torch.equal(found.get(f"optimizer.{name}.weights", found[name]), value)
    inside, without = (tiny.events(run, "evaluation")[-1] for run in (averaged, tmp_path))
    assert inside["loss"] != without["loss"]


def test_it_is_evaluated_in_a_run_as_afterwards(averaged: Path) -> None:
    (inside,) = tiny.events(averaged, "evaluation")
    found = evaluations.read_summary(evaluate_run(averaged)).metrics
    assert {name: inside[name] for name in found} == pytest.approx(found, rel=1e-5)


def test_continued_run_has_the_bits_of_an_uninterrupted_one(
    recipe: Path, averaged: Path, tmp_path: Path
) -> None:
    keys = {"train__average": DECAY, "train__keep_at": [4, 5], "data__held_out": 0.3}
    train(tiny.settings(recipe, **keys, train__steps=3), tmp_path)
    train(tiny.settings(recipe, **keys), tmp_path)
    assert_same_bits(tmp_path, averaged)
    names = sorted(file.stem for file in checkpoint.folder(averaged).glob("*.json"))
    assert names == ["step-00000002", *(f"step-0000000{n}" for n in (4, 5, 6))]
