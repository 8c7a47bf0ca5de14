"""BiT-HyperRule: learning rates step by step, resolutions and MixUp by size, and that a recipe takes them."""

from itertools import chain
from typing import Any

import pytest

from hpcscale.config import Config, ConfigError
from hpcscale.sections import check
from hpcscale.train.schedule import lr
from hpcscale.transfer.hyperrule import rule

DATA = {"data": {"train": "data", "vocabulary": "vocabulary.json"}}


def recipe(*arguments: Any) -> Config:
    return check(Config, DATA | {name: dict(keys) for name, keys in rule(*arguments).items()}, "the rule")


def rates(settings: Config) -> list[float]:
    """Of every update of the run."""
    return [lr(settings.schedule, step, settings.train.steps) for step in range(settings.train.steps)]


def wanted(warmup: int, ends: list[int], batch: int = 512) -> list[float]:
    """Linear from 0 to the peak at step `warmup`; a tenth of the rate from each end on, to the last."""
    peak, stages = 0.003 * batch / 512, [*zip([warmup, *ends[:-1]], ends, strict=True)]
    rising = [peak * step / warmup for step in range(warmup)]
    return [*rising, *chain(*([peak / 10**n] * (end - first) for n, (first, end) in enumerate(stages)))]


GOLDEN = {
    (800, "code"): (100, [201, 301, 401, 500]),
    (19_999, "code"): (100, [201, 301, 401, 500]),
    (20_000, "code"): (500, [3_001, 6_001, 9_001, 10_000]),
    (499_999, "code"): (500, [3_001, 6_001, 9_001, 10_000]),
    (500_000, "code"): (500, [6_001, 12_001, 18_001, 20_000]),
    (19_999, "paper"): (0, [150, 300, 450, 500]),
    (499_999, "paper"): (0, [3_000, 6_000, 9_000, 10_000]),
    (500_000, "paper"): (0, [6_000, 12_000, 18_000, 20_000]),
}


@pytest.mark.parametrize(("pictures", "which"), GOLDEN)
def test_row_41_learning_rates_are_golden(pictures: int, which: str) -> None:
    found = rates(recipe(pictures, (300, 400), 512, which))
    assert found == pytest.approx(wanted(*GOLDEN[pictures, which]), rel=1e-12)


def test_row_41_learning_rates_of_the_published_code() -> None:
    small, medium = (rates(recipe(pictures, (300, 400))) for pictures in (1000, 30_000))
    at = (0, 50, 100, 200, 201, 300, 301, 400, 401, 499)
    by_hand = [0.0, 0.0015, 0.003, 0.003, 3e-4, 3e-4, 3e-5, 3e-5, 3e-6, 3e-6]
    assert [small[step] for step in at] == pytest.approx(by_hand, rel=1e-12)
    at = (250, 500, 3000, 3001, 6000, 6001, 9000, 9001, 9999)
    by_hand = [0.0015, 0.003, 0.003, 3e-4, 3e-4, 3e-5, 3e-5, 3e-6, 3e-6]
    assert [medium[step] for step in at] == pytest.approx(by_hand, rel=1e-12)
    assert rates(recipe(1000, (300, 400), 64)) == pytest.approx([rate / 8 for rate in small], rel=1e-12)


@pytest.mark.parametrize(
    ("side", "which", "network", "resize", "crop"),
    [
        ((95, 96), "code", "bit_r50x1", 160, 128),
        ((96, 96), "code", "bit_r50x1", 512, 480),
        ((20, 460), "paper", "bit_r152x4", 160, 128),
        ((96, 96), "paper", "bit_r50x1", 448, 384),
        ((96, 96), "paper", "bit_r152x2", 448, 384),
        ((96, 96), "paper", "bit_r152x4", 512, 480),
    ],
)
def test_row_41_resolutions(side: tuple[int, int], which: str, network: str, resize: int, crop: int) -> None:
    settings = recipe(1000, side, 512, which, network)
    found, judged = settings.input, settings.evaluate
    assert (found.method, found.resize, found.crop, found.mirror) == ("square", resize, crop, True)
    assert (judged.method, judged.resize, judged.crop) == ("square", crop, crop)
    assert found.values == "signed"


@pytest.mark.parametrize("which", ["code", "paper"])
def test_row_41_mixup_from_medium_tasks_on_and_no_decay_from_a_head_of_zero(which: str) -> None:
    found = [recipe(pictures, (96, 96), 64, which) for pictures in (19_999, 20_000, 500_000)]
    assert [settings.train.mixup for settings in found] == [0.0, 0.1, 0.1]
    for settings in found:
        optimizer = settings.optimizer
        assert (optimizer.name, optimizer.momentum, optimizer.weight_decay) == ("sgd", 0.9, 0.0)
        assert (settings.model.head, settings.train.batch, settings.optimizer.nesterov) == ("zero", 64, False)


def test_row_41_what_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match="'blog'; allowed are paper, code"):
        recipe(1000, (96, 96), 512, "blog")
    for arguments in ((0, (96, 96)), (1000, (0, 96)), (1000, (96, 96), 0)):
        with pytest.raises(ConfigError, match="at least 1"):
            recipe(*arguments)
