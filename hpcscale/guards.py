"""The keys of a recipe that say when a step or a run is given up: its sections watchdog and divergence.

Out: models for config.py. What they say is done in train/.
"""

from typing import Annotated

from pydantic import Field

from hpcscale.sections import MAY_CHANGE, Section

# Upper limits catch typing errors; no machine comes near them.
SECONDS = 10_000_000.0  # four months
COUNT = 1_000_000


class Watchdog(Section):
    # A rank that hangs would hold the job until its time limit. So the process ends if a step takes longer
    # than both `floor` and `multiple` allow. It writes the stacks of all threads to a file, and the job is
    # requeued.
    # Seconds that any step may take; 0 turns the watchdog off.
    floor: Annotated[float, MAY_CHANGE] = Field(120.0, ge=0.0, le=SECONDS)
    # How many times the median of the steps before it a step may take.
    multiple: Annotated[float, MAY_CHANGE] = Field(20.0, ge=1.0, le=COUNT)
    # Seconds for everything else: all that happens before the second step, an evaluation, a checkpoint.
    patience: Annotated[float, MAY_CHANGE] = Field(1800.0, gt=0.0, le=SECONDS)


class Divergence(Section):
    # A step is bad if its loss or gradients are NaN or infinite, or if its loss is a spike. All ranks skip a
    # bad step: weights and optimizer stay as they were, its samples are logged, and it counts as a step.
    # A loss is a spike if it is above this many times the median of the last `window` steps; 0: never. The
    # default is 0, because how far a loss swings depends on loss and batch, and papers do not skip steps.
    spike: Annotated[float, MAY_CHANGE] = Field(0.0, ge=0.0)
    window: Annotated[int, MAY_CHANGE] = Field(100, ge=1, le=COUNT)
    # If more than this many steps are skipped within `window`, the weights go back to the last checkpoint
    # before these steps. Training goes on with the samples that come next; it does not repeat earlier ones.
    skips: Annotated[int, MAY_CHANGE] = Field(3, ge=0, le=COUNT)
    # How often a run may go back; if it would have to once more, it stops with exit code 1.
    rollbacks: Annotated[int, MAY_CHANGE] = Field(2, ge=0, le=COUNT)
