"""Train a dense task: RUN RECIPE [KEY=VALUE ...].

KILL_AT in the environment: rank 0 kills itself in that step.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any

from torch import Tensor

from hpcscale import ranks, tasks
from hpcscale.dense import training
from hpcscale.train.job import Job

build, killed_in, losses = training.build, int(os.environ.get("KILL_AT", 0)), 0


def killing(*arguments: Any) -> Job:
    job = build(*arguments)

    def loss(batch: Any) -> Tensor:
        global losses
        losses += 1
        if losses == killed_in and ranks.rank() == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return job.loss(batch)

    return job._replace(loss=loss)


if __name__ == "__main__":
    training.build = killing
    run, recipe, *overrides = sys.argv[1:]
    settings = tasks.load(Path(recipe), overrides)
    assert isinstance(settings, tasks.Dense)
    training.train(settings, Path(run))
