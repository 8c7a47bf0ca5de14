"""DeepLab with atrous spatial pyramid pooling (Chen et al. 2018, "ASPP-L"; Sun et al. 2017, section 5.3).

In: [segmenter] and [model]. Out: a network that gives logits of every class at every place of its last maps,
the sum of parallel 3x3 convolutions with different rates. With `model.output_stride` 8, 513 pixels a side
give 65 places.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from hpcscale import config
from hpcscale.models import networks
from hpcscale.models.backbone import Network, channels_last
from hpcscale.models.shapes import SHAPES
from hpcscale.tasks import Segmenter


class DeepLab(nn.Module):
    """images (n, 3, h, w) -> logits (n, classes, h / stride, w / stride), each side rounded up."""

    def __init__(self, body: Network, features: int, rates: Sequence[int], classes: int) -> None:
        super().__init__()
        self.body = body
        self.branches = nn.ModuleList(
            nn.Conv2d(features, classes, 3, padding=rate, dilation=rate) for rate in rates
        )

    def forward(self, images: Tensor) -> Tensor:
        maps = self.body.maps(images)
        logits: Tensor = sum(branch(maps) for branch in self.branches)
        return logits


def build(task: Segmenter, settings: config.Model) -> DeepLab:
    """A network with fresh weights from torch's global generator, on the CPU; branches as Glorot and Bengio
    2010 ("Xavier", uniform), biases zero (Sun et al. 2017, section 5.3)."""
    body = networks.build(settings, 1)
    del body.fc
    network = DeepLab(body, SHAPES[settings.name].features, task.rates, task.classes)
    for branch in network.branches:
        nn.init.xavier_uniform_(branch.weight)  # type: ignore[arg-type]
        nn.init.zeros_(branch.bias)  # type: ignore[arg-type]
    return channels_last(network)
