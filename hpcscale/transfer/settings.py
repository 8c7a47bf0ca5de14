"""The file of a transfer: a recipe as `hpcscale train` reads it, with sections of its own.

    [target]            # what the result is judged on
    test = "cub/test"
    [grid]              # of `transfer finetune`: every combination is a trial
    lr = [0.001, 0.01]
    steps = [2000, 8000]

`data.train` is the target's training set, a part of which, `data.held_out` or `data.held_out_names`, judges
the trials. In: TOML and overrides. Out: a Plan, from which trials and the last training take their
configurations.
"""

from collections.abc import Iterable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, Strict, field_validator, model_validator

from hpcscale import catalogue, config, files, sections
from hpcscale.config import Config, ConfigError, Step
from hpcscale.files import Usage
from hpcscale.sections import Place, Section, Seed
from hpcscale.transfer.source import Source
from hpcscale.transfer.vtab import tasks

RECIPES = config.RECIPES / "transfer"
Metric = Literal["top1", "map100"]
Rate = Annotated[float, Field(gt=0.0)]
Decay = Annotated[float, Field(ge=0.0)]
Range = Annotated[tuple[float, float], Strict(False)]
Side = Annotated[int, Field(ge=1, le=config.SIDE)]
# Of the training set, unless the file says something: of VTAB-1k's 1,000 pictures, 200 for a search.
HELD_OUT = {"search": 0.2}
# How the files in OUT begin that a transfer replaces.
MARKS = {
    "transfer.json": b'{\n  "format": "hpcscale transfer"',
    "trials.jsonl": b'{"number": 0, "keys": ',
    "curve.csv": b"trials,mean,standard_error\n1,",
}
USUAL = 0.1


class Target(Section):
    # Packed set that judges the result: once, after the last training; nothing opens it before.
    test: Place
    # What tables call the target; without it, the task, else the name of the folder of `data.train`.
    name: str | None = None
    # The task of VTAB that the target is, by its name or that of its folder (`transfer tasks`): augmentations
    # that it switches off are off in every training, whatever a trial or a rule says.
    task: str | None = None
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

    @field_validator("task")
    @classmethod
    def known(cls, name: str | None) -> str | None:
        try:
            return None if name is None else tasks.find(name).name
        except Usage as error:
            raise ValueError(str(error)) from None


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


class Search(Section):
    # Random trials, and the space they are drawn from (Kolesnikov et al. 2020, supplement A). A pair is the
    # lowest and the highest value.
    trials: int = Field(40, ge=1, le=100_000)
    seed: Seed = 0
    # Logarithm uniform.
    lr: Range = (1e-4, 1e-1)
    steps: Annotated[tuple[Step, ...], Strict(False), Field(min_length=1)] = (
        500, 1000, 2000, 4000, 8000, 16000,
    )  # fmt: skip
    # Uniform.
    dropout: Range = (0.0, 0.7)
    # Towards the initial weights; logarithm uniform.
    weight_decay: Range = (1e-6, 1e-1)
    mixup: Annotated[tuple[Decay, ...], Strict(False), Field(min_length=1)] = (0.0, 0.05, 0.1, 0.2, 0.4)
    # Side in pixels to which pictures are resized.
    resolution: Annotated[tuple[Side, ...], Strict(False), Field(min_length=1)] = (
        64, 128, 192, 256, 320, 384,
    )  # fmt: skip

    @model_validator(mode="after")
    def ranges(self) -> "Search":
        for key, least in (("lr", 1e-12), ("dropout", 0.0), ("weight_decay", 1e-12)):
            low, high = getattr(self, key)
            if not least <= low <= high or (key == "dropout" and high >= 1):
                raise ValueError(f"'{key}' is the lowest and the highest value, found [{low}, {high}]")
        return self


class HyperRule(Section):
    # What its authors' code does, or what stands in the paper (Kolesnikov et al. 2020, 3.3): they differ in
    # resolutions, warm-up, and in when the learning rate falls.
    rule: Literal["paper", "code"] = "code"


class Probe(Section):
    # Strengths of the regularisation, l2 / 2 |W|^2 beside the mean cross-entropy; of several the best on what
    # is held out, the largest of equally good ones.
    l2: Annotated[tuple[Rate, ...], Strict(False), Field(min_length=1)] = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
    # sgd: as Mahajan et al. 2018, with one l2; else L-BFGS.
    solver: Literal["lbfgs", "sgd"] = "lbfgs"
    # Norm of the gradient at which the optimum is reached; SGD also ends at a gap of 1e-4.
    tolerance: Rate = 1e-6
    # So many nearest training pictures, by cosine, vote on the test set too.
    knn: int | None = Field(None, ge=1)
    # Their votes: one each, or exp(cosine / 0.07).
    weighting: Literal["equal", "cosine"] = "equal"
    # Pictures of which features are computed at a time.
    batch: int = Field(64, ge=1, le=65536)

    @model_validator(mode="after")
    def single(self) -> "Probe":
        if self.solver == "sgd" and len(set(self.l2)) > 1:
            raise ValueError(f"solver 'sgd' takes one 'l2', found {list(self.l2)}")
        return self


class Sections(Section):
    """The sections that are not a recipe's."""

    target: Target
    grid: Grid = Grid()
    search: Search = Search()
    hyperrule: HyperRule = HyperRule()
    probe: Probe = Probe()


