"""Memory of a training step on one rank, from shapes alone: nothing is built, no torch imported.

In: a network, and how it is trained. Out: bytes. What forward keeps for backward is counted as torch keeps it
on a CPU: a convolution what it reads, a normalisation what it reads and its statistics, a ReLU, which works
in place, what it gives.
"""

import math
from typing import Literal, NamedTuple, get_args

from hpcscale import config
from hpcscale.models import complexity
from hpcscale.models.shapes import GROUPS, SHAPES

WIDE = 4  # bytes of a number that stays float32: weights, gradients, statistics, what a loss computes
# Bytes of a number of a map, by `train.precision`.
BYTES = {
    name: WIDE if name == "float32" else 2
    for name in get_args(config.Train.model_fields["precision"].annotation)
}
INDEX = 8  # bytes of an index, which a pooling keeps for each number that it gives
# Numbers that an optimizer has for each parameter.
STATE = {"sgd": 1, "rmsprop": 2}
# Batches of bytes: so many are decoded ahead while the network has one.
AHEAD = config.Input.model_fields["prefetch"].default + 1


class Step(NamedTuple):
    """How a network is trained."""

    classes: int
    side: int  # of a picture, pixels
    batch: int  # pictures of one rank at once
    precision: str = "float32"  # of BYTES
    optimizer: str = "sgd"  # of STATE, with momentum
    loss: Literal["logistic", "softmax"] = "logistic"
    slices: int = 1  # ranks over which the classifier is divided
    decay_to: Literal["zero", "initial"] = "zero"  # of weight decay; initial: the first weights are kept


class Memory(NamedTuple):
    """Bytes on one rank."""

    weights: int  # float32; running averages with the copy that a bad step is undone by
    gradients: int  # in the buckets in which ranks sum them
    optimizer: int
    activations: int  # what forward keeps for backward
    inputs: int  # pictures as bytes, decoded ahead, and as the network reads them
    targets: int  # rows of two steps

    @property
    def total(self) -> int:
        return sum(self)


def needed(model: config.Model, step: Step) -> Memory:
    """Memory of a training step. The libraries themselves, the data set's tables, and what an operation needs
    while it runs come on top."""
    shape = SHAPES[model.name]
    rows = math.ceil(step.classes / step.slices)
    trained = complexity.parameters(model, rows)
    averages = 0 if shape.preactivated else 2 * complexity.normalised(model)
    anchored = complexity.parameters(model, 0) - 2 * complexity.normalised(model)
    pixels = 3 * step.side**2 * step.batch
    return Memory(
        WIDE * (trained + 2 * averages),
        WIDE * trained,
        WIDE * (trained * STATE[step.optimizer] + anchored * (step.decay_to == "initial")),
        kept(model, step),
        AHEAD * pixels + WIDE * pixels,
        2 * WIDE * step.batch * step.slices * rows,
    )


def kept(model: config.Model, step: Step) -> int:
    """Bytes that forward keeps for backward, without parameters, targets, and pictures of float32."""
    shape, size = SHAPES[model.name], BYTES[step.precision]
    low = size < WIDE
    root, *rest = complexity.convolutions(model, step.side)
    straight = [c for c in rest if not c.shortcut]
    pooled = root.outputs * math.ceil(root.side / 2) ** 2
    scales = complexity.normalised(model)
    weights = sum(c.weights for c in (root, *rest))
    if shape.preactivated:
        # All that convolutions read and write, where normalisation and ReLU stand before each; the last pair
        # stands alone. The root is padded before it is pooled. A projection reads what its block does, and
        # what it writes is only added.
        maps = sum(c.reads + c.writes for c in straight) + straight[-1].writes
        maps += root.outputs * (root.side + 2) ** 2
        filters = root.outputs + sum(c.outputs for c in rest)
        statistics = 2 * (GROUPS * len(straight) + GROUPS) * step.batch + 2 * filters
        copies = weights * size  # standardised
    else:
        # What a convolution writes, and after the normalisation once more; of a projection the first alone.
        maps = 2 * (root.writes + sum(c.writes for c in straight)) + sum(c.writes for c in rest if c.shortcut)
        statistics = 2 * scales
        copies = weights * size if low else 0
    maps += pooled
    if low:
        maps += 3 * step.side**2
        copies += size * shape.features * math.ceil(step.classes / step.slices)
    return step.batch * (size * maps + INDEX * pooled) + WIDE * statistics + copies + head(model, step)


def head(model: config.Model, step: Step) -> int:
    """Bytes of features and logits that are kept: of all ranks' pictures where the classifier is divided."""
    pictures = step.batch * step.slices
    logits = pictures * math.ceil(step.classes / step.slices)
    # A divided softmax keeps them for its own share of the sum, and for what other slices add to it.
    times = 2 if step.slices > 1 and step.loss == "softmax" else 1
    return BYTES[step.precision] * pictures * SHAPES[model.name].features + WIDE * times * logits
