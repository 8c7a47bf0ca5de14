"""Whole runs on a tiny data set: what they leave, go on with, log and stop at."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import thin
import tiny
import torch
from places import GOLDEN
from runs import assert_same_bits, start, watch_samples, weights

from hpcscale import config, ranks
from hpcscale.config import ConfigError
from hpcscale.data.order import Whole
from hpcscale.inputs import pipeline
from hpcscale.inputs.mending import BadSample
from hpcscale.models import checkpoint
from hpcscale.models.shapes import SHAPES
from hpcscale.train import loop, pretrain, state
from hpcscale.train.pretrain import train

LOSSES = GOLDEN / "loss.json"


def golden_losses(recipe: Path, run: Path) -> list[float]:
    train(tiny.settings(recipe), run)
    return [line["loss"] for line in tiny.events(run, "step")]


def test_loss_curve_is_golden(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a ResNet-50 as it is. Tolerance: kernels of other processors round differently, and six steps
    amplify it."""
    monkeypatch.setitem(SHAPES, "resnet50", thin.WHOLE)
    found = golden_losses(recipe, tmp_path)
    assert found == pytest.approx(json.loads(LOSSES.read_text()), rel=2e-3)


def test_what_a_run_leaves(whole: Path, recipe: Path) -> None:
    assert config.read(whole / "config.json") == tiny.settings(recipe)
    lines = [json.loads(line) for line in (whole / "log.jsonl").read_text().splitlines()]
    assert all(next(iter(line)) == "event" for line in lines)
    assert [line["event"] for line in lines] == ["start", "first_step", *["step"] * 6, "end"]
    first = lines[1]
    assert 0 < first["imported"] <= first["met"] < first["first_step"]
    last = lines[-2]
    assert (last["step"], last["samples"], last["lr"]) == (6, 24, 0.002)
    shares = [last[key] for key in ("wait", "compute", "allreduce", "rest")]
    assert sum(shares) == pytest.approx(1, abs=1e-3)
    assert min(shares) >= 0
    kept = sorted(path.stem for path in checkpoint.folder(whole).glob("*.json"))
    assert kept == ["step-00000002", "step-00000004", "step-00000006"]


def test_continued_run_has_the_bits_of_an_uninterrupted_one(
    recipe: Path, whole: Path, tmp_path: Path
) -> None:
    """Stopped after 3 steps, and continued: weights, running averages, momentum, and the lines of the log."""
    train(tiny.settings(recipe, train__steps=3), tmp_path)
    train(tiny.settings(recipe), tmp_path)
    assert_same_bits(tmp_path, whole)
    fields = ("step", "samples", "loss", "lr")
    found, wanted = ([[x[f] for f in fields] for x in tiny.events(r, "step")] for r in (tmp_path, whole))
    assert found == wanted


def test_a_mean_over_steps_survives_a_stop_inside_it(recipe: Path, whole: Path, tmp_path: Path) -> None:
    keys = {"train__log_every": 3, "train__checkpoint_every": 2}
    train(tiny.settings(recipe, **keys), tmp_path)
    for file in checkpoint.folder(tmp_path).glob("step-00000006*"):
        file.unlink()
    wanted = tiny.events(tmp_path, "step")
    assert [line["step"] for line in wanted] == [3, 6]
    losses = [line["loss"] for line in tiny.events(whole, "step")]
    assert [line["loss"] for line in wanted] == pytest.approx([np.mean(losses[:3]), np.mean(losses[3:])])
    train(tiny.settings(recipe, **keys), tmp_path)  # from step 4
    assert [line["loss"] for line in tiny.events(tmp_path, "step")] == [line["loss"] for line in wanted]
    assert tiny.events(tmp_path, "resume")[0]["step"] == 4


def test_gradients_are_clipped_before_they_are_applied(recipe: Path, tmp_path: Path) -> None:
    """After the first step momentum is the gradient."""
    train(tiny.settings(recipe, train__steps=1, optimizer__clip=0.001, optimizer__weight_decay=0.0), tmp_path)
    _, optimizer = checkpoint.load(next(checkpoint.whole(tmp_path)))
    gradients = [value for name, value in optimizer.items() if name.endswith(".momentum_buffer")]
    norm = torch.cat([gradient.flatten() for gradient in gradients]).norm()
    assert float(norm) == pytest.approx(0.001, rel=1e-4)


