"""The recipes of the papers: rates, batches and epochs against golden files and the papers' numbers."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from places import GOLDEN

from hpcscale import config, sections, tasks
from hpcscale.config import Config
from hpcscale.train.schedule import lr, samples_of_run


class Facts(NamedTuple):
    """Of an experiment, which no recipe says."""

    ranks: int  # that share a step; 1 where that is not said
    pictures: float  # of the data set


FACTS = {
    "sun2017_jft": Facts(1, 3e8),
    "sun2017_imagenet": Facts(1, 1.2e6),
    "mahajan2018_instagram": Facts(336, 940e6),
    "mahajan2018_imagenet": Facts(128, 1.2e6),
    "kolesnikov2020_bit_s": Facts(1, 1.28e6),
    "kolesnikov2020_bit_m": Facts(1, 14.2e6),
    "kolesnikov2020_bit_l": Facts(1, 3e8),
}


def load(name: str, *sets: str) -> Config:
    return config.load(Path(f"{name}.toml"), sets)


def changes(settings: Config) -> Iterator[int]:
    """Steps at whose two sides learning rates are worth knowing, and the ends of the run."""
    schedule, steps = settings.schedule, settings.train.steps
    yield from (0, schedule.warmup // 2, schedule.warmup, steps)
    yield from schedule.at
    yield from range(schedule.every or steps, steps, schedule.every or steps)
    yield from (-(-steps * i // ((schedule.drops or 0) + 1)) for i in range(1, (schedule.drops or 0) + 1))


def arithmetic(name: str) -> dict[str, Any]:
    settings, facts = load(name), FACTS[name]
    train = settings.train
    steps = sorted({min(max(0, at + side), train.steps - 1) for at in changes(settings) for side in (-1, 0)})
    return {
        "model": settings.model.name,
        "loss": settings.loss.name,
        "optimizer": settings.optimizer.model_dump(),
        "samples of a step": train.batch,
        "ranks": facts.ranks,
        "samples of a rank": config.samples_of_rank(settings, facts.ranks),
        "steps": train.steps,
        "samples": train.steps * train.batch,
        "epochs": round(train.steps * train.batch / facts.pictures, 4),
        "keep_at": list(train.keep_at),
        "lr": {str(step): float(f"{lr(settings.schedule, step, train.steps):.10g}") for step in steps},
    }


def golden_recipes() -> dict[str, Any]:
    return {name: arithmetic(name) for name in FACTS}


def test_every_recipe_of_a_paper_is_known() -> None:
    """Those of classification; of dense tasks: tests/dense/test_dense_recipes.py."""
    files = {file.stem: sections.read_toml(file) for file in config.RECIPES.glob("*.toml")}
    names = {name for name, values in files.items() if not tasks.is_dense(values)}
    assert names - {"demo", "photographs"} == FACTS.keys()


@pytest.mark.parametrize("name", FACTS)
def test_arithmetic_is_golden(name: str) -> None:
    assert arithmetic(name) == json.loads((GOLDEN / "recipes.json").read_text())[name]


@pytest.mark.parametrize("name", FACTS)
def test_head_says_command_place_assumptions_and_what_to_expect(name: str) -> None:
    lines = (config.RECIPES / f"{name}.toml").read_text().splitlines()
    head = lines[: lines.index("[data]")]
    text = " ".join(head)
    assert head[0].startswith(f"# hpcscale train RUN --config {name}.toml ")
    assert all(line.startswith("#") and len(line) <= 124 for line in head)
    assert all(
        word in text for word in (" et al. 20", "section", "Assumed: ", "Expected (", "We have not run it.")
    )


def rates(settings: Config, *steps: int) -> list[float]:
    return [lr(settings.schedule, step, settings.train.steps) for step in steps]


def test_row_21_jft() -> None:
    settings = load("sun2017_jft")
    found = rates(settings, 0, 2_999_999, 3_000_000, 35_999_999, 36_000_000)
    assert found == pytest.approx([1e-3, 1e-3, 9e-4, 1e-3 * 0.9**11, 2.8243e-4], rel=1e-5)
    assert settings.train.steps * settings.train.batch == 3.84 * 3e8
    synchronous = load(
        "sun2017_jft", "train.batch=1600", "train.steps=720_000", "schedule.every=60_000",
        "train.keep_at=[240_000, 480_000]",
    )  # fmt: skip
    assert synchronous.train.steps * synchronous.train.batch == settings.train.steps * settings.train.batch
    assert rates(synchronous, 59_999, 60_000, 719_999) == rates(settings, 2_999_999, 3_000_000, 35_999_999)


def test_row_21_optimizer_of_jft() -> None:
    settings = load("sun2017_jft").optimizer
    assert (settings.name, settings.momentum, settings.decay, settings.epsilon) == ("rmsprop", 0.9, 0.9, 1.0)
    assert (settings.weight_decay, settings.momentum_correction) == (1e-4, False)


def test_row_22_imagenet_of_sun() -> None:
    at = (0, 1_199_999, 1_200_000, 2_400_000, 3_600_000, 4_800_000, 4_999_999)
    found = rates(load("sun2017_imagenet"), *at)
    assert found == pytest.approx([5e-2, 5e-2, 5e-3, 5e-4, 5e-5, 5e-6, 5e-6])


@pytest.mark.parametrize(
    ("name", "ranks", "batch", "factor", "drops"),
    [("mahajan2018_instagram", 336, 8064, 0.5, 20), ("mahajan2018_imagenet", 128, 3072, 0.1, 3)],
)
def test_linear_scaling(name: str, ranks: int, batch: int, factor: float, drops: int) -> None:
    settings = load(name)
    assert settings.train.batch == batch
    assert config.samples_of_rank(settings, ranks) == 24
    peak, warm = 0.1 / 256 * batch, settings.schedule.warmup
    assert rates(settings, 0, warm) == pytest.approx([0.1, peak])
    assert warm == round(5 * 1.28e6 / batch)
    after = rates(settings, *range(warm, settings.train.steps))
    assert sorted(set(after), reverse=True) == pytest.approx([peak * factor**i for i in range(drops + 1)])
    fewer = load(name, f"train.accumulate={ranks // 2}")
    assert config.samples_of_rank(fewer, 2) // fewer.train.accumulate == 24
    assert (settings.model.zero_init_residual, settings.optimizer.nesterov) == (True, True)


def test_row_23_336_gpus() -> None:
    settings = load("mahajan2018_instagram")
    assert settings.train.steps == round((samples_of_run(940_000_000) or 0) / 8064)
    assert rates(settings, 0, 794, settings.train.steps - 1) == pytest.approx([0.1, 3.15, 3.15 * 2**-20])
    optimizer = settings.optimizer
    assert (optimizer.name, optimizer.momentum, optimizer.weight_decay) == ("sgd", 0.9, 1e-4)
    assert (optimizer.nesterov, settings.model.zero_init_residual) == (True, True)
    text = (config.RECIPES / "mahajan2018_instagram.toml").read_text()
    assert f"train.steps={round((samples_of_run(3_500_000_000) or 0) / 8064):_}" in text


def test_row_24_128_gpus() -> None:
    settings = load("mahajan2018_imagenet")
    assert settings.train.steps * settings.train.batch == 120 * 1.2e6 == samples_of_run(1_200_000)
    warm = round(5 * 1.28e6 / 3072)
    assert rates(settings, 0, warm, settings.train.steps - 1) == pytest.approx([0.1, 1.2, 1.2e-3])


@pytest.mark.parametrize(
    ("size", "epochs", "drops"),
    [("s", 90, (30, 60, 80)), ("m", 90, (30, 60, 80)), ("l", 40, (10, 23, 30, 37))],
)
def test_row_29_bit(size: str, epochs: int, drops: tuple[int, ...]) -> None:
    name = f"kolesnikov2020_bit_{size}"
    settings, pictures = load(name), FACTS[name].pictures
    assert settings.train.steps == round(epochs * pictures / 4096)
    assert rates(settings, 0, 2500, 5000) == pytest.approx([0.0, 0.24, 0.03 * 4096 / 256])
    for drop, at in enumerate(drops):
        step = round(at * pictures / 4096)
        assert rates(settings, step - 1, step) == pytest.approx([0.48 * 0.1**drop, 0.48 * 0.1 ** (drop + 1)])
    optimizer = settings.optimizer
    assert (optimizer.momentum, optimizer.weight_decay, optimizer.nesterov) == (0.9, 1e-4, False)
    softmax = size == "s"
    assert settings.loss.name == ("softmax" if softmax else "logistic")
    assert settings.model.head_bias == (0.0 if softmax else -10.0)


def test_row_18_the_logistic_loss_is_one_word_away() -> None:
    """Section 2.3: all else the same."""
    softmax, logistic = load("mahajan2018_instagram"), load("mahajan2018_instagram", "loss.name=logistic")
    assert (softmax.loss.name, logistic.loss.name) == ("softmax", "logistic")
    assert softmax.model_dump(exclude={"loss"}) == logistic.model_dump(exclude={"loss"})


def test_row_28_checkpoints_of_the_study_of_epochs() -> None:
    """Tables 4 and 5."""
    assert load("sun2017_jft").train.keep_at == (12_000_000, 24_000_000, 36_000_000)
    assert load("sun2017_imagenet").train.keep_at == (100_000, 200_000, 400_000, 5_000_000)
