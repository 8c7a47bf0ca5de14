"""The configuration of a run: TOML in, `--set key=value` on top, resolved JSON in the run folder.

Every key is a commented field here; an unknown key is an error. Recipes are files in `configs/`; their
headers state the command and the expected result. Lengths are in steps and batch sizes are global (over all
ranks), so that a recipe means the same with any number of ranks.
"""

import json
import os
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Strict, ValidationError, model_validator

from hpcscale import files
from hpcscale.files import FileError, Usage

M = TypeVar("M", bound=BaseModel)
RECIPES = Path(__file__).parent / "configs"
# Upper limits catch typing errors; no machine comes near them.
STEPS = 99_999_999  # the eight digits of a checkpoint's name
SIDE = 8192  # pixels; the same limit as of `data ingest --resize`
SECONDS = 10_000_000.0  # four months
COUNT = 1_000_000
RECIPE_BYTES = 16 << 20


def _can_be(path: Path) -> Path:
    if "\0" in str(path):
        raise ValueError("a path has no NUL")
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        raise ValueError("a path has no halves of characters") from None
    return path


# TOML and JSON write paths as texts and tuples as lists: for these alone, another type is accepted.
Place = Annotated[Path, Strict(False), AfterValidator(_can_be)]
Seed = Annotated[int, Field(ge=-(2**63), lt=2**63)]


class ConfigError(Usage):
    """A configuration that cannot be used; the message names file, key, value and what is allowed."""


