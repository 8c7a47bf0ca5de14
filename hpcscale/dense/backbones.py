"""Our networks below torchvision's detectors: stages, a feature pyramid over them, and what is not trained.

In: `[model]` of a recipe. Out: a module that torchvision's detectors take as their `backbone`, and the
preprocessing that belongs to it. Parameters of `body` have the names of the network, so that
`surgery.begin(backbone.body, settings, run, stated(settings, values))` starts it from a run or a file, and
refuses one that was trained with another mean, deviation or place of the stride.
"""

from typing import Any, Literal, NamedTuple, Self

from torch import Tensor, nn

from hpcscale import config
from hpcscale.config import ConfigError
from hpcscale.dense.ops import torchvision
from hpcscale.models import networks
from hpcscale.models.backbone import Network, channels_last
from hpcscale.models.preprocessing import DEVIATIONS, MEANS
from hpcscale.models.shapes import SHAPES
from hpcscale.view import Values

CHANNELS = 256  # of every level of a pyramid (Lin et al. 2017, "Feature pyramid networks", section 3)
STAGES = ("layer1", "layer2", "layer3", "layer4")
ROOT = ("conv1", "bn1")  # before the stages; BiT has no bn1
Levels = Literal["P2-P6", "P3-P7"]
LEVELS: dict[Levels, int] = {"P2-P6": 0, "P3-P7": 1}  # the first stage that the pyramid reads


class Scaling(NamedTuple):
    """How torchvision's GeneralizedRCNNTransform prepares pictures of values from 0 to 1."""

    mean: list[float]
    std: list[float]


class Backbone(nn.Module):
    """images (n, 3, h, w) -> levels by name, from fine to coarse, each (n, 256, h / stride, w / stride).

    P2-P6 has strides 4 to 64 and the names "0" to "3", which RoIs read, and "pool" (Mask R-CNN); P3-P7 has
    strides 8 to 128 and the names "0" to "2", "p6" and "p7" (RetinaNet, P6 from P5). The pyramid's maps
    begin as torchvision draws them.

    frozen: how much of the body is not trained; 0: nothing, 1: the root, 2: the first stage too, as
    Detectron's FREEZE_AT, up to 5. Batch normalisations of the body always use the averages that they have
    and train none of their weights, which makes them the affine maps of Detectron, whatever `train()` says.
    Group normalisations need no such care: they are trained where they are not frozen.
    """

    def __init__(self, body: Network, channels: list[int], levels: Levels, frozen: int) -> None:
        """body: without its classifier; channels: of the maps of its four stages."""
        super().__init__()
        self.body, self.out_channels, self.frozen = body, CHANNELS, frozen
        self.first = LEVELS[levels]
        blocks = torchvision.ops.feature_pyramid_network
        extra = blocks.LastLevelP6P7(CHANNELS, CHANNELS) if self.first else blocks.LastLevelMaxPool()
        self.fpn = blocks.FeaturePyramidNetwork(channels[self.first :], CHANNELS, extra)
        self._freeze()

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        maps = list(self.body.stages(images))[self.first :]
        levels: dict[str, Tensor] = self.fpn({str(place): each for place, each in enumerate(maps)})
        return levels

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        for module in self.body.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def _freeze(self) -> None:
        parts = (ROOT, *((stage,) for stage in STAGES))[: self.frozen]
        names = [name for part in parts for name in part]
        if self.frozen == len(STAGES) + 1:
            names.append("gn")  # BiT's last
        for name, part in self.body.named_children():
            if name in names:
                part.requires_grad_(False)
        for module in self.body.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.requires_grad_(False)
        self.train()


def build(settings: config.Model, levels: Levels, frozen: int) -> Backbone:
    """A backbone with fresh weights from torch's global generator, on the CPU, channels_last.

    Raises ConfigError for what a pyramid over a body cannot have.
    """
    if settings.output_stride != 32:
        raise ConfigError(
            f"model.output_stride: found {settings.output_stride}; a pyramid needs stages of strides 4 to 32"
        )
    if settings.head != "new":
        raise ConfigError(f"model.head: found '{settings.head}'; a detector has no classifier of pictures")
    if not 0 <= frozen <= len(STAGES) + 1:
        raise ConfigError(
            f"frozen: found {frozen}; allowed are 0 (nothing) to {len(STAGES) + 1} (all stages)"
        )
    body = networks.build(settings, 1)
    del body.fc
    first = 4 * SHAPES[settings.name].root
    return channels_last(Backbone(body, [first << stage for stage in range(len(STAGES))], levels, frozen))


def stated(settings: config.Model, values: Values) -> dict[str, Any]:
    """What `surgery` compares with what weights state of themselves."""
    preprocessing = {
        "channels": "RGB",
        "mean": MEANS[values],
        "std": DEVIATIONS[values],
        "stride": settings.stride,
    }
    return {"preprocessing": preprocessing}


def scaling(values: Values) -> Scaling:
    """Mean and deviation by channel of values from 0 to 1."""
    return Scaling([mean / 255 for mean in MEANS[values]], [std / 255 for std in DEVIATIONS[values]])
