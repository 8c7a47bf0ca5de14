"""Learning rates as a pure function of the step; read by train.loop before every update."""

import bisect
import math

from hpcscale import config


def lr(schedule: config.Schedule, step: int, steps: int) -> float:
    """Learning rate of the update that follows `step` updates, in a run of `steps`.

    Linear from `warmup_lr` at step 0 to `lr` at step `warmup`; from there as `schedule.name` says, with steps
    counted from the start of the run, warm-up included. `equal` drops at steps * i / (drops + 1) for i = 1 ..
    drops (recipes: twenty halvings for Mahajan et al. 2018, three tenths for ImageNet).
    """
    if step < schedule.warmup:
        return schedule.warmup_lr + (schedule.lr - schedule.warmup_lr) * step / schedule.warmup
    match schedule.name:
        case "exponential":
            assert schedule.every is not None
            drops = step // schedule.every
        case "steps":
            drops = bisect.bisect_right(schedule.at, step)
        case "equal":
            assert schedule.drops is not None
            drops = min(schedule.drops, step * (schedule.drops + 1) // steps)
        case "cosine":
            done = (step - schedule.warmup) / max(1, steps - schedule.warmup)
            return schedule.lr * 0.5 * (1.0 + math.cos(math.pi * min(1.0, done)))
        case _:
            drops = 0
    return schedule.lr * schedule.factor**drops


def depends_on_length(schedule: config.Schedule) -> bool:
    """Whether another number of steps would change the learning rates of the steps already made."""
    return schedule.name in ("equal", "cosine")
