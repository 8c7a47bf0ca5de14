"""The keys of a recipe that say how weights are changed: its sections optimizer and schedule.

Out: models for config.py. What they say is computed in train/optim.py and train/schedule.py.
"""

from typing import Annotated, Literal

from pydantic import Field, Strict, model_validator

from hpcscale.sections import Section

# Upper limits catch typing errors; no machine comes near them.
STEPS = 99_999_999  # the eight digits of a checkpoint's name
Step = Annotated[int, Field(ge=1, le=STEPS)]


class Optimizer(Section):
    name: Literal["sgd", "rmsprop"] = "sgd"
    momentum: float = Field(0.9, ge=0.0, lt=1.0)
    # SGD only.
    nesterov: bool = False
    # RMSProp only: decay of the mean square, and the epsilon inside the root (TensorFlow's form).
    decay: float = Field(0.9, ge=0.0, lt=1.0)
    epsilon: float = Field(1.0, gt=0.0)
    # Momentum is of gradients, and the rate of a step acts on all of it. RMSProp has the rate inside its
    # momentum, where a changed rate reaches only what is added later; true corrects that (Goyal et al. 2017,
    # section 3: equation 10 with the correction is equation 9). SGD here is equation 9 with either value.
    momentum_correction: bool = False
    # L2 on weights; biases and batch normalisation are left out.
    weight_decay: float = Field(1e-4, ge=0.0)
    # Gradients of a step whose norm, over all weights together, is above this are scaled down to it, before
    # decay is added; 0: never.
    clip: float = Field(0.0, ge=0.0)
    # Where it pulls: to zero, or to the weights that the run began with (L2-SP, Li et al. 2018), by
    # weight_decay * (w - w0), and the classifier nowhere. Costs memory for one more copy of the weights.
    decay_to: Literal["zero", "initial"] = "zero"


class Schedule(Section):
    # constant      stays `lr`
    # exponential   times `factor` every `every` steps
    # steps         times `factor` at each step of `at`
    # equal         times `factor` at `drops` equally spaced steps
    # cosine        falls to zero at the last step
    # polynomial    falls to zero at the last step, as (1 - steps done / steps) ** `power` (Chen et al. 2018,
    #               "DeepLab", section 4.2)
    name: Literal["constant", "exponential", "steps", "equal", "cosine", "polynomial"] = "constant"
    # Peak learning rate for the global batch.
    lr: float = Field(gt=0.0)
    factor: float = Field(0.1, gt=0.0, lt=1.0)
    every: int | None = Field(None, ge=1, le=STEPS)
    at: Annotated[tuple[Annotated[int, Field(ge=0, le=STEPS)], ...], Strict(False)] = ()
    drops: int | None = Field(None, ge=1, le=STEPS)
    power: float = Field(0.9, gt=0.0)
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
