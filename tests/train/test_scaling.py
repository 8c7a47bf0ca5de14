"""float16: the loss scale as torch.amp has it, skipped steps that are no errors, resume to the bit."""

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from runs import assert_same_bits, weights
from torch import nn

from hpcscale.models import checkpoint
from hpcscale.models.device import precision
from hpcscale.train import pretrain, scaling
from hpcscale.train.gradients import GradientBuckets
from hpcscale.train.pretrain import train
from hpcscale.train.scaling import LossScale
from hpcscale.train.state import Diverged

CPU = torch.device("cpu")
GOOD, BAD = torch.tensor(0.0), torch.tensor(1.0)


def half(recipe: Path, **keys: Any) -> Any:
    return tiny.settings(recipe, train__precision="float16", **keys)


# ---- the scale, on its own ----


def test_the_scale_is_that_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling, "INTERVAL", 3)
    ours = LossScale("float16", CPU)
    scale, steps = torch.tensor(scaling.START), torch.tensor(0, dtype=torch.int32)
    random = torch.Generator().manual_seed(0)
    seen = set()
    for _ in range(60):
        bad = (torch.rand((), generator=random) < 0.2).float()
        assert ours.update(bad, torch.tensor(True)) == bad
        torch._amp_update_scale_(scale, steps, bad, 2.0, 0.5, 3)
        assert ours.state() == [scale.item(), steps.item()]
        seen.add(scale.item())
    assert len(seen) > 4


def test_the_scale_is_not_to_blame_for_a_bad_loss_or_once_it_is_1() -> None:
    scale = LossScale("float16", CPU, [2.0, 7.0])
    assert scale.update(BAD, torch.tensor(False)) == 0
    assert scale.state() == [2.0, 0.0]
    assert [scale.update(BAD, torch.tensor(True)).item() for _ in range(3)] == [1.0, 0.0, 0.0]
    assert scale.state() == [1.0, 0.0]
    scale.reset()
    assert scale.state() == [scaling.START, 0.0]


def test_the_scale_has_an_upper_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling, "INTERVAL", 1)
    scale = LossScale("float16", CPU, [scaling.MOST, 0.0])
    scale.update(GOOD, torch.tensor(True))
    assert scale.state() == [scaling.MOST, 0.0]


@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
def test_other_precisions_have_no_scale(kind: str) -> None:
    scale, loss = LossScale(kind, CPU), torch.tensor(3.0)
    assert scale.up(loss) is loss
    assert scale.update(BAD, torch.tensor(True)) == 0
    scale.reset()
    assert scale.state() == [1.0, 0.0]


def test_gradients_too_small_for_float16_survive() -> None:
    """Those of the first layer are near 1e-8, which float16 does not have."""
    found = []
    for kind in ("float32", "float16"):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 1))
        apart = nn.Parameter(torch.ones(1))
        scale, gradients = LossScale(kind, CPU), GradientBuckets([*model.parameters(), apart], local=[apart])
        gradients.clear()
        with precision(kind, CPU):
            out = model(torch.ones(2, 4))
        loss = (out.float() * apart).sum() * 1e-8
        scale.up(loss).backward()
        assert gradients.finish(loss.detach(), 5.0).tolist() == [loss.item(), 5.0]
        scale.down(gradients)
        found.append([p.grad for p in (*model.parameters(), apart)])
    for mine, exact in zip(*found[::-1], strict=True):
        assert exact.abs().max() > 0
        torch.testing.assert_close(mine, exact, rtol=5e-3, atol=0.0)


# ---- whole runs ----


def test_float16_trains_and_goes_on_with_the_same_bits(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scale is the checkpoint's, not its start: it grows after the second step and the fourth."""
    monkeypatch.setattr(scaling, "INTERVAL", 2)
    monkeypatch.setattr(scaling, "START", 2.0**8)
    keys = {"train__checkpoint_every": 3}
    whole, exact, stopped = (tmp_path / name for name in ("whole", "exact", "stopped"))
    train(half(recipe, train__steps=5, **keys), whole)
    train(tiny.settings(recipe, train__steps=5), exact)
    assert all(value.dtype in (torch.float32, torch.int64) for value in weights(whole).values())
    losses, wanted = ([line["loss"] for line in tiny.events(run, "step")] for run in (whole, exact))
    assert losses != wanted
    assert losses[:2] == pytest.approx(wanted[:2], rel=0.02)
    train(half(recipe, train__steps=3, **keys), stopped)
    monkeypatch.setattr(scaling, "START", 2.0)
    train(half(recipe, train__steps=5, **keys), stopped)
    assert_same_bits(stopped, whole)
    states = [checkpoint.find(run).metadata["scale"] for run in (whole, stopped)]
    assert states == [[2.0**10, 1.0]] * 2
    assert "scale" not in checkpoint.find(exact).metadata


def overflowing(logits: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """A loss whose gradient is 400 for each logit: infinite in float16 with a scale above 163."""
    return (logits.float() * 1600).sum()


def test_an_overflow_skips_the_step_and_is_no_error(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(pretrain.LOSSES, "logistic", overflowing)
    monkeypatch.setattr(scaling, "START", 256.0)
    keys = {"divergence__skips": 0, "divergence__rollbacks": 0, "schedule__lr": 1e-12}
    train(half(recipe, train__batch=4, **keys), tmp_path)
    steps = [line["step"] for line in tiny.events(tmp_path, "overflow")]
    assert steps == list(range(1, len(steps) + 1))
    assert 0 < len(steps) < 6
    assert tiny.events(tmp_path, "skip") == []
    assert [line["step"] for line in tiny.events(tmp_path, "step")] == [1, 2, 3, 4, 5, 6]
    first, last = weights(tmp_path, 2), weights(tmp_path, 6)
    assert not first["optimizer.fc.weight.momentum_buffer"].any()
    assert not first["bn1.running_mean"].any()
    assert last["optimizer.fc.weight.momentum_buffer"].any()
    assert checkpoint.find(tmp_path).metadata["scale"][0] == 256.0 / 2 ** len(steps)


def test_gradients_that_no_scale_mends_end_the_run(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scaling, "START", 4.0)
    monkeypatch.setitem(pretrain.LOSSES, "logistic", lambda logits, rows: (logits * 0).abs().sqrt().sum())
    with pytest.raises(Diverged, match="the gradients of step 3 are not finite"):
        train(half(recipe, divergence__skips=0, divergence__rollbacks=0), tmp_path)
    assert [line["step"] for line in tiny.events(tmp_path, "overflow")] == [1, 2]


def test_the_scale_starts_anew_where_the_weights_go_back(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Step 3 and 4 have no gradient; after them all is as it was after step 2."""
    real, calls = pretrain.LOSSES["logistic"], 0

    def broken(logits: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return real(logits, rows) + ((logits * 0).abs().sqrt().sum() if calls in (3, 4) else 0.0)

    monkeypatch.setattr(scaling, "START", 2.0)
    monkeypatch.setitem(pretrain.LOSSES, "logistic", broken)
    train(half(recipe, divergence__skips=0, train__steps=6), tmp_path)
    assert [line["step"] for line in tiny.events(tmp_path, "overflow")] == [3]
    assert [(line["step"], line["to"]) for line in tiny.events(tmp_path, "rollback")] == [(5, 2)]
    assert checkpoint.find(tmp_path).metadata["scale"] == [2.0, 1.0]
