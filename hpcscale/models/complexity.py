"""Parameters, multiply-adds and activations of a network from its shapes alone; no torch imported."""

from collections.abc import Iterator
from typing import NamedTuple

from hpcscale import config
from hpcscale.models.shapes import SHAPES, blocks


class Convolution(NamedTuple):
    inputs: int  # channels
    outputs: int
    kernel: int
    groups: int
    seen: int  # side of the map that it reads, pixels
    side: int  # of the map that it writes
    shortcut: bool = False  # the projection beside a block

    @property
    def weights(self) -> int:
        return self.inputs // self.groups * self.outputs * self.kernel**2

    @property
    def reads(self) -> int:
        """Numbers, of one picture."""
        return self.inputs * self.seen**2

    @property
    def writes(self) -> int:
        """Numbers, of one picture."""
        return self.outputs * self.side**2


class Sizes(NamedTuple):
    parameters: int
    body_parameters: int  # without the classifier
    multiply_adds: int  # for one picture
    activations: int  # of one picture


def sizes(model: config.Model, classes: int, side: int) -> Sizes:
    """Of a network that sees pictures of side x side pixels."""
    return Sizes(
        parameters(model, classes),
        parameters(model, 0),
        multiply_adds(model, classes, side),
        activations(model, side),
    )


def convolutions(model: config.Model, side: int) -> Iterator[Convolution]:
    """Every convolution of a network that sees pictures of `side` pixels."""
    root, half = SHAPES[model.name].root, -(-side // 2)
    yield Convolution(3, root, 7, 1, side, half)  # stride 2, padding 3
    seen = -(-half // 2)  # max pooling
    for block in blocks(model):
        first = -(-seen // block.strides[0])
        last = -(-first // block.strides[1])
        yield Convolution(block.inputs, block.inner, 1, 1, seen, first)
        yield Convolution(block.inner, block.inner, 3, block.groups, first, last)
        yield Convolution(block.inner, block.outputs, 1, 1, last, last)
        if block.projected:
            yield Convolution(block.inputs, block.outputs, 1, 1, seen, last, shortcut=True)
        seen = last


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


def activations(model: config.Model, side: int) -> int:
    """Numbers that the convolutions write for one picture of side x side pixels: what Radosavovic et al. 2020
    (section 4), pycls and timm call activations. Normalisations, ReLUs and the classifier are not counted.
    """
    return sum(c.writes for c in convolutions(model, side))
