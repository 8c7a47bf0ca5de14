"""A task of its own for the training loop: how bright is a picture, from 0 to 2? RUN RECIPE [KEY=VALUE ...].

What a newcomer writes for a new task: a network, batches, a loss, an assessment. A part of it is frozen.
KILL_AT in the environment: rank 0 kills itself in that step.
"""

import os
import signal
import sys
from collections.abc import Generator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hpcscale import config, ranks
from hpcscale.data.order import Whole
from hpcscale.data.store import open_data
from hpcscale.inputs import pipeline
from hpcscale.inputs.crops import Steps
from hpcscale.inputs.mending import Tell
from hpcscale.models.networks import evaluating
from hpcscale.models.preprocessing import Normalized
from hpcscale.train import loop, optim, process
from hpcscale.train.job import Job
from hpcscale.train.process import Process


def train(settings: config.Config, run: Path) -> None:
    with process.start(settings, run) as here:
        loop.run(build(here), here)


def build(here: Process) -> Job:
    settings, train_ = here.settings, here.settings.train
    data = open_data(settings.data.train)
    order = Whole(data.samples, train_.seed, settings.data.held_out, settings.data.split_seed)
    torch.manual_seed(train_.seed)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 5, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 1)
    )
    model[0].requires_grad_(False)
    normalized = Normalized()
    killed_in, losses = int(os.environ.get("KILL_AT", 0)), 0

    def batches(step: int, tell: Tell) -> Generator[pipeline.Batch, None, None]:
        steps = Steps(step, train_.steps - step, train_.batch, ranks.rank(), ranks.size(), train_.accumulate)
        return pipeline.train_batches(data, order, settings.input, steps, train_.seed, here.device, tell)

    def squares(batch: pipeline.Batch) -> Tensor:
        images = normalized(batch.images, batch.values)
        wanted = 1 + images.mean((1, 2, 3))
        return (model(images)[:, 0] - wanted).square().sum()

    def loss(batch: pipeline.Batch) -> Tensor:
        nonlocal losses
        losses += 1
        if losses == killed_in * train_.accumulate and ranks.rank() == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return squares(batch) / train_.batch

    def assess(step: int) -> tuple[str, Mapping[str, Any]]:
        samples = order.held_out_samples()
        part = np.array_split(samples, ranks.size())[ranks.rank()]
        found = pipeline.evaluate_batches(data, part, settings.input, batch=4, device=here.device)
        with closing(found), evaluating(model), torch.inference_mode():
            errors = [float(squares(batch)) for batch in found]
        return "held_out", {"mse": ranks.gather(np.array(errors)).sum() / len(samples)}

    fingerprint = {"data": data.digest}
    return Job(model, optim.build(model, settings.optimizer), batches, loss, assess, fingerprint, data.names)


if __name__ == "__main__":
    train(config.load(Path(sys.argv[2]), sys.argv[3:]), Path(sys.argv[1]))
