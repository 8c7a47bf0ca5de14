"""MixUp, dropout and decay to the first weights: their laws, whole runs, killed ones, and runs without."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sliced
import tiny
import torch
from runs import assert_same_bits, weights
from scipy import stats
from torch import Tensor, nn

from hpcscale.config import ConfigError, Optimizer
from hpcscale.evaluate import evaluations
from hpcscale.evaluate.classify import evaluate_run
from hpcscale.models import networks
from hpcscale.train import optim, pretrain, regularization
from hpcscale.train.pretrain import train
from hpcscale.train.regularization import dropped, mixed, partners, share

ALL: dict[str, Any] = {
    "train__mixup": 0.4, "model__dropout": 0.3, "optimizer__decay_to": "initial",
    "optimizer__weight_decay": 0.05,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _networks_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(networks.MODELS, "resnet50", networks.MODELS["resnet50"])


@pytest.mark.parametrize("alpha", [0.1, 0.4, 1.0])
def test_shares_are_of_beta(alpha: float) -> None:
    found = [share(alpha, 3, step) for step in range(2000)]
    assert stats.kstest(found, stats.beta(alpha, alpha).cdf).pvalue > 1e-3
    assert np.mean(found) == pytest.approx(0.5, abs=0.05)
    assert np.var(found) == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.08)
    assert found[:5] == [share(alpha, 3, step) for step in range(5)] != [share(alpha, 4, s) for s in range(5)]


def test_partners_are_a_permutation_of_each_block_and_any_row_meets_any() -> None:
    met: Counter[tuple[int, int]] = Counter()
    for step in range(1500):
        found = partners(3, step, [2, 5], 4)
        assert sorted(found[:4]) == [0, 1, 2, 3]
        assert sorted(found[4:]) == [4, 5, 6, 7]
        assert np.array_equal(found[4:] - 4, partners(3, step, [5], 4))  # whoever asks
        met.update((row, int(found[row])) for row in range(4))
    assert len(met) == 16
    assert stats.chisquare([*met.values()]).pvalue > 1e-4
    assert not all(np.array_equal(partners(3, s, [2], 9), partners(3, s, [5], 9)) for s in range(3))


@contextmanager
def seen(patch: pytest.MonkeyPatch, loss: str) -> Iterator[list[tuple[Tensor, Tensor, Tensor]]]:
    """Pictures, targets and losses of each step of a run with a small network."""
    pictures: list[Tensor] = []
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    real, of = sliced.Small.maps, pretrain.LOSSES[loss]

    def maps(network: sliced.Small, images: Tensor) -> Tensor:
        pictures.append(images.clone())
        return real(network, images)

    def losses(logits: Tensor, targets: Tensor) -> Tensor:
        found.append((pictures[-1], targets.clone(), of(logits, targets).detach()))
        return of(logits, targets)

    with patch.context() as patched:
        patched.setattr(sliced.Small, "maps", maps)
        patched.setitem(pretrain.LOSSES, loss, losses)
        yield found


@pytest.mark.parametrize("loss", ["logistic", "softmax"])
def test_row_41_mixup_is_two_batches_mixed_by_hand(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loss: str
) -> None:
    """Picture by picture and row by row, in two parts."""
    keys = {"loss__name": loss, "train__steps": 3, "train__batch": 8, "train__accumulate": 2}
    with seen(monkeypatch, loss) as plain:
        sliced.train(recipe, tmp_path / "plain", **keys, schedule__lr=1e-30)
    with seen(monkeypatch, loss) as found:
        sliced.train(recipe, tmp_path / "mixed", **keys, schedule__lr=1e-30, train__mixup=0.4)
    assert len(found) == len(plain) == 6
    moved = 0
    for number, ((images, targets, _), (pictures, rows, _)) in enumerate(zip(found, plain, strict=True)):
        step, block = divmod(number, 2)
        part, other = share(0.4, 3, step), partners(3, step, [block], 4)
        for row in range(4):
            for mix, one in ((images, pictures), (targets, rows)):
                wanted = part * one[row].double() + (1 - part) * one[int(other[row])].double()
                torch.testing.assert_close(mix[row].double(), wanted, rtol=0, atol=1e-6)
            moved += bool((images[row] - pictures[row]).abs().max() > 1e-3)
    assert moved >= 6


def test_row_41_the_loss_of_mixed_targets_is_the_mix_of_two_losses() -> None:
    torch.manual_seed(0)
    logits, rows = torch.randn(6, 5).double(), (torch.rand(6, 5) < 0.5).double()
    rows[:, 0] = 1.0
    other = partners(1, 2, [0], 6)
    for name, of in pretrain.LOSSES.items():
        targets = rows / rows.sum(1, keepdim=True) if name == "softmax" else rows
        wanted = 0.3 * of(logits, targets) + 0.7 * of(logits, targets[torch.from_numpy(other)])
        torch.testing.assert_close(of(logits, mixed(targets, other, 0.3)), wanted, rtol=1e-12, atol=0)


def test_row_42_dropout_keeps_means_and_depends_on_the_place_alone() -> None:
    features = torch.rand(64, 500) + 0.5
    found = dropped(features, 0.3, 3, 7, 128)
    gone = found == 0
    assert stats.binomtest(int(gone.sum()), gone.numel(), 0.3).pvalue > 1e-4
    assert stats.chisquare(gone.sum(0)).pvalue > 1e-4
    torch.testing.assert_close(found[~gone], features[~gone] / 0.7)
    assert torch.equal(dropped(features[32:], 0.3, 3, 7, 160), found[32:])
    for other in ((4, 7, 128), (3, 8, 128), (3, 7, 129)):
        assert not torch.equal(dropped(features, 0.3, *other) == 0, gone)
    features.requires_grad_(True)
    dropped(features, 0.3, 3, 7, 128).sum().backward()
    torch.testing.assert_close(features.grad, (~gone).float() / 0.7)
    half = dropped(features.detach().bfloat16(), 0.3, 3, 7, 128)
    assert half.dtype == torch.bfloat16
    assert torch.equal(half == 0, gone)


def test_row_42_dropout_is_of_training_alone(recipe: Path, tmp_path: Path) -> None:
    keys = {"data__held_out": 0.3, "train__steps": 2}
    train(tiny.settings(recipe, **keys, model__dropout=0.5), tmp_path / "dropped")
    train(tiny.settings(recipe, **keys), tmp_path / "whole")
    found, whole = weights(tmp_path / "dropped"), weights(tmp_path / "whole")
    assert found.keys() == whole.keys()
    assert not torch.equal(found["fc.weight"], whole["fc.weight"])
    (inside,) = tiny.events(tmp_path / "dropped", "evaluation")
    after = evaluations.read_summary(evaluate_run(tmp_path / "dropped")).metrics
    assert {name: inside[name] for name in after} == pytest.approx(after, rel=1e-6)


class Anchored(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn, self.fc = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2)


def decay(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """What a step of rate 0.1 with gradients of zero takes from each parameter, over the rate."""
    optim.set_lr(optimizer, 0.1)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optim.step(optimizer, torch.tensor(0.0))
    return {name: (before[name] - p.detach()) / 0.1 for name, p in model.named_parameters()}


@pytest.mark.parametrize("name", ["sgd", "rmsprop"])
def test_row_42_decay_pulls_to_the_first_weights_and_at_first_nowhere(name: str) -> None:
    """Of RMSProp, the gradient over its root."""
    torch.manual_seed(0)
    model = Anchored()
    settings = Optimizer(name=name, momentum=0.0, weight_decay=0.5, decay_to="initial", decay=0.0)
    optimizer = optim.build(model, settings)
    assert not any(moved.any() for moved in decay(model, optimizer).values())
    with torch.no_grad():
        moves = {key: torch.randn_like(p) for key, p in model.named_parameters()}
        for key, parameter in model.named_parameters():
            parameter += moves[key]
    found = decay(model, optimizer)
    gradient = 0.5 * moves["conv.weight"]
    wanted = gradient if name == "sgd" else gradient / (gradient.square() + 1.0).sqrt()
    torch.testing.assert_close(found["conv.weight"], wanted, rtol=1e-4, atol=1e-5)
    assert [key for key, moved in found.items() if moved.any()] == ["conv.weight"]  # not the classifier
    assert [key for key in optim.state(model, optimizer) if key.endswith(".initial")] == [
        "conv.weight.initial"
    ]


def test_row_42_first_weights_are_those_taken_from_a_file(recipe: Path, tmp_path: Path) -> None:
    train(tiny.settings(recipe, train__steps=2), tmp_path / "before")
    train(
        tiny.settings(recipe, train__steps=3, **ALL, model__init=str(tmp_path / "before")), tmp_path / "run"
    )
    before, found = weights(tmp_path / "before"), weights(tmp_path / "run")
    names = [name for name in found if name.endswith(".initial")]
    decayed = [name for name, each in before.items() if each.ndim > 1 and f"optimizer.{name}.momentum_buffer"
               in before and name != "fc.weight"]  # fmt: skip
    assert sorted(names) == sorted(f"optimizer.{name}.initial" for name in decayed)
    for name in decayed:
        assert torch.equal(found[f"optimizer.{name}.initial"], before[name])
        assert not torch.equal(found[name], before[name])


def test_without_the_keys_nothing_of_it_is_called(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError

    for name in ("share", "partners", "mixed", "dropped"):
        monkeypatch.setattr(regularization, name, refuse)
    train(tiny.settings(recipe, train__steps=1), tmp_path)
    assert not [name for name in weights(tmp_path) if name.endswith(".initial")]
    assert not optim.build(Anchored(), Optimizer())._optimizer_step_pre_hooks
    for keys in ({"train__mixup": 0.1}, {"model__dropout": 0.1}):
        with pytest.raises(AssertionError):
            train(tiny.settings(recipe, train__steps=1, **keys), tmp_path / str(keys))


@pytest.mark.parametrize("optimizer", ["sgd", "rmsprop"])
def test_continued_run_has_the_bits_of_an_uninterrupted_one(
    recipe: Path, tmp_path: Path, optimizer: str
) -> None:
    """With all three, in parts."""
    keys = ALL | {"optimizer__name": optimizer, "train__accumulate": 2}
    train(tiny.settings(recipe, **keys), tmp_path / "whole")
    train(tiny.settings(recipe, **keys, train__steps=3), tmp_path / "stopped")
    train(tiny.settings(recipe, **keys), tmp_path / "stopped")
    assert_same_bits(tmp_path / "stopped", tmp_path / "whole")


def test_a_batch_of_one_has_nothing_to_be_mixed_with(recipe: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"train.mixup is 0.1, but a rank has one sample at a time"):
        train(tiny.settings(recipe, train__mixup=0.1, train__accumulate=4, input__crop=40), tmp_path)
    with pytest.raises(ConfigError, match=r"model.dropout"):
        tiny.settings(recipe, model__dropout=1.0)


SMALL: dict[str, Any] = ALL | {"train__batch": 8, "train__steps": 6, "schedule__lr": 0.05}
CUTS: dict[str, dict[str, Any]] = {
    "whole": SMALL,
    "split": SMALL | {"model__slices": "ranks", "loss__name": "softmax"},
}


@pytest.fixture(scope="module")
def two(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of two ranks, with all three, by name; only to be read."""
    folder = tmp_path_factory.mktemp("two")
    assert sliced.start(recipe, {folder / name: keys for name, keys in CUTS.items()}, 2, "torch") == 0
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", CUTS)
def test_two_ranks_train_as_one_in_two_parts(recipe: Path, two: Path, tmp_path: Path, name: str) -> None:
    """The same shares, partners and masks, also where the classifier is divided."""
    sliced.train(recipe, tmp_path, **CUTS[name], train__accumulate=2)
    found, wanted = weights(two / name), weights(tmp_path)
    assert found.keys() == wanted.keys()
    for key, each in wanted.items():
        assert (found[key] - each).abs().max() <= 1e-6 * each.abs().max().clamp(min=1e-2), key


@pytest.mark.slow
def test_a_killed_rank_leaves_no_trace(recipe: Path, two: Path, tmp_path: Path) -> None:
    """Killed in step 4, after the checkpoint of step 2."""
    runs = {tmp_path / name: keys for name, keys in CUTS.items()}
    for run, keys in runs.items():
        assert sliced.start(recipe, {run: keys}, 2, "torch", killed_in=4) == 137
    assert sliced.start(recipe, runs, 2, "torch") == 0
    for run in runs:
        assert tiny.events(run, "resume")[0]["step"] == 2
        assert_same_bits(run, two / run.name)