class Plan(NamedTuple):
    source: Source
    own: Sections
    recipe: Mapping[str, Any]  # plain values; not yet whole
    backend: Literal["horovod", "torch"]  # between ranks
    file: Path

    @property
    def target(self) -> str:
        """What tables call the target."""
        own = self.own.target
        return own.name or own.task or Path(self.recipe["data"]["train"]).resolve().name

    def off(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """What the task switches off, as `section.key`, where sections and keys are `values`."""
        if self.own.target.task is None:
            return {}
        side = values["input"].get("crop", config.Input().crop)
        judged = values.get("evaluate", {}).get("crop") or side
        return tasks.overrides(tasks.find(self.own.target.task), side, judged)

    def paths(self) -> list[Path]:
        """What it reads."""
        data, run, target = self.recipe["data"], self.source.run, self.own.target
        keys = ("train", "vocabulary", "index", "drop", "held_out_names")
        named = [data[key] for key in keys if isinstance(data.get(key), str)]
        places = (target.test, target.pretraining, self.source.place, run.data.train if run else None)
        own = [self.file] if self.file.exists() else []  # else the package's
        return [*map(Path, named), *(place for place in places if place is not None), *own]


def load(file: Path, overrides: Iterable[str], source: Source, method: str = "finetune") -> Plan:
    """Read the file of a transfer by a method; a plain name that does not exist here is one of the package's.
    Raises ConfigError with every problem that does not depend on a trial."""
    values = sections.read_toml(sections.find(file, RECIPES))
    for override in overrides:
        sections.override_into(values, override)
    own = sections.check(
        Sections, {key: values.pop(key) for key in Sections.model_fields if key in values}, str(file)
    )
    for section, found in values.items():
        if not isinstance(found, dict):
            raise ConfigError(f"{file}: '{section}' must be a section, found {found!r:.80}")
    data = values.get("data")
    if data is None or not isinstance(data.get("train"), str):
        raise ConfigError(f"{file}: data.train: missing; it is the training set of the target")
    if "validation" in data:
        raise ConfigError(f"{file}: data.validation: a transfer is judged on target.test")
    if not {"held_out", "held_out_per_class", "stratified", "held_out_names"} & data.keys():
        data |= {"held_out": HELD_OUT.get(method, USUAL), "stratified": True}
    for section, keys in source.recipe().items():
        values[section] = keys | values.get(section, {})
    _refuse_mirror(own.target, values["input"], file)
    catalogue.fill(values)
    test = {"data": {"validation": str(own.target.test)}}
    catalogue.fill(test)
    target = own.target.model_copy(update={"test": Path(test["data"]["validation"])})
    backend = sections.check(config.Ranks, values.get("ranks", {}), str(file)).backend
    return Plan(source, own.model_copy(update={"target": target}), values, backend, file)


def check_out(plan: Plan, out: Path) -> None:
    """Raise OutputError or ConfigError if the folder `out` must not have the results of this transfer; called
    before any work."""
    place = plan.source.place
    inputs = [path for path in plan.paths() if path != place]
    if place is not None and out.resolve() == place.resolve():
        raise files.OutputError(f"{out}: is what is transferred; choose another folder")
    for name, mark in MARKS.items():
        files.check_output(out / name, inputs, files.marked(mark))
    for seed in plan.own.target.seeds:
        if (file := out / f"last-{seed}" / "config.json").exists():
            config.read(file)  # or it is not of a run


def trial(plan: Plan, keys: Mapping[str, Any]) -> Config:
    """The configuration of a trial: `keys`, as `section.key`, on top of the recipe; judged on what is held
    out of the training set. Raises ConfigError."""
    return _config(plan, {"train.evaluate_every": 0, **keys}, "a trial")


def last(plan: Plan, keys: Mapping[str, Any], seed: int) -> Config:
    """The configuration of the last training: on all of the training set, judged on the test set."""
    whole = {
        "data.held_out": 0.0,
        "data.held_out_per_class": None,
        "data.held_out_names": None,
        "data.stratified": False,
        "data.validation": plan.own.target.test,
        "train.seed": seed,
        "train.evaluate_every": 0,
    }
    return _config(plan, {**keys, **whole}, "the last training")


def _refuse_mirror(target: Target, given: Any, file: Path) -> None:
    """Raises ConfigError where the file wants pictures mirrored that are then of another class."""
    task = tasks.find(target.task) if target.task else None
    if task and not task.flip and isinstance(given, dict) and given.get("mirror") is True:
        raise ConfigError(
            f"{file}: input.mirror: true, but target.task is {task.name}, whose mirrored pictures have other "
            f"labels ({task.label}); leave the key out"
        )


def _config(plan: Plan, keys: Mapping[str, Any], what: str) -> Config:
    values = deepcopy(dict(plan.recipe))
    _put(values, keys)
    _put(values, plan.off(values))
    return sections.check(Config, values, f"{plan.file}, {what}")


def _put(values: dict[str, Any], keys: Mapping[str, Any]) -> None:
    """Set `section.key`s in place."""
    for key, value in keys.items():
        section, _, name = key.partition(".")
        values.setdefault(section, {})[name] = value
