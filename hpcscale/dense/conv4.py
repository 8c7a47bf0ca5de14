"""The neck of Sun et al. 2017, section 4.3: proposals on the third stage, RoIs through the last.

In: `[model]` of a recipe. Out: a trunk that torchvision's Faster R-CNN takes as its backbone, and the head of
its boxes. The stride of the last stage is taken away, since an RoI of 14 x 14 is pooled to 7 x 7 before it
(TensorFlow's object detection does the same); its weights are those of the network.
"""

from typing import Any, Self

from torch import Tensor, nn

from hpcscale import config
from hpcscale.config import ConfigError
from hpcscale.dense.backbones import freeze, keep_averages
from hpcscale.models import networks
from hpcscale.models.backbone import Network, channels_last
from hpcscale.models.shapes import SHAPES


class Trunk(nn.Module):
    """images (n, 3, h, w) -> {"0": (n, out_channels, h / 16, w / 16)}."""

    def __init__(self, body: Network, features: int) -> None:
        super().__init__()
        self.body, self.out_channels, self.head_channels = body, features // 2, features
        self.train()

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        stages = self.body.stages(images)
        for _ in range(2):
            next(stages)
        return {"0": next(stages)}

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        keep_averages(self.body)
        return self


class Head(nn.Module):
    """RoIs (r, c, 14, 14) -> (r, features). The last stage belongs to the trunk, so that it stands once in a
    checkpoint, under the network's names."""

    def __init__(self, trunk: Trunk) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(2)
        self._trunk = [trunk]  # in a list: not a part of this module

    def forward(self, rois: Tensor) -> Tensor:
        layer: Any = self._trunk[0].body.layer4
        features: Tensor = layer(self.pool(rois)).mean((2, 3))
        return features


def build(settings: config.Model, frozen: int) -> Trunk:
    """A trunk with fresh weights from torch's global generator, on the CPU. frozen: as backbones.build.
    Raises ConfigError."""
    shape = SHAPES[settings.name]
    if shape.preactivated:
        raise ConfigError(f"model.name: {settings.name}; neck 'conv4' takes networks of version 1")
    if settings.output_stride != 32:
        raise ConfigError(f"model.output_stride: found {settings.output_stride}; neck 'conv4' needs 32")
    body = networks.build(settings, 1)
    del body.fc
    for module in body.layer4[0].modules():  # type: ignore[index,union-attr]
        if isinstance(module, nn.Conv2d):
            module.stride = (1, 1)
    freeze(body, frozen)
    return channels_last(Trunk(body, shape.features))
