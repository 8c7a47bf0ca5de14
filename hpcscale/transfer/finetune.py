"""Full finetuning with a grid search (Mahajan et al. 2018, section 3; Sun et al. 2017, section 5.1).

In: a Plan. Every combination of the grid's values is a trial, judged on a held-out part of the training set;
the best one's settings train on all of it, and only then is the test set opened. Where the grid leaves no
choice there are no trials.
"""

import json
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from hpcscale import files, ranks
from hpcscale.data.parts import Part
from hpcscale.transfer import result, settings, trials
from hpcscale.transfer.settings import Grid, Plan
from hpcscale.transfer.trials import Outcome, Trial

KEYS = {"steps": "train.steps", "lr": "schedule.lr", "weight_decay": "optimizer.weight_decay"}
RULE = (
    "the highest {metric} on what was held out; of several, the first: fewest steps, lowest rate, least decay"
)


def finetune(plan: Plan, out: Path, part: Part | None = None) -> dict[str, Any] | None:
    """Trials, the choice, the last training and its evaluation, into the folder `out` (collective).

    part: (I, N) does only trials I, I + N, ... and returns None; a call without it does what is left. Returns
    what `OUT/transfer.json` says. Raises what training does, ConfigError and TransferError.
    """
    grid = list(combinations(plan.own.grid))
    if len(grid) == 1:
        facts = {"method": "finetune", "trials": 0}
        return None if part else result.last(plan, out, grid[0], facts)
    found = [Trial(number, keys, settings.trial(plan, keys)) for number, keys in enumerate(grid)]
    outcomes = trials.run(found, out, part)
    return None if outcomes is None else conclude(plan, out, outcomes, RULE, {"method": "finetune"})


def combinations(grid: Grid) -> Iterator[dict[str, Any]]:
    """The grid's trials, in the order that decides ties: fewest steps first, then the lowest learning rate,
    then the least weight decay."""
    named = {key: values for name, key in KEYS.items() if (values := getattr(grid, name))}
    for values in product(*named.values()):
        yield dict(zip(named, values, strict=True))


def conclude(
    plan: Plan, out: Path, outcomes: Sequence[Outcome], rule: str, facts: dict[str, Any]
) -> dict[str, Any]:
    """Choose among trials, and train the last time (collective). Writes `OUT/trials.jsonl`, a line for each
    trial."""
    metric = plan.own.target.metric
    chosen = trials.best(outcomes, metric)
    if ranks.rank() == 0:
        lines = "".join(json.dumps(outcome._asdict()) + "\n" for outcome in outcomes)
        files.write_file(out / "trials.jsonl", lines.encode())
    said = {
        "trials": len(outcomes),
        "failed": sum(bool(outcome.error) for outcome in outcomes),
        "chosen": chosen.number,
        "held_out": chosen.metrics[metric],
        "rule": rule.format(metric=metric),
    }
    return result.last(plan, out, chosen.keys, facts | said)
