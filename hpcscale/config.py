"""The configuration of a run: TOML in, `--set key=value` on top, resolved JSON in the run folder.

Every key is a commented field, here or in choice.py, view.py, descent.py or guards.py; an unknown key is an
error.
Recipes are files in `configs/`; their headers state the command and the expected result. Lengths are in steps
and batch sizes are global (over all ranks), so that a recipe means the same with any number of ranks.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal, TypeVar, get_args

from pydantic import Field, Strict, model_validator

from hpcscale import catalogue, files
from hpcscale.choice import Data as Data
from hpcscale.choice import Noise as Noise
from hpcscale.choice import Sampling as Sampling
from hpcscale.choice import Selection as Selection
from hpcscale.descent import STEPS as STEPS
from hpcscale.descent import Optimizer as Optimizer
from hpcscale.descent import Schedule as Schedule
from hpcscale.descent import Step as Step
from hpcscale.files import FileError
from hpcscale.guards import COUNT
from hpcscale.guards import Divergence as Divergence
from hpcscale.guards import Watchdog as Watchdog
from hpcscale.sections import MAY_CHANGE, MOST, Place, Section, Seed, check, find, override_into, read_toml
from hpcscale.sections import ConfigError as ConfigError  # for readers, who need nothing else of sections.py
from hpcscale.view import SIDE as SIDE
from hpcscale.view import Evaluate as Evaluate
from hpcscale.view import Input as Input
from hpcscale.view import of_evaluation

RECIPES = Path(__file__).parent / "configs"
# The sets that a run is evaluated on; the set that judges a run best comes first.
Which = Literal["validation", "held_out", "train"]
SETS: tuple[Which, ...] = get_args(Which)


class Model(Section):
    name: Literal[
        "resnet50",
        "resnet101",
        "resnet152",
        "resnext101_32x4d",
        "resnext101_32x8d",
        "resnext101_32x16d",
        "resnext101_32x32d",
        "resnext101_32x48d",
        "bit_r50x1",
        "bit_r50x3",
        "bit_r101x1",
        "bit_r101x3",
        "bit_r152x2",
        "bit_r152x4",
    ] = "resnet50"
    # Which convolution of a block has its stride: the 3x3 (Goyal et al. 2017, torchvision, BiT) or the first
    # 1x1 (He et al. 2016). The weights have the same shapes, and are of no use with the other.
    stride: Literal["3x3", "1x1"] = "3x3"
    # How many times smaller the last maps are than the picture. Below 32, the last stages dilate their 3x3
    # convolutions instead of taking a stride.
    output_stride: Literal[32, 16, 8] = 32
    # Start value of every bias of the classifier. With many classes and logistic loss, log(p / (1 - p)) of a
    # typical class frequency p saves a first phase that only learns "nothing is there". big_vision uses -10
    # for 21k classes.
    head_bias: float = 0.0
    # Start the last batch normalisation of every block at zero (Goyal et al. 2017, 5.1); BiT has none.
    zero_init_residual: bool = True
    # none: every rank has the whole classifier. ranks: its classes are divided over ranks, so that neither
    # its weights nor their gradients nor logits travel, but features (Sun et al. 2017, section 4.1). The same
    # numbers but for rounding; worth it where the global batch has fewer pictures than there are classes.
    # Checkpoints are the same.
    slices: Annotated[Literal["none", "ranks"], MAY_CHANGE] = "none"
    # Weights to start from instead of random ones: a run folder (its newest checkpoint), one of its
    # checkpoints, or a file of tensors (.safetensors, .pth, .pt, .npz). docs/models.md has the details.
    init: Place | None = None
    # The classifier. new: fresh weights. keep: that of `init`, whose classes must be the same. zero: weights
    # of zero (Kolesnikov et al. 2020, when a network is transferred).
    head: Literal["new", "keep", "zero"] = "new"
    # Share of the features before the classifier that a step drops, the rest scaled up (Srivastava et al.
    # 2014): in training only.
    dropout: float = Field(0.0, ge=0.0, lt=1.0)
    # Parts that are not trained, by how the names of their parameters begin, such as ["conv1", "bn1",
    # "layer1"]; their batch normalisations use, and keep, the averages that they have.
    freeze: Annotated[tuple[str, ...], Strict(False)] = ()

    @model_validator(mode="after")
    def consistent(self) -> "Model":
        if self.head == "keep" and self.init is None:
            raise ValueError("head = 'keep' needs the key 'init', whose classifier it keeps")
        return self


class Loss(Section):
    # logistic: one binary problem per class, summed over classes (Sun et al. 2017, section 4.1).
    # softmax: cross-entropy with 1/k targets for k labels (Mahajan et al. 2018, section 2.3).
    name: Literal["logistic", "softmax"] = "logistic"


class Train(Section):
    # Length of the run.
    steps: int = Field(ge=1, le=STEPS)
    # Samples of one step over all ranks; a multiple of the number of ranks.
    batch: int = Field(ge=1, le=COUNT)
    # Parts in which a rank computes its samples of a step, one after the other, where its memory does not
    # hold them all. Batch normalisation sees a part.
    accumulate: int = Field(1, ge=1, le=COUNT)
    # Decides the order of samples, crops and mirrors, and the first weights of the model.
    seed: Seed = 0
    # bfloat16, float16: forward and backward; weights and optimizer stay float32. float16 scales the loss,
    # and skips the few steps in which a scale turns out to be too large; it was never run on a GPU.
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    # How gradients travel between ranks: none: as float32. Half as many bytes, added as float32 and rounded
    # twice: bfloat16 keeps 8 bits of a number; float16 keeps 11, but loses those below 6e-8, and those above
    # 65,504 spoil the step. Sums then wait for the end of backward, also on a GPU.
    compress: Literal["none", "float16", "bfloat16"] = "none"
    # Decay of an average of the weights over the steps (Polyak averaging), which is what is evaluated and
    # what all who read a checkpoint get; 0: none. 0.9999 is usual.
    average: float = Field(0.0, ge=0.0, lt=1.0)
    # MixUp (Zhang et al. 2018): pictures and targets are mixed with others of the same part of a batch, by a
    # share from Beta(mixup, mixup), one a step; 0: none. BiT transfers with 0.1.
    mixup: float = Field(0.0, ge=0.0, le=1.0)
    # Where the model runs; auto: on the GPU of this rank if there is one, else on the CPU.
    device: Literal["auto", "cpu", "cuda"] = "auto"
    # Compute threads of one rank on the CPU; 0: the cores of the node, divided among its ranks.
    threads: Annotated[int, MAY_CHANGE] = Field(0, ge=0, le=1024)
    log_every: Annotated[int, MAY_CHANGE] = Field(10, ge=1, le=STEPS)
    checkpoint_every: Annotated[int, MAY_CHANGE] = Field(1000, ge=1, le=STEPS)
    # How many checkpoints are kept: the newest.
    keep: Annotated[int, MAY_CHANGE] = Field(3, ge=1, le=STEPS)
    # Steps after which a checkpoint is written that always stays, beside those.
    keep_at: Annotated[tuple[Step, ...], Strict(False), MAY_CHANGE] = ()
    # Evaluate after this many steps, and after the last; 0: only after the last.
    evaluate_every: Annotated[int, MAY_CHANGE] = Field(0, ge=0, le=STEPS)
    tensorboard: Annotated[bool, MAY_CHANGE] = False


class Ranks(Section):
    # The library that connects the ranks: Horovod, or torch.distributed (Gloo on the CPU, NCCL on GPUs). Two
    # ranks get the same bits from both. A job's site may overrule it (`backend` there).
    backend: Annotated[Literal["horovod", "torch"], MAY_CHANGE] = "horovod"


class Downpour(Section):
    # Emulate asynchronous training (Sun et al. 2017, section 4.1): so many workers take turns, a step each,
    # and compute gradients of the weights that they last fetched. 0: synchronous. Costs memory, and room in
    # checkpoints, for the weights of every worker.
    workers: int = Field(0, ge=0, le=10_000)
    # A worker fetches weights after so many steps of its own, and pushes the sum of its gradients after so
    # many.
    fetch: int = Field(1, ge=1, le=COUNT)
    push: int = Field(1, ge=1, le=COUNT)

    @model_validator(mode="after")
    def consistent(self) -> "Downpour":
        if not self.workers and (self.fetch > 1 or self.push > 1):
            raise ValueError("'fetch' and 'push' are of workers: set 'workers'")
        return self


class Training(Section):
    """What a training has whatever its task; train.loop needs no more."""

    model: Model = Model()
    optimizer: Optimizer = Optimizer()
    schedule: Schedule
    train: Train
    ranks: Ranks = Ranks()
    downpour: Downpour = Downpour()
    divergence: Divergence = Divergence()
    watchdog: Watchdog = Watchdog()

    @model_validator(mode="after")
    def clipped_alike(self) -> "Training":
        if self.optimizer.clip and self.model.slices != "none":
            raise ValueError("optimizer.clip: no rank knows the norm of all gradients with model.slices")
        return self


class Config(Training):
    """Of classification."""

    data: Data
    selection: Selection = Selection()
    # Which samples of data.validation are used.
    validation: Selection = Selection()
    noise: Noise = Noise()
    sampling: Sampling = Sampling()
    input: Input = Input()
    evaluate: Evaluate = Evaluate()
    loss: Loss = Loss()

    @model_validator(mode="after")
    def consistent(self) -> "Config":
        if self.data.block is not None and self.sampling.name != "natural":
            raise ValueError(
                f"data.block: samples in blocks come as they lie, which sampling.name = "
                f"'{self.sampling.name}' does not allow; leave one of the two out"
            )
        if self.validation != Selection() and self.data.validation is None:
            raise ValueError("validation: needs data.validation, of which it selects")
        if self.validation.classes is not None:
            raise ValueError("validation.classes: the classes are those of the selection that is trained on")
        of_evaluation(self.input, self.evaluate)
        return self


T = TypeVar("T", bound=Training)


def load(file: Path, overrides: Iterable[str] = ()) -> Config:
    """Read a TOML recipe, apply `section.key=value` overrides, look names up in the catalogue (catalogue.py)
    and check everything.

    A plain file name that does not exist here is searched among the recipes of the package. Values of
    overrides are TOML; other text is taken as a string, so that paths need no quotes. Raises ConfigError with
    every problem found, each with its place.
    """
    return load_from(file, overrides)[0]


def load_from(file: Path, overrides: Iterable[str] = ()) -> tuple[Config, list[Path]]:
    """`load`, and the user's files that it read: the recipe, unless it is the package's, and the catalogue,
    if it was needed."""
    found = find(file, RECIPES)
    read = [file] if found == file else []
    file, values = found, read_toml(found)
    for override in overrides:
        override_into(values, override)
    if (used := catalogue.fill(values)) is not None:
        read.append(used)
    return check(Config, values, str(file)), read


def samples_of_rank(settings: Training, ranks: int) -> int:
    """Samples of one rank in one step. Raises ConfigError if ranks or parts cannot have equally many."""
    batch, parts = settings.train.batch, settings.train.accumulate
    if batch % ranks:
        raise ConfigError(
            f"train.batch is {batch}, which {ranks} ranks cannot share: choose a multiple of {ranks}"
        )
    if batch // ranks % parts:
        raise ConfigError(
            f"train.accumulate is {parts}, but a rank has {batch // ranks} samples of a step "
            f"(train.batch {batch}, {ranks} ranks): choose a divisor of that"
        )
    return batch // ranks


def seen(settings: Config) -> Input:
    """How pictures come to a model that is judged, or described by: `input`, with what `evaluate` says."""
    return of_evaluation(settings.input, settings.evaluate)


def dump(config: Training) -> str:
    """The resolved configuration as JSON text. `read` gives the same back."""
    # Not pydantic's own JSON text, which cannot hold a path that is not UTF-8.
    return json.dumps(config.model_dump(mode="json"), indent=2) + "\n"


def read(file: Path) -> Config:
    """Read the resolved JSON of a run folder. Raises ConfigError, also where it is of another task."""
    return read_as(file, Config)


def read_as(file: Path, kind: type[T]) -> T:
    """The same of another task."""
    try:
        values = files.read_json(file, MOST)
    except (OSError, FileError) as error:
        raise ConfigError(f"{file}: cannot be read: {error}") from None
    return check(kind, values, str(file))