def test_damaged_checkpoint_is_passed_over_with_the_same_end(
    recipe: Path, whole: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train(tiny.settings(recipe, train__steps=4), tmp_path)
    bad = checkpoint.folder(tmp_path) / "step-00000004.safetensors"
    bad.write_bytes(bad.read_bytes()[:-100])
    with (tmp_path / "log.jsonl").open("a") as stream:
        stream.write('{"event": "step", "st')  # a line that a kill cut
    train(tiny.settings(recipe), tmp_path)
    assert str(bad) in caplog.text
    assert tiny.events(tmp_path, "resume")[0]["step"] == 2
    assert [line["step"] for line in tiny.events(tmp_path, "step")] == [1, 2, 3, 4, 5, 6]
    assert_same_bits(tmp_path, whole)


def test_nan_stops_with_the_samples_and_saves_nothing(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0

    def nan_in_the_third(logits: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return logits.sum() * (float("nan") if calls == 3 else 0.01)

    monkeypatch.setitem(pretrain.LOSSES, "logistic", nan_in_the_third)
    with pytest.raises(state.Diverged) as caught:
        train(tiny.settings(recipe, divergence__skips=0, divergence__rollbacks=0), tmp_path)
    samples, _ = Whole(tiny.PICTURES, 3).samples_at(np.arange(8, 12))
    listed = ", ".join(f"{i} ({i:02}.jpg)" for i in samples)
    assert f"the loss of step 3 is nan; its samples: {listed}" in str(caught.value)
    found = checkpoint.latest(tmp_path)
    assert found is not None
    assert found.step == 2
    assert tiny.events(tmp_path, "skip")[0]["samples"] == samples.tolist()
    assert tiny.events(tmp_path, "end")[0]["reason"] == "diverged"


def test_weights_that_are_not_finite_are_never_saved(recipe: Path, tmp_path: Path) -> None:
    """A learning rate may be too much for finite gradients."""
    with pytest.raises(state.Diverged, match="not finite after step 1"):
        train(tiny.settings(recipe, train__steps=1, schedule__lr=1e300), tmp_path)
    assert checkpoint.latest(tmp_path) is None


def test_bfloat16_trains_and_keeps_float32_weights(recipe: Path, whole: Path, tmp_path: Path) -> None:
    train(tiny.settings(recipe, train__precision="bfloat16", train__steps=2), tmp_path)
    assert all(value.dtype in (torch.float32, torch.int64) for value in weights(tmp_path).values())
    found, exact = (tiny.events(r, "step")[0]["loss"] for r in (tmp_path, whole))
    assert found != exact
    assert found == pytest.approx(exact, rel=0.02)


@pytest.mark.parametrize(
    "keys", [{"loss__name": "softmax"}, {"optimizer__name": "rmsprop"}, {"model__head_bias": -3.0}]
)
def test_options_train(recipe: Path, tmp_path: Path, keys: dict[str, Any]) -> None:
    train(tiny.settings(recipe, train__steps=1, **keys), tmp_path)
    assert np.isfinite(tiny.events(tmp_path, "step")[0]["loss"])


def test_replaced_pictures_are_logged(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = pipeline.train_batches

    def reporting(*arguments: Any, **keys: Any) -> Any:
        arguments[-1](BadSample(5, "05.jpg", "cut"))
        return real(*arguments, **keys)

    monkeypatch.setattr(pipeline, "train_batches", reporting)
    train(tiny.settings(recipe, train__steps=1), tmp_path)
    assert [(x["sample"], x["name"], x["reason"]) for x in tiny.events(tmp_path, "bad_sample")] == [
        (5, "05.jpg", "cut")
    ]


def test_tensorboard_missing_is_said(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ConfigError, match=r"pip install 'hpcscale\[tensorboard\]'"):
        train(tiny.settings(recipe, train__tensorboard=True), tmp_path)


@pytest.mark.slow
def test_two_ranks_see_and_learn_what_one_does(
    recipe: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first loss is of the same pictures and weights, but for the statistics of the halves of the batch;
    and one rank goes on where two stopped, with the pictures that come next."""
    process = start(recipe, tmp_path)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    first, second = (tiny.events(run, "step")[0]["loss"] for run in (whole, tmp_path))
    assert second == pytest.approx(first, rel=0.1)
    seen = watch_samples(monkeypatch)
    train(tiny.settings(recipe, train__steps=8), tmp_path)
    samples, _ = Whole(tiny.PICTURES, 3).samples_at(np.arange(6 * 4, 8 * 4))
    assert [i for batch in seen for i in batch] == samples.tolist()


@pytest.mark.slow
def test_nan_of_one_rank_stops_both_and_names_the_samples_of_both(recipe: Path, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        f"""
import sys
from pathlib import Path
from hpcscale import config, ranks
from hpcscale.train import loop, pretrain, state
real = pretrain.LOSSES["logistic"]
pretrain.LOSSES["logistic"] = lambda *a: real(*a) * (float("inf") if ranks.rank() == 1 else 1)
try:
    settings = config.load(Path({str(recipe)!r}), ["divergence.skips=0", "divergence.rollbacks=0"])
    pretrain.train(settings, Path({str(tmp_path / "run")!r}))
except state.Diverged as error:
    Path({str(tmp_path)!r}, f"rank{{ranks.rank()}}").write_text(str(error))
    sys.exit(1)
"""
    )
    assert ranks.launch([sys.executable, str(program)], 2) == 1
    samples, _ = Whole(tiny.PICTURES, 3).samples_at(np.arange(4))
    wanted = "the loss of step 1 is inf; its samples: " + ", ".join(f"{i} ({i:02}.jpg)" for i in samples)
    found = [(tmp_path / f"rank{r}").read_text() for r in (0, 1)]
    assert found == [f"{wanted}; 1 bad steps within 100, and 0 returns before"] * 2


def test_the_log_names_the_job(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    attempt = tmp_path / "jobs" / "7.2"
    attempt.mkdir(parents=True)
    (tmp_path / "jobs" / "7.json").write_text('{"commit": "abc"}')
    for name, value in {"HPCSCALE_ATTEMPT": str(attempt), "SLURM_PROCID": "0", "SLURM_NTASKS": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SLURM_STEP_NODELIST", "n1")
    (attempt / "stop").touch()
    with pytest.raises(loop.Interrupted, match="after step 1"):
        train(tiny.settings(recipe), tmp_path)
    (line,) = tiny.events(tmp_path, "start")
    found = {key: line[key] for key in ("job", "attempt", "nodes", "commit")}
    assert found == {"job": "7", "attempt": 2, "nodes": "n1", "commit": "abc"}


def test_row_28_a_run_keeps_the_checkpoints_of_stated_steps(recipe: Path, tmp_path: Path) -> None:
    """Beside the newest, and though no checkpoint was due."""
    keys = {"train__steps": 3, "train__checkpoint_every": 100, "train__keep": 1, "train__keep_at": [1]}
    train(tiny.settings(recipe, **keys), tmp_path)
    assert [found.step for found in checkpoint.whole(tmp_path)] == [3, 1]
