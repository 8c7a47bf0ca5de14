"""The file of a transfer: a recipe as `hpcscale train` reads it, with sections of its own.

    [target]            # what the result is judged on
    test = "cub/test"
    [grid]              # of `transfer finetune`: every combination is a trial
    lr = [0.001, 0.01]
    steps = [2000, 8000]

`data.train` is the target's training set, a part of which, `data.held_out`, judges the trials. In: TOML and
overrides. Out: a Plan, from which trials and the last training take their configurations.
"""

from collections.abc import Iterable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, Strict, model_validator

from hpcscale import catalogue, config, sections
from hpcscale.config import Config, ConfigError, Step
from hpcscale.sections import Place, Section, Seed
from hpcscale.transfer.source import Source

Metric = Literal["top1", "map100"]
Rate = Annotated[float, Field(gt=0.0)]
Decay = Annotated[float, Field(ge=0.0)]
Range = Annotated[tuple[float, float], Strict(False)]
Side = Annotated[int, Field(ge=1, le=config.SIDE)]
HELD_OUT = {"held_out": 0.1, "stratified": True}  # of the training set, unless the file says something


class Target(Section):
    # Packed set that judges the result: once, after the last training; nothing opens it before.
    test: Place
    # What tables call the target; without it, the name of the folder of `data.train`.
    name: str | None = None
    # By which trials and results are compared: the accuracy of the first guess, or the mean average precision
    # by class, weighted.
    metric: Metric = "top1"
    # Seeds of the last training: one each. More than one give its variance.
    seeds: Annotated[tuple[Seed, ...], Strict(False), Field(min_length=1)] = (0,)
    # File of `dedup hash` (PDQ) of the pretraining pictures, in which near-duplicates of the test set are
    # looked for. Without it, those that SOURCE's run was trained on are hashed, if they are still there.
    pretraining: Place | None = None
    # Most bits in which the PDQ hashes of two near-duplicates differ.
    radius: int = Field(31, ge=0, le=256)


class Grid(Section):
    # Values of schedule.lr, train.steps and optimizer.weight_decay; none: that of the recipe.
    lr: Annotated[tuple[Rate, ...], Strict(False)] = ()
    steps: Annotated[tuple[Step, ...], Strict(False)] = ()
    weight_decay: Annotated[tuple[Decay, ...], Strict(False)] = ()

    @model_validator(mode="after")
    def risen(self) -> "Grid":
        for key in ("lr", "steps", "weight_decay"):
            if list(values := getattr(self, key)) != sorted(set(values)):
                raise ValueError(f"'{key}' must rise strictly, found {list(values)}: ties go to the first")
        return self


class Sections(Section):
    """The sections that are not a recipe's."""

    target: Target
    grid: Grid = Grid()


class Plan(NamedTuple):
    source: Source
    own: Sections
    recipe: Mapping[str, Any]  # plain values; not yet whole
    backend: Literal["horovod", "torch"]  # between ranks
    file: Path

    @property
    def target(self) -> str:
        """What tables call the target."""
        return self.own.target.name or Path(self.recipe["data"]["train"]).resolve().name


def load(file: Path, overrides: Iterable[str], source: Source) -> Plan:
    """Read a file of a transfer. Raises ConfigError with every problem that does not depend on a trial."""
    values = sections.read_toml(file)
    for override in overrides:
        sections.override_into(values, override)
    own = sections.check(
        Sections, {key: values.pop(key) for key in Sections.model_fields if key in values}, str(file)
    )
    data = values.get("data")
    if not isinstance(data, dict) or not isinstance(data.get("train"), str):
        raise ConfigError(f"{file}: data.train: missing; it is the training set of the target")
    if "validation" in data:
        raise ConfigError(f"{file}: data.validation: a transfer is judged on target.test")
    if not {"held_out", "held_out_per_class", "stratified"} & data.keys():
        data |= HELD_OUT
    for section, keys in source.recipe().items():
        given = values.setdefault(section, {})
        if isinstance(given, dict):  # else `check` tells
            values[section] = keys | given
    catalogue.fill(values)
    test = {"data": {"validation": str(own.target.test)}}
    catalogue.fill(test)
    target = own.target.model_copy(update={"test": Path(test["data"]["validation"])})
    backend = sections.check(config.Ranks, values.get("ranks", {}), str(file)).backend
    return Plan(source, own.model_copy(update={"target": target}), values, backend, file)


def trial(plan: Plan, keys: Mapping[str, Any]) -> Config:
    """The configuration of a trial: `keys`, as `section.key`, on top of the recipe; judged on what is held
    out of the training set. Raises ConfigError."""
    return _config(plan, {"train.evaluate_every": 0, **keys}, "a trial")


def last(plan: Plan, keys: Mapping[str, Any], seed: int) -> Config:
    """The configuration of the last training: on all of the training set, judged on the test set."""
    whole = {"data.held_out": 0.0, "data.held_out_per_class": None, "data.stratified": False,
             "data.validation": plan.own.target.test, "train.seed": seed, "train.evaluate_every": 0}  # fmt: skip
    return _config(plan, {**keys, **whole}, "the last training")


def _config(plan: Plan, keys: Mapping[str, Any], what: str) -> Config:
    values = deepcopy(dict(plan.recipe))
    for key, value in keys.items():
        section, _, name = key.partition(".")
        given = values.setdefault(section, {})
        if isinstance(given, dict):
            given[name] = value
    return sections.check(Config, values, f"{plan.file}, {what}")
