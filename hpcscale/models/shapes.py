"""The shapes of the networks by name: channels, strides and dilations of every block; no torch imported.

In: `[model]` of a recipe. Out: blocks, of which resnet.py and bit.py build, and which complexity.py counts.
"""

from collections.abc import Iterator
from itertools import chain
from typing import NamedTuple

from hpcscale import config

GROUPS = 32  # of a group normalisation


class Shape(NamedTuple):
    """Four stages of bottleneck blocks after a root of a 7x7 convolution and a pooling, each of stride 2."""

    stages: tuple[int, int, int, int]  # blocks
    inner: int = 64  # channels within a block of the first stage, over all groups; twice that in each next
    groups: int = 1  # of the 3x3 convolution
    root: int = 64  # channels of the root
    # Version 2 (BiT): group normalisation and ReLU before each convolution of a block, and after the last
    # block; else batch normalisation after each convolution.
    preactivated: bool = False

    @property
    def features(self) -> int:
        """Channels of the last maps."""
        return 4 * self.root << 3


class Block(NamedTuple):
    """1x1, 3x3 and 1x1 convolutions beside a shortcut."""

    inputs: int  # channels
    inner: int
    outputs: int
    groups: int
    strides: tuple[int, int]  # of the first two convolutions; their product is the block's
    dilation: int  # of the 3x3 convolution
    projected: bool  # the shortcut is a 1x1 convolution, since the shape changes


RESNET_50, RESNET_101, RESNET_152 = (3, 4, 6, 3), (3, 4, 23, 3), (3, 8, 36, 3)  # He et al. 2016, table 1
# ResNeXt 32xCd (Xie et al. 2017, with the widths of Mahajan et al. 2018): 32 groups of C channels.
# BiT RNxF (Kolesnikov et al. 2020): F times as many channels everywhere.
SHAPES = {
    "resnet50": Shape(RESNET_50),
    "resnet101": Shape(RESNET_101),
    "resnet152": Shape(RESNET_152),
    **{f"resnext101_32x{c}d": Shape(RESNET_101, 32 * c, 32) for c in (4, 8, 16, 32, 48)},
    "bit_r50x1": Shape(RESNET_50, preactivated=True),
    "bit_r50x3": Shape(RESNET_50, 64 * 3, 1, 64 * 3, preactivated=True),
    "bit_r101x1": Shape(RESNET_101, preactivated=True),
    "bit_r101x3": Shape(RESNET_101, 64 * 3, 1, 64 * 3, preactivated=True),
    "bit_r152x2": Shape(RESNET_152, 64 * 2, 1, 64 * 2, preactivated=True),
    "bit_r152x4": Shape(RESNET_152, 64 * 4, 1, 64 * 4, preactivated=True),
}


def stages(model: config.Model) -> Iterator[list[Block]]:
    """The blocks of each stage.

    A stage but the first begins with a stride of 2. Where the maps are already `output_stride` times smaller
    than the picture, it dilates the 3x3 convolutions that follow that stride instead: the same weights then
    give the same maps at every 2nd place, and others between (BiT: nearly so, see docs/papers.md).
    """
    shape = SHAPES[model.name]
    inputs, total, dilation = shape.root, 4, 1
    for stage, count in enumerate(shape.stages):
        stride = 2 if stage else 1
        before = dilation
        if total * stride > model.output_stride:
            dilation, stride = dilation * stride, 1
        total *= stride
        # A stride on the 3x3 is after its window, one on the 1x1 before it.
        first = (1, stride) if model.stride == "3x3" else (stride, 1)
        near = before if model.stride == "3x3" else dilation
        inner, outputs = shape.inner << stage, 4 * shape.root << stage
        rest = Block(outputs, inner, outputs, shape.groups, (1, 1), dilation, projected=False)
        yield [
            Block(inputs, inner, outputs, shape.groups, first, near, projected=True),
            *[rest] * (count - 1),
        ]
        inputs = outputs


def blocks(model: config.Model) -> Iterator[Block]:
    """All blocks in turn."""
    return chain.from_iterable(stages(model))
