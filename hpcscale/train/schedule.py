"""Learning rates as a pure function of the step, read by train.loop before every update.

And how long a run is to be, by the heuristic of Mahajan et al. 2018.
"""

import bisect
import math

from hpcscale import config

# Pictures of a data set, and how many a run over it processes: 120 epochs and 2 epochs (Mahajan et al. 2018,
# section 2.4).
SHORTEST, LONGEST = (1_200_000, 144_000_000), (3_500_000_000, 7_000_000_000)


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
        case "polynomial":
            return schedule.lr * math.pow(1.0 - min(step, steps) / steps, schedule.power)
        case _:
            drops = 0
    return schedule.lr * schedule.factor**drops


def depends_on_length(schedule: config.Schedule) -> bool:
    """Whether another number of steps would change the learning rates of the steps already made."""
    return schedule.name in ("equal", "cosine", "polynomial")


def samples_of_run(pictures: int, logarithmic: bool = False) -> int | None:
    """How many samples a run over so many pictures processes: interpolated linearly between the two extremes,
    as the paper does; `logarithmic`: in logarithms of both, which is ours. None outside the extremes."""
    (least, fewest), (most, greatest) = SHORTEST, LONGEST
    if not least <= pictures <= most:
        return None
    if logarithmic:
        done = math.log(pictures / least) / math.log(most / least)
        return round(math.exp(math.log(fewest) + math.log(greatest / fewest) * done))
    return round(fewest + (greatest - fewest) * (pictures - least) / (most - least))


def length(pictures: int, batch: int) -> str:
    """The same for people, with steps of `batch`."""
    samples, other = samples_of_run(pictures), samples_of_run(pictures, logarithmic=True)
    if samples is None or other is None:
        return f"not said for {pictures:,} pictures, only for {SHORTEST[0]:,} to {LONGEST[0]:,}"
    return f"{samples:,} samples, {samples / batch:,.0f} steps (log-log: {other:,}, {other / batch:,.0f})"
