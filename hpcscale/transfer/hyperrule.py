"""BiT-HyperRule: how a pretrained network is finetuned, from the size of the task alone (Kolesnikov et al.
2020, section 3.3).

In: pictures of the training set and their size, the batch, the network. Out: keys of a recipe. The published
code (google-research/big_transfer, bit_hyperrule.py) is not what the paper says; both are here.
"""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, get_args

from hpcscale.config import ConfigError

Rule = Literal["paper", "code"]
RATE, BATCH = 0.003, 512  # the learning rate, and the samples of a step that it is for
SMALL, MEDIUM = 20_000, 500_000  # pictures below which a task is small, or medium
AREA = 96 * 96  # of a picture, pixels, below which it is small
ALPHA = 0.1  # of MixUp
LARGEST = "bit_r152x4"


class Schedule(NamedTuple):
    """Of a task of one size, in steps."""

    steps: int
    decays: dict[Rule, tuple[int, int, int]]  # after which steps the learning rate becomes a tenth
    warmup: int  # of the code


SCHEDULES = {
    "small": Schedule(500, {"paper": (150, 300, 450), "code": (200, 300, 400)}, 100),
    "medium": Schedule(10_000, {"paper": (3_000, 6_000, 9_000), "code": (3_000, 6_000, 9_000)}, 500),
    "large": Schedule(20_000, {"paper": (6_000, 12_000, 18_000), "code": (6_000, 12_000, 18_000)}, 500),
}


def rule(
    pictures: int, side: tuple[int, int], batch: int = BATCH, which: Rule = "code", network: str = LARGEST
) -> dict[str, Mapping[str, Any]]:
    """The keys of a recipe that the rule decides, by section; all others are the caller's, the loss too.

    pictures: of the training set, at least 1. side: height and width of its pictures, pixels; of pictures of
    many sizes, typical ones. batch: samples of a step over all ranks; the learning rate is proportional to
    it. which: of the paper, or of the published code. network: a name of `model.name`; only the paper's
    resolution depends on it. Raises ConfigError where one of these cannot be.

    The code's decays come a step later than its numbers: the update that follows exactly 200 updates has the
    rate from before. It warms up linearly from 0; the paper names no warm-up, so its rule has none.
    """
    if which not in get_args(Rule):
        raise ConfigError(f"rule: found {which!r}; allowed are {', '.join(get_args(Rule))}")
    if min(pictures, batch, *side) < 1:
        raise ConfigError(
            f"rule: found {pictures} pictures of {side[0]} x {side[1]} and batches of {batch}; "
            "each must be at least 1"
        )
    schedule, code = SCHEDULES[size(pictures)], which == "code"
    resize, crop = resolution(side, which, network)
    return {
        "input": {"method": "square", "resize": resize, "crop": crop, "values": "signed", "mirror": True},
        "evaluate": {"method": "square", "resize": crop, "crop": crop},
        "model": {"head": "zero"},
        "optimizer": {"name": "sgd", "momentum": 0.9, "nesterov": False, "weight_decay": 0.0},
        "schedule": {
            "name": "steps",
            "lr": RATE * batch / BATCH,
            "factor": 0.1,
            "at": [step + code for step in schedule.decays[which]],
            "warmup": schedule.warmup if code else 0,
            "warmup_lr": 0.0,
        },
        "train": {
            "steps": schedule.steps,
            "batch": batch,
            "mixup": 0.0 if pictures < SMALL else ALPHA,
        },
    }


def size(pictures: int) -> Literal["small", "medium", "large"]:
    """Of a task: below 20,000 pictures it is small, below 500,000 medium."""
    return "small" if pictures < SMALL else "medium" if pictures < MEDIUM else "large"


def resolution(side: tuple[int, int], which: Rule, network: str) -> tuple[int, int]:
    """Side of the square that pictures of `side` (height, width) are resized to, and of the crop of it that
    is trained on; pixels."""
    if side[0] * side[1] < AREA:
        return 160, 128
    return (512, 480) if which == "code" or network == LARGEST else (448, 384)
