"""The network of poses (Papandreou et al. 2017, "G-RMI", section 3.2.1), and its losses.

In: [pose], [model], crops of persons. Out: for each place of a crop and each key point, the logit of its
being near, and the offset to it: 1 x 1 convolutions on the last maps, upsampled to the crop; in training,
logits on the maps of the third stage too.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hpcscale import config
from hpcscale.config import ConfigError
from hpcscale.dense.pose_targets import Targets
from hpcscale.models import networks
from hpcscale.models.backbone import Network, channels_last
from hpcscale.models.shapes import SHAPES
from hpcscale.tasks import Pose


class Maps(NamedTuple):
    """Of n crops (h, w) and k key points, float32."""

    heatmaps: Tensor  # (n, k, h, w) logits
    offsets: Tensor  # (n, k, 2, h, w) x and y, pixels
    intermediate: Tensor  # (n, k, h, w) logits of the third stage; (0,) in evaluation


class PoseNetwork(nn.Module):
    """images (n, 3, h, w) -> Maps."""

    def __init__(self, body: Network, features: int, points: int) -> None:
        super().__init__()
        self.body, self.points = body, points
        self.head = nn.Conv2d(features, 3 * points, 1)
        self.intermediate = nn.Conv2d(features // 2, points, 1)

    def forward(self, images: Tensor) -> Maps:
        *_, third, last = self.body.stages(images)
        size = (images.shape[2], images.shape[3])
        maps = _upsampled(self.head(last), size)
        offsets = maps[:, self.points :].reshape(-1, self.points, 2, *size)
        between = _upsampled(self.intermediate(third), size) if self.training else maps.new_empty(0)
        return Maps(maps[:, : self.points], offsets, between)


def _upsampled(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear, float32. Place i of maps of stride 8 lies in the middle of pixel 8 i, as convolutions pad."""
    return F.interpolate(maps.float(), size, mode="bilinear", align_corners=True)


def build(settings: config.Model, points: int) -> PoseNetwork:
    """A network with fresh weights from torch's global generator, on the CPU; heads N(0, 0.01^2), biases
    zero. Raises ConfigError."""
    if settings.head != "new":
        raise ConfigError(f"model.head: found '{settings.head}'; a pose has no classifier of pictures")
    body = networks.build(settings, 1)
    del body.fc
    network = PoseNetwork(body, SHAPES[settings.name].features, points)
    for head in (network.head, network.intermediate):
        nn.init.normal_(head.weight, std=0.01)
        nn.init.zeros_(head.bias)  # type: ignore[arg-type]
    return channels_last(network)


def losses(found: Maps, wanted: Sequence[Targets], task: Pose) -> Mapping[str, Tensor]:
    """Weighted losses: logistic ones of heat maps, Huber's (delta 1 pixel) of the length by which an offset
    is wrong, in the disks alone. All are sums over places, divided by their number, n k h w.

    Key points of others are background, but where their disks are, the intermediate heat maps are not judged.
    """
    device, count = found.heatmaps.device, found.heatmaps.numel()
    y, x, disks, others = (torch.from_numpy(np.stack(each)).to(device) for each in zip(*wanted, strict=True))
    near = disks.float()
    logistic = F.binary_cross_entropy_with_logits(found.heatmaps, near, reduction="sum")
    wrong_x, wrong_y = found.offsets[:, :, 0] - x[:, :, None, :], found.offsets[:, :, 1] - y[:, :, :, None]
    square = wrong_x.square() + wrong_y.square()
    # Of the square, since the gradient of a root is not finite at 0.
    huber = torch.where(square <= 1, square / 2, square.clamp(min=1).sqrt() - 0.5)
    said = {
        "heatmaps": task.heatmaps * logistic / count,
        "offsets": task.offsets * (huber * near).sum() / count,
    }
    if task.intermediate:
        counted = (~others).float()
        between = F.binary_cross_entropy_with_logits(found.intermediate, near, counted, reduction="sum")
        said["intermediate"] = task.intermediate * between / count
    return said
