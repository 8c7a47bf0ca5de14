"""Random search for the settings of a transfer (Kolesnikov et al. 2020, supplement A).

In: a Plan. Each trial draws a learning rate, a length, dropout, decay to the initial weights, MixUp and a
resolution, trains on one part of the training set and is judged on the other (of VTAB-1k's 1,000: 800 and
200); the best one's settings train on all of it. A draw is a pure function of seed, trial and key, so trials
can be added, and array tasks agree.
"""

import csv
import hashlib
import io
import math
import random
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hpcscale import files, ranks
from hpcscale.data.parts import Part
from hpcscale.transfer import settings, trials
from hpcscale.transfer.finetune import conclude
from hpcscale.transfer.settings import Plan, Search
from hpcscale.transfer.trials import Outcome, Trial

RULE = "the highest {metric} on what was held out; of several, the trial with the lowest number"
# Of a trial's steps, after which the learning rate falls to a tenth: those of BiT-HyperRule's paper. The
# supplement does not say how it falls in a trial.
DROPS = (0.3, 0.6, 0.9)
ORDERINGS = 100  # of trials, over which figure 1 of the supplement averages
CURVE = "curve.csv"


def search(plan: Plan, out: Path, part: Part | None = None) -> dict[str, Any] | None:
    """Trials, the choice, the last training and its evaluation, into the folder `out` (collective); beside
    them `OUT/curve.csv`. Otherwise as finetune.finetune."""
    drawn = (draw(plan.own.search, number) for number in range(plan.own.search.trials))
    found = [Trial(number, keys, settings.trial(plan, keys)) for number, keys in enumerate(drawn)]
    outcomes = trials.run(found, out, part)
    if outcomes is None:
        return None
    if ranks.rank() == 0:
        _write_curve(outcomes, plan, out / CURVE)
    return conclude(plan, out, outcomes, RULE, {"method": "search"})


def draw(space: Search, trial: int) -> dict[str, Any]:
    """The keys of a trial, from 0. Pictures are resized to the drawn resolution, without a random crop."""

    def uniform(key: str) -> float:
        """In [0, 1)."""
        text = f"{space.seed}/{trial}/{key}".encode()
        return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest()) / 2**64

    def between(key: str) -> float:
        low, high = getattr(space, key)
        return float(low + (high - low) * uniform(key))

    def log_between(key: str) -> float:
        low, high = getattr(space, key)
        return float(math.exp(math.log(low) + math.log(high / low) * uniform(key)))

    def one_of(key: str) -> Any:
        values = getattr(space, key)
        return values[int(uniform(key) * len(values))]

    steps, side = one_of("steps"), one_of("resolution")
    return {
        "schedule.name": "steps",
        "schedule.lr": log_between("lr"),
        "schedule.factor": 0.1,
        "schedule.at": sorted({max(1, round(share * steps)) for share in DROPS}),
        "train.steps": steps,
        "train.mixup": one_of("mixup"),
        "model.dropout": between("dropout"),
        "optimizer.weight_decay": log_between("weight_decay"),
        "optimizer.decay_to": "initial",
        "input.method": "square",
        "input.resize": side,
        "input.crop": side,
    }


def saturation(
    scores: Sequence[float], orderings: int = ORDERINGS, seed: int | str = 0
) -> list[tuple[float, float]]:
    """After 1, 2, ... trials: the mean of the best score so far over random orderings, and its standard error
    (Kolesnikov et al. 2020, supplement, figure 1)."""
    order, shuffled = random.Random(seed), list(scores)
    runs = []
    for _ in range(orderings):
        order.shuffle(shuffled)
        best = -math.inf
        runs.append([best := max(best, score) for score in shuffled])
    return [
        (statistics.fmean(found), statistics.stdev(found) / math.sqrt(orderings))
        for found in zip(*runs, strict=True)
    ]


def _write_curve(outcomes: Sequence[Outcome], plan: Plan, file: Path) -> None:
    """A failed trial scores nothing. Each target has orderings of its own, so that errors of a mean over
    targets follow from theirs."""
    scores = [float(outcome.metrics.get(plan.own.target.metric) or 0.0) for outcome in outcomes]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("trials", "mean", "standard_error"))
    points = enumerate(saturation(scores, seed=f"{plan.own.search.seed}/{plan.target}"), 1)
    writer.writerows((trial, f"{mean:.6f}", f"{error:.6f}") for trial, (mean, error) in points)
    files.write_file(file, text.getvalue().encode())
