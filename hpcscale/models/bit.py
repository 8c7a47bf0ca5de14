"""BiT: ResNets of version 2 with group normalisation and standardised weights, of 1 to 4 times the channels
(Kolesnikov et al. 2020, section 3.2); trained by train.loop, read by evaluate.

A sample does not depend on the others of its batch. published.py reads the published weights.
"""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hpcscale import config
from hpcscale.models import shapes
from hpcscale.models.backbone import Network, channels_last
from hpcscale.models.shapes import GROUPS, SHAPES, Block

EPSILON = 1e-10  # of a standardisation


class StandardConv(nn.Conv2d):
    """A convolution without bias, whose weights are shifted and scaled to mean 0 and variance 1 for each
    output channel (Qiao et al. 2019). The variance is the biased one."""

    def forward(self, x: Tensor) -> Tensor:
        # Batch normalisation of one "sample" does it in one pass; rows of channels_last weights are a view.
        channels, inputs, height, width = self.weight.shape
        rows = self.weight.permute(0, 2, 3, 1).reshape(1, channels, -1)
        rows = F.batch_norm(rows, None, None, training=True, eps=EPSILON)
        weight = rows.view(channels, height, width, inputs).permute(0, 3, 1, 2)
        out: Tensor = self._conv_forward(x, weight, None)
        return out


class GroupNorm(nn.GroupNorm):
    """As torch's; but on a CPU that crashes (torch 2.13, channels_last) where the maps need no gradient and
    the weights do, as above frozen parts. There the maps get one, which nobody reads."""

    def forward(self, input: Tensor) -> Tensor:
        if torch.is_grad_enabled() and self.weight.requires_grad and not input.requires_grad:
            input = input.detach().requires_grad_()
        return super().forward(input)


class Unit(nn.Module):
    """1x1, 3x3 and 1x1 convolutions beside a shortcut, each after normalisation and ReLU; the shortcut is
    projected where the shape changes, after the first of them."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        inputs, inner, outputs, groups, (first, second), dilation, projected = block
        self.gn1 = GroupNorm(GROUPS, inputs)
        self.conv1 = StandardConv(inputs, inner, 1, first, bias=False)
        self.gn2 = GroupNorm(GROUPS, inner)
        self.conv2 = StandardConv(inner, inner, 3, second, dilation, dilation, groups, bias=False)
        self.gn3 = GroupNorm(GROUPS, inner)
        self.conv3 = StandardConv(inner, outputs, 1, bias=False)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if projected:
            self.downsample = StandardConv(inputs, outputs, 1, first * second, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        active = self.relu(self.gn1(x))
        shortcut = x if self.downsample is None else self.downsample(active)
        out: Tensor = self.conv1(active)
        out = self.conv2(self.relu(self.gn2(out)))
        out = self.conv3(self.relu(self.gn3(out)))
        out += shortcut
        return out


class BiT(Network):
    """images (n, 3, h, w) -> logits (n, classes)."""

    def __init__(self, model: config.Model, classes: int) -> None:
        super().__init__()
        shape = SHAPES[model.name]
        self.conv1 = StandardConv(3, shape.root, 7, 2, padding=3, bias=False)
        # Not the same as a pooling that pads: its border is zero, where values may be negative.
        self.pad = nn.ZeroPad2d(1)
        self.maxpool = nn.MaxPool2d(3, 2)
        self.layer1, self.layer2, self.layer3, self.layer4 = map(_stage, shapes.stages(model))
        self.gn = GroupNorm(GROUPS, shape.features)
        self.relu = nn.ReLU(inplace=True)
        self.fc = nn.Linear(shape.features, classes)

    def stages(self, images: Tensor) -> Iterator[Tensor]:
        """The last maps are normalised and rectified, as the classifier reads them; those before are sums."""
        x = self.maxpool(self.pad(self.conv1(images)))
        for layer in (self.layer1, self.layer2, self.layer3):
            x = layer(x)
            yield x
        yield self.relu(self.gn(self.layer4(x)))


def _stage(blocks: Iterable[Block]) -> nn.Sequential:
    return nn.Sequential(*map(Unit, blocks))


def build(model: config.Model, classes: int) -> BiT:
    """A network with fresh weights drawn from torch's global generator, in channels_last memory format.

    Convolutions normal with variance 1 / fan-in, whose scale decides only how fast they turn; classifier
    zero, as in big_vision's bit_paper.py; its bias `head_bias`.
    """
    network = BiT(model, classes)
    for module in network.modules():
        if isinstance(module, StandardConv):
            nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
    nn.init.zeros_(network.fc.weight)
    nn.init.constant_(network.fc.bias, model.head_bias)
    return channels_last(network)
