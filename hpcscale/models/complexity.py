"""Parameters and multiply-adds of a network from its shapes alone; nothing is built, no torch imported."""

from collections.abc import Iterator
from typing import NamedTuple

from hpcscale import config
from hpcscale.models.shapes import SHAPES, blocks


class Convolution(NamedTuple):
    inputs: int
    outputs: int
    kernel: int
    groups: int
    side: int  # of the output map, pixels

    @property
    def weights(self) -> int:
        return self.inputs // self.groups * self.outputs * self.kernel**2


def convolutions(model: config.Model, side: int) -> Iterator[Convolution]:
    """Every convolution of a network that sees pictures of `side` pixels."""
    side = -(-side // 2)  # 7x7, stride 2, padding 3
    root = SHAPES[model.name].root
    yield Convolution(3, root, 7, 1, side)
    side = -(-side // 2)  # max pooling
    for block in blocks(model):
        first = -(-side // block.strides[0])
        side = -(-first // block.strides[1])
        yield Convolution(block.inputs, block.inner, 1, 1, first)
        yield Convolution(block.inner, block.inner, 3, block.groups, side)
        yield Convolution(block.inner, block.outputs, 1, 1, side)
        if block.projected:
            yield Convolution(block.inputs, block.outputs, 1, 1, side)


def parameters(model: config.Model, classes: int) -> int:
    """Trained numbers: convolutions, scale and shift of every normalisation, classifier with bias."""
    shape = SHAPES[model.name]
    weights = sum(c.weights for c in convolutions(model, 224))
    return weights + 2 * normalised(model) + (shape.features + 1) * classes


def normalised(model: config.Model) -> int:
    """Channels of all normalisations together."""
    shape = SHAPES[model.name]
    if not shape.preactivated:
        return sum(c.outputs for c in convolutions(model, 224))
    return sum(block.inputs + 2 * block.inner for block in blocks(model)) + shape.features


def multiply_adds(model: config.Model, classes: int, side: int) -> int:
    """Multiply-adds of convolutions and classifier for one picture of side x side pixels."""
    body = sum(c.weights * c.side**2 for c in convolutions(model, side))
    return body + SHAPES[model.name].features * classes
