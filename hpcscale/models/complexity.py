"""Parameters and multiply-adds of a network from its shapes alone; nothing is built, no torch imported."""

from collections.abc import Iterator
from typing import NamedTuple

# Blocks of the four stages.
STAGES = {"resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3), "resnet152": (3, 8, 36, 3)}


class Convolution(NamedTuple):
    inputs: int
    outputs: int
    kernel: int
    side: int  # of the output map, pixels


def convolutions(name: str, side: int) -> Iterator[Convolution]:
    """Every convolution of a ResNet that sees pictures of `side` pixels, each followed by a normalisation."""
    side = (side + 1) // 2  # 7x7, stride 2, padding 3
    yield Convolution(3, 64, 7, side)
    side = (side + 1) // 2  # max pooling
    inputs = 64
    for stage, blocks in enumerate(STAGES[name]):
        width = 64 << stage
        for block in range(blocks):
            yield Convolution(inputs, width, 1, side)
            if stage > 0 and block == 0:
                side = (side + 1) // 2
            yield Convolution(width, width, 3, side)
            yield Convolution(width, 4 * width, 1, side)
            if block == 0:
                yield Convolution(inputs, 4 * width, 1, side)
            inputs = 4 * width


def parameters(name: str, classes: int) -> int:
    """Trained numbers: convolutions, scale and shift of every normalisation, classifier with bias."""
    body = sum(c.inputs * c.outputs * c.kernel**2 + 2 * c.outputs for c in convolutions(name, 224))
    return body + (2048 + 1) * classes


def multiply_adds(name: str, classes: int, side: int) -> int:
    """Multiply-adds of convolutions and classifier for one picture of side x side pixels."""
    body = sum(c.inputs * c.outputs * c.kernel**2 * c.side**2 for c in convolutions(name, side))
    return body + 2048 * classes
