"""Memory of a training step by shape: what torch saves for backward, what a process then has."""

import os
import re
import subprocess
import sys

import pytest
import torch
from torch import Tensor

from hpcscale import config, ranks
from hpcscale.models import memory, networks, slices
from hpcscale.models.memory import Step
from hpcscale.train import loss, optim, split

SCRIPT = """
import re, sys
from pathlib import Path
import torch
from hpcscale import config, ranks
from hpcscale.models import networks
from hpcscale.train import optim
from hpcscale.train.gradients import GradientBuckets
from hpcscale.train.loss import logistic

def highest():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024

ranks.init()
torch.set_num_threads(1)
model = networks.build(config.Model(name=sys.argv[1]), 10)
optimizer, gradients = optim.build(model, config.Optimizer()), GradientBuckets(model.parameters())
for batch, side in ((2, 64), (int(sys.argv[2]), int(sys.argv[3]))):
    for _ in range(2):
        gradients.clear()
        images = torch.randn(batch, 3, side, side).contiguous(memory_format=torch.channels_last)
        logistic(model(images), torch.zeros(batch, 10)).backward()
        gradients.finish(0.0, 0.0)
        optim.step(optimizer, torch.tensor(0.0))
    print(highest())
"""


def saved(model: torch.nn.Module, images: Tensor, targets: Tensor, step: Step) -> int:
    """Bytes of what torch keeps for backward, each piece of memory once, beside parameters and arguments."""
    known = {
        each.untyped_storage().data_ptr() for each in (*model.parameters(), *model.buffers(), images, targets)
    }
    found = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            found[storage.data_ptr()] = storage  # alive, so that no other gets its place
        return tensor

    losses = split.LOSSES if slices.slice_of(model) else loss.LOSSES
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        with torch.autocast("cpu", torch.bfloat16, step.precision == "bfloat16"):
            logits = model(images)
        losses[step.loss](logits, targets)
    return sum(storage.nbytes() for storage in found.values())


def measured(model: config.Model, step: Step) -> int:
    torch.manual_seed(0)
    network = networks.build(model, step.classes).train()
    if step.slices > 1:
        slices.cut(network)
    images = torch.randn(step.batch, 3, step.side, step.side).contiguous(memory_format=torch.channels_last)
    rows = -(-step.classes // step.slices)
    return saved(network, images, torch.ones(step.batch * step.slices, rows) / rows, step)


@pytest.mark.parametrize(
    ("name", "keys", "step"),
    [
        ("resnet50", {}, Step(10, 33, 2)),
        ("resnet50", {}, Step(10, 32, 2, "bfloat16", loss="softmax")),
        ("resnet50", {"stride": "1x1", "output_stride": 8}, Step(7, 75, 3)),
        ("resnext101_32x4d", {}, Step(1000, 33, 2)),
        ("bit_r50x1", {}, Step(10, 33, 2)),
        ("bit_r50x1", {}, Step(10, 32, 2, "bfloat16")),
        ("bit_r50x1", {"output_stride": 16}, Step(7, 75, 3, loss="softmax")),
    ],
)  # fmt: skip
def test_what_forward_keeps_is_what_torch_saves(name: str, keys: dict[str, object], step: Step) -> None:
    """To the byte."""
    model = config.Model.model_validate({"name": name, **keys})
    assert memory.kept(model, step) == measured(model, step)


@pytest.mark.parametrize("loss", ["logistic", "softmax"])
def test_what_a_divided_classifier_keeps(loss: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The slice of one of two ranks, as if both had the same pictures. What a softmax keeps beside, some
    numbers a picture, is not counted."""
    monkeypatch.setattr(ranks, "size", lambda: 2)
    monkeypatch.setattr(ranks, "gather_rows", lambda rows: torch.cat([rows, rows]))
    for name in ("sum_", "max_"):
        monkeypatch.setattr(ranks, name, lambda numbers: numbers)
    step = Step(1000, 32, 4, loss=loss, slices=2)
    model = config.Model()
    assert 0 <= measured(model, step) - memory.kept(model, step) <= 8 * 16 * 4


@pytest.mark.parametrize("name", ["resnet50", "bit_r50x1"])
@pytest.mark.parametrize("by", ["sgd", "rmsprop"])
@pytest.mark.parametrize("decay_to", ["zero", "initial"])
def test_state_of_the_optimizer(name: str, by: str, decay_to: str) -> None:
    """To the byte."""
    model = config.Model.model_validate({"name": name})
    optimizer = config.Optimizer.model_validate({"name": by, "decay_to": decay_to})
    network = networks.build(model, 10)
    found = optim.state(network, optim.build(network, optimizer)).values()
    wanted = memory.needed(model, Step(10, 32, 1, optimizer=by, decay_to=decay_to)).optimizer
    assert sum(each.nbytes for each in found) == wanted


@pytest.mark.parametrize(("name", "batch", "side"), [("resnet50", 12, 128), ("bit_r50x1", 8, 128)])
def test_resident_memory_grows_as_said(name: str, batch: int, side: int) -> None:
    """From a small step to a larger one of the same process, so that what libraries take is in both. All
    large blocks have pages of their own: holes in malloc's heap are chance, and add up to a fifth."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, name, str(batch), str(side)],
        env=os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"},
        capture_output=True,
        text=True,
        check=True,
    )
    small, large = (int(line) for line in re.findall(r"^\d+$", done.stdout, re.MULTILINE))
    model = config.Model.model_validate({"name": name})
    wanted = memory.kept(model, Step(10, side, batch)) - memory.kept(model, Step(10, 64, 2))
    assert large - small == pytest.approx(wanted, rel=0.05), (large - small) / wanted
