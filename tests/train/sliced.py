"""Small trainings, whose classifier is whole or divided, on the ranks that there are."""

import os
import signal
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import tiny
import torch
from torch import Tensor, nn

from hpcscale import config, ranks
from hpcscale.models import networks, slices
from hpcscale.models.backbone import Network
from hpcscale.train import loss, optim, pretrain, split
from hpcscale.train.gradients import GradientBuckets

BATCH, STEPS = 8, 4
OPTIMIZERS = {
    "sgd": config.Optimizer(name="sgd", nesterov=True, weight_decay=1e-2),
    "rmsprop": config.Optimizer(name="rmsprop", weight_decay=1e-2),
}
# Classes, loss and optimizer; on four ranks, the last of 5 classes' slices is empty.
KINDS = [(classes, name, by) for classes in (5, 18) for name in loss.LOSSES for by in OPTIMIZERS]


class Small(Network):
    """Without batch normalisation, so that a batch may be cut anywhere."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 12, 5, 3)
        self.fc = nn.Linear(12, classes)

    def maps(self, images: Tensor) -> Tensor:
        maps: Tensor = torch.tanh(self.conv(images))
        return maps


def layer(classes: int, name: str, by: str, divided: bool, passes: int = 1) -> dict[str, Tensor]:
    """Weights, optimizer state and losses after STEPS steps in float64, whole, on rank 0."""
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    model = Small(classes)
    images, rows = torch.randn(STEPS, BATCH, 3, 8, 8), (torch.rand(STEPS, BATCH, classes) < 0.3).double()
    rows[:, 0] = 0.0  # a sample without a class
    if name == "softmax":
        rows /= rows.sum(2, keepdim=True).clamp(min=1.0)
    own = slices.cut(model) if divided else None
    local = tuple(own.parameters()) if own else ()
    optimizer = optim.build(model, OPTIMIZERS[by])
    optim.set_lr(optimizer, 0.05)
    buckets, losses = GradientBuckets(model.parameters(), local=local), []
    for step in range(STEPS):
        buckets.clear(passes)
        total = torch.zeros(())
        for each in torch.arange(BATCH).view(ranks.size(), passes, -1).transpose(0, 1):
            part, everyone = each[ranks.rank()], each.flatten()
            if own:
                found = split.LOSSES[name](
                    model(images[step, part]), rows[step, everyone][:, own.classes.start : own.classes.stop]
                )
            else:
                found = loss.LOSSES[name](model(images[step, part]), rows[step, part])
            (found / 6).backward()  # a sixth rounds
            total += found.detach()
        losses.append(buckets.finish(total, 0.0)[0].clone())
        if own:
            assert own.weight.grad is not None
            assert not own.weight.grad[len(own.classes) :].any()
        optimizer.step()
    state = dict(model.state_dict()) | optim.state(model, optimizer) | {"losses": torch.stack(losses)}
    torch.set_default_dtype(torch.float32)
    return split.whole(state, slices.divided(model))


def layers(folder: str) -> None:
    """The program of a rank: `layer` of all kinds."""
    ranks.init()
    found = [layer(*kind, True, passes) for kind in KINDS for passes in (1, 2)]
    if ranks.rank() == 0:
        torch.save(found, Path(folder, f"{ranks.size()}"))


def train(recipe: Path | str, run: Path | str, **keys: Any) -> None:
    """A run of the recipe with a `Small` network, in this process; the keys are as `tiny.settings` takes
    them."""
    networks.MODELS["resnet50"] = lambda _, classes: Small(classes)
    pretrain.train(tiny.settings(Path(recipe), **keys), Path(run))


def start(
    recipe: Path,
    runs: Mapping[Path, Mapping[str, Any]],
    count: int,
    backend: str = "horovod",
    killed_in: int = 0,
) -> int:
    """Such runs, one after the other, on so many ranks; the exit code. killed_in: rank 1 kills itself in that
    step."""
    lines = [f"import sys; sys.path = {sys.path}; import sliced; sliced.kill_in({killed_in})"]
    for run, keys in runs.items():
        told = dict(keys) | {"ranks__backend": backend}
        lines.append(f"sliced.train({str(recipe)!r}, {str(run)!r}, **{told!r})")
    return ranks.launch([sys.executable, "-c", "; ".join(lines)], count)


def kill_in(step: int) -> None:
    """This process, if it is rank 1, ends in the backward of that step of the next run."""
    count = 0

    def deadly(real: Callable[[Tensor, Tensor], Tensor], logits: Tensor, targets: Tensor) -> Tensor:
        nonlocal count
        count += 1
        if count == step and ranks.rank() == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(logits, targets)

    for losses in (split.LOSSES, loss.LOSSES):  # of a divided classifier, and of a whole one
        for name, real in losses.items():
            losses[name] = partial(deadly, real)
