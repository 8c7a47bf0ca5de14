"""ResNet-50/101/152, version 1: configuration in, network out; trained by train.loop, read by evaluate.

Bottleneck blocks with the stride on the 3x3 convolution and batch normalisation after every convolution (He
et al. 2016 in the form of Goyal et al. 2017). Names and shapes of the parameters are torchvision's, so that
weights can be exchanged in both directions.
"""

import torch
from torch import Tensor, nn

from hpcscale import config
from hpcscale.models.backbone import Network
from hpcscale.models.complexity import STAGES

# Every block has `EXPANSION` times as many outputs as inner channels.
EXPANSION = 4


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions beside a shortcut; the shortcut is projected where the shape changes."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = width * EXPANSION
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        x = self.bn3(self.conv3(x))
        x += shortcut
        out: Tensor = self.relu(x)
        return out


class ResNet(Network):
    """images (n, 3, h, w) -> logits (n, classes)."""

    def __init__(self, stages: tuple[int, ...], classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        self.layer1 = _stage(64, 64, stages[0], 1)
        self.layer2 = _stage(256, 128, stages[1], 2)
        self.layer3 = _stage(512, 256, stages[2], 2)
        self.layer4 = _stage(1024, 512, stages[3], 2)
        self.fc = nn.Linear(512 * EXPANSION, classes)

    def maps(self, images: Tensor) -> Tensor:
        """images (n, 3, h, w) -> (n, 2048, h / 32, w / 32), each side rounded up: the last maps."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        maps: Tensor = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return maps


def _stage(inputs: int, width: int, blocks: int, stride: int) -> nn.Sequential:
    first = Bottleneck(inputs, width, stride)
    return nn.Sequential(first, *(Bottleneck(width * EXPANSION, width, 1) for _ in range(blocks - 1)))


def build(model: config.Model, classes: int) -> ResNet:
    """A network with fresh weights drawn from torch's global generator, in channels_last memory format.

    Convolutions as He et al. 2015 (normal, fan-out), classifier N(0, 0.01^2), its bias `head_bias`, the last
    normalisation of every block zero where `zero_init_residual` (Goyal et al. 2017, section 5.1).
    """
    if classes < 1:
        raise ValueError(f"a classifier needs at least one class, found {classes}")
    network = ResNet(STAGES[model.name], classes)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, Bottleneck) and model.zero_init_residual:
            nn.init.zeros_(module.bn3.weight)
    nn.init.normal_(network.fc.weight, std=0.01)
    nn.init.constant_(network.fc.bias, model.head_bias)
    # mypy does not know this overload of `to`.
    channels_last: ResNet = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return channels_last
