"""What every network is: a body that makes maps of pictures, and a classifier over their average.

In: pictures. Out: maps, features, logits. A network is a subclass that says `stages`; all else of the project
needs no more of it.
"""

from collections import deque
from collections.abc import Iterator
from typing import TypeVar

import torch
from torch import Tensor, nn

N = TypeVar("N", bound=nn.Module)


class Network(nn.Module):
    """images (n, 3, h, w) -> logits (n, classes)."""

    fc: nn.Linear  # named so in a checkpoint, as in torchvision

    @property
    def classifier(self) -> nn.Linear:
        """The last layer."""
        return self.fc

    def stages(self, images: Tensor) -> Iterator[Tensor]:
        """images (n, 3, h, w) -> (n, channels, h / stride, w / stride) after each of four stages, each side
        rounded up: C2 to C5 of a pyramid. One at a time, so that none is kept that nobody needs."""
        raise NotImplementedError

    def maps(self, images: Tensor) -> Tensor:
        """images (n, 3, h, w) -> the last maps."""
        return deque(self.stages(images), maxlen=1).pop()

    def features(self, images: Tensor) -> Tensor:
        """images (n, 3, h, w) -> (n, features), averaged over the last maps."""
        return self.maps(images).mean((2, 3))

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.features(images))
        return logits


def channels_last(network: N) -> N:
    """The network, its convolutions' weights in the memory format that is fastest for them."""
    # mypy does not know this overload of `to`.
    changed: N = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return changed
