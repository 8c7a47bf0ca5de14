"""ResNet-50/101/152, version 1, and ResNeXt-101: configuration in, network out; trained by train.loop, read
by evaluate.

Bottleneck blocks with batch normalisation after every convolution (He et al. 2016 in the form of Goyal et al.
2017); those of ResNeXt have grouped 3x3 convolutions (Xie et al. 2017). Names and shapes of the parameters
are torchvision's, so that weights can be exchanged in both directions.
"""

from collections.abc import Iterable, Iterator

from torch import Tensor, nn

from hpcscale import config
from hpcscale.models import shapes
from hpcscale.models.backbone import Network, channels_last
from hpcscale.models.shapes import SHAPES, Block


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions beside a shortcut; the shortcut is projected where the shape changes."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        inputs, inner, outputs, groups, (first, second), dilation, projected = block
        self.conv1 = nn.Conv2d(inputs, inner, 1, first, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, second, dilation, dilation, groups, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if projected:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, first * second, bias=False), nn.BatchNorm2d(outputs)
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

    def __init__(self, model: config.Model, classes: int) -> None:
        super().__init__()
        shape = SHAPES[model.name]
        self.conv1 = nn.Conv2d(3, shape.root, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(shape.root)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        self.layer1, self.layer2, self.layer3, self.layer4 = map(_stage, shapes.stages(model))
        self.fc = nn.Linear(shape.features, classes)

    def stages(self, images: Tensor) -> Iterator[Tensor]:
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = layer(x)
            yield x


def _stage(blocks: Iterable[Block]) -> nn.Sequential:
    return nn.Sequential(*map(Bottleneck, blocks))


def build(model: config.Model, classes: int) -> ResNet:
    """A network with fresh weights drawn from torch's global generator, in channels_last memory format.

    Convolutions as He et al. 2015 (normal, fan-out), classifier N(0, 0.01^2), its bias `head_bias`, the last
    normalisation of every block zero where `zero_init_residual` (Goyal et al. 2017, section 5.1).
    """
    network = ResNet(model, classes)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, Bottleneck) and model.zero_init_residual:
            nn.init.zeros_(module.bn3.weight)
    nn.init.normal_(network.fc.weight, std=0.01)
    nn.init.constant_(network.fc.bias, model.head_bias)
    return channels_last(network)