class Section(BaseModel):
    """Strict: true is not a number, 1 is not true, numbers are finite; an integer is accepted for a float."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Data(Section):
    # Folder written by `hpcscale data ingest`.
    train: Place
    # File written by `hpcscale labels build`.
    vocabulary: Place
    # Another data set to evaluate on; without it, the held-out part of `train` is used.
    validation: Place | None = None
    # Share of `train` that training never sees, chosen by a keyed permutation of the samples.
    held_out: float = Field(0.0, ge=0.0, lt=1.0)
    # Key of that permutation: change it to hold out other samples.
    split_seed: Seed = 0
    # File from `dedup drop`, one name a line: samples of `train` to leave out, of the held-out part too.
    drop: Place | None = None


class Input(Section):
    # Side of the square crop that the model sees, in pixels.
    crop: int = Field(299, ge=1, le=SIDE)
    # Resize every picture to a square of this side before the crop, unless it is stored so. This costs two to
    # three times as much as decoding: prefer `data ingest --resize`.
    resize: int | None = Field(None, ge=1, le=SIDE)
    # Mirror half of the training pictures.
    mirror: bool = True
    # Decoding threads of one rank.
    threads: int = Field(1, ge=1, le=1024)
    # How many batches are decoded ahead of the model.
    prefetch: int = Field(2, ge=1, le=1024)


class Model(Section):
    name: Literal["resnet50", "resnet101", "resnet152"] = "resnet50"
    # Start value of every bias of the classifier. With many classes and logistic loss, log(p / (1 - p)) of a
    # typical class frequency p saves a first phase that only learns "nothing is there". big_vision uses -10
    # for 21k classes.
    head_bias: float = 0.0
    # Start the last batch normalisation of every block at zero (Goyal et al. 2017, section 5.1).
    zero_init_residual: bool = True


class Loss(Section):
    # logistic: one binary problem per class, summed over classes (Sun et al. 2017, section 4.1).
    # softmax: cross-entropy with 1/k targets for k labels (Mahajan et al. 2018, section 2.3).
    name: Literal["logistic", "softmax"] = "logistic"


class Optimizer(Section):
    name: Literal["sgd", "rmsprop"] = "sgd"
    momentum: float = Field(0.9, ge=0.0, lt=1.0)
    # SGD only.
    nesterov: bool = False
    # RMSProp only: decay of the mean square, and the epsilon inside the root (TensorFlow's form).
    decay: float = Field(0.9, ge=0.0, lt=1.0)
    epsilon: float = Field(1.0, gt=0.0)
    # L2 on weights; biases and batch normalisation are left out.
    weight_decay: float = Field(1e-4, ge=0.0)


class Schedule(Section):
    # constant      stays `lr`
    # exponential   times `factor` every `every` steps
    # steps         times `factor` at each step of `at`
    # equal         times `factor` at `drops` equally spaced steps
    # cosine        falls to zero at the last step
    name: Literal["constant", "exponential", "steps", "equal", "cosine"] = "constant"
    # Peak learning rate for the global batch.
    lr: float = Field(gt=0.0)
    factor: float = Field(0.1, gt=0.0, lt=1.0)
    every: int | None = Field(None, ge=1, le=STEPS)
    at: Annotated[tuple[Annotated[int, Field(ge=0, le=STEPS)], ...], Strict(False)] = ()
    drops: int | None = Field(None, ge=1, le=STEPS)
    # Linear from `warmup_lr` to `lr` over this many steps.
    warmup: int = Field(0, ge=0, le=STEPS)
    warmup_lr: float = Field(0.0, ge=0.0)

    @model_validator(mode="after")
    def complete(self) -> "Schedule":
        needs = {"exponential": "every", "steps": "at", "equal": "drops"}.get(self.name)
        if needs and not getattr(self, needs):
            raise ValueError(f"schedule '{self.name}' needs the key '{needs}'")
        if list(self.at) != sorted(set(self.at)):
            raise ValueError(f"'at' must rise strictly, found {list(self.at)}")
        return self


class Train(Section):
    # Length of the run.
    steps: int = Field(ge=1, le=STEPS)
    # Samples of one step over all ranks; a multiple of the number of ranks.
    batch: int = Field(ge=1, le=COUNT)
    # Decides the order of samples, crops and mirrors, and the first weights of the model.
    seed: Seed = 0
    # bfloat16: forward and backward; weights and optimizer stay float32.
    precision: Literal["float32", "bfloat16"] = "float32"
    # Where the model runs; auto: on the GPU of this rank if there is one, else on the CPU.
    device: Literal["auto", "cpu", "cuda"] = "auto"
    # Compute threads of one rank on the CPU; 0: the cores of the node, divided among its ranks.
    threads: int = Field(0, ge=0, le=1024)
    log_every: int = Field(10, ge=1, le=STEPS)
    checkpoint_every: int = Field(1000, ge=1, le=STEPS)
    # How many checkpoints are kept: the newest.
    keep: int = Field(3, ge=1, le=STEPS)
    # Evaluate after this many steps, and after the last; 0: only after the last.
    evaluate_every: int = Field(0, ge=0, le=STEPS)
    tensorboard: bool = False


class Watchdog(Section):
    # A rank that hangs would hold the job until its time limit. So the process ends if a step takes longer
    # than both `floor` and `multiple` allow. It writes the stacks of all threads to a file, and the job is
    # requeued.
    # Seconds that any step may take; 0 turns the watchdog off.
    floor: float = Field(120.0, ge=0.0, le=SECONDS)
    # How many times the median of the steps before it a step may take.
    multiple: float = Field(20.0, ge=1.0, le=COUNT)
    # Seconds for everything else: all that happens before the second step, an evaluation, a checkpoint.
    patience: float = Field(1800.0, gt=0.0, le=SECONDS)


class Divergence(Section):
    # A step is bad if its loss or gradients are NaN or infinite, or if its loss is a spike. All ranks skip a
    # bad step: weights and optimizer stay as they were, its samples are logged, and it counts as a step.
    # A loss is a spike if it is above this many times the median of the last `window` steps; 0: never. The
    # default is 0, because how far a loss swings depends on loss and batch, and papers do not skip steps.
    spike: float = Field(0.0, ge=0.0)
    window: int = Field(100, ge=1, le=COUNT)
    # If more than this many steps are skipped within `window`, the weights go back to the last checkpoint
    # before these steps. Training goes on with the samples that come next; it does not repeat earlier ones.
    skips: int = Field(3, ge=0, le=COUNT)
    # How often a run may go back; if it would have to once more, it stops with exit code 1.
    rollbacks: int = Field(2, ge=0, le=COUNT)


class Config(Section):
    data: Data
    input: Input = Input()
    model: Model = Model()
    loss: Loss = Loss()
    optimizer: Optimizer = Optimizer()
    schedule: Schedule
    train: Train
    divergence: Divergence = Divergence()
    watchdog: Watchdog = Watchdog()


def load(file: Path, overrides: Iterable[str] = ()) -> Config:
    """Read a TOML recipe, apply `section.key=value` overrides and check everything.

    A plain file name that does not exist here is searched among the recipes of the package. Values of
    overrides are TOML; other text is taken as a string, so that paths need no quotes. Raises ConfigError with
    every problem found, each with its place.
    """
    if not file.exists() and file.parent == Path() and (RECIPES / file.name).exists():
        file = RECIPES / file.name
    values = read_toml(file)
    for override in overrides:
        override_into(values, override)
    return check(Config, values, str(file))


def share(settings: Config, ranks: int) -> int:
    """Samples of one rank in one step. Raises ConfigError if the ranks cannot have equally many."""
    batch = settings.train.batch
    if batch % ranks:
        raise ConfigError(
            f"train.batch is {batch}, which {ranks} ranks cannot share: choose a multiple of {ranks}"
        )
    return batch // ranks


def read_toml(file: Path) -> dict[str, Any]:
    try:
        return parse_toml(files.read_text(file, RECIPE_BYTES), str(file))
    except (OSError, FileError) as error:
        raise ConfigError(f"{file}: cannot be read: {error}") from None


def parse_toml(text: str, where: str) -> dict[str, Any]:
    """Raises ConfigError, also for text that is nested too deep and for numbers of thousands of digits."""
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ConfigError(f"{where}: not TOML that can be read: nested too deep") from None
    except ValueError as error:
        raise ConfigError(f"{where}: not TOML: {error}") from None


def check(model: type[M], values: Mapping[str, Any], where: str) -> M:
    """Turn plain values into a model. ConfigError lists all problems; where: names their origin in it."""
    try:
        return model.model_validate(values)
    except RecursionError:
        raise ConfigError(f"{where}: nested too deep") from None
    except ValidationError as error:
        lines = [f"{where}: {error.error_count()} problem(s)"]
        for problem in error.errors():
            key = ".".join(str(part) for part in problem["loc"])
            if problem["type"] == "extra_forbidden":
                known = _known(model, problem["loc"][:-1])
                lines.append(f"  {key}: unknown key; known are {', '.join(known)}")
            elif problem["type"] == "missing":
                lines.append(f"  {key}: missing")
            else:
                said = "a path must be a text" if problem["type"] == "path_type" else problem["msg"]
                lines.append(f"  {key}: {said}; found {problem['input']!r:.80}")
        raise ConfigError("\n".join(lines)) from None


def override_into(values: dict[str, Any], override: str) -> None:
    """Apply one `section.key=value` to nested values, in place. Raises ConfigError."""
    key, equals, text = override.partition("=")
    *sections, last = key.strip().split(".")
    shown = f"--set {override!r:.80}"
    if not equals or not last or not all(sections):
        raise ConfigError(f"{shown}: expected section.key=value")
    if "\n" in text or "\r" in text:
        raise ConfigError(f"{shown}: a line break in the value; give each key a --set of its own")
    for section in sections:
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            raise ConfigError(f"{shown}: '{section}' is a value, not a section")
    values[last] = _value(text, shown)


def _value(text: str, where: str) -> Any:
    """The text as a TOML value, if it is one without anything else (such as a comment); else the text."""
    try:
        found = tomllib.loads(f"value = [{text}]")["value"]
    except RecursionError:
        raise ConfigError(f"{where}: nested too deep") from None
    except tomllib.TOMLDecodeError:
        return text
    except ValueError as error:  # a number of thousands of digits
        raise ConfigError(f"{where}: {error}") from None
    return found[0] if len(found) == 1 and not text.rstrip().endswith(",") else text


def dump(config: Config) -> str:
    """The resolved configuration as JSON text. `read` gives the same Config back."""
    # Not pydantic's own JSON text, which cannot hold a path that is not UTF-8.
    return json.dumps(config.model_dump(mode="json"), indent=2) + "\n"


def read(file: Path) -> Config:
    """Read the resolved JSON of a run folder. Raises ConfigError."""
    try:
        values = files.read_json(file, RECIPE_BYTES)
    except (OSError, FileError) as error:
        raise ConfigError(f"{file}: cannot be read: {error}") from None
    return check(Config, values, str(file))


def _known(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    for part in location:
        annotation = model.model_fields[str(part)].annotation
        # A section, or `Section | None`.
        model = next(kind for kind in (annotation, *get_args(annotation)) if isinstance(kind, type))
    return list(model.model_fields)
