"""How pictures must be prepared for a network. Every checkpoint states it: a mismatch would silently cost
accuracy.

In: the configuration of a run, and batches of pictures. Out: what a network reads; a record that JSON can
carry, and the refusal of a checkpoint that has another.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hpcscale import config, ops
from hpcscale.config import Config, ConfigError
from hpcscale.view import Values

# Mean and deviation of red, green and blue, each from 0 to 255: a network reads (value - mean) / deviation.
# Those of ImageNet are torchvision's.
MEANS: dict[Values, list[float]] = {
    "signed": [127.5, 127.5, 127.5],
    "imagenet": [123.675, 116.28, 103.53],  # 255 * (0.485, 0.456, 0.406)
}
DEVIATIONS: dict[Values, list[float]] = {
    "signed": [127.5, 127.5, 127.5],
    "imagenet": [58.395, 57.12, 57.375],  # 255 * (0.229, 0.224, 0.225)
}


class Normalized:
    """The first step of every network: pictures as it reads them, in memory that is used again on a CPU.

    There, one pass in C++ takes 2 ms for 32 pictures of 299 x 299, where fresh memory costs 30 ms more for
    its page faults; so a result is valid until the next call. On a GPU, torch computes the same, with numbers
    that are copied there once: a copy from here waits for the GPU.
    """

    def __init__(self) -> None:
        self._buffer = torch.empty(0)
        self._there: dict[Values, tuple[Tensor, Tensor]] = {}

    def __call__(self, images: Tensor, values: Values) -> Tensor:
        """images (n, 3, h, w) uint8, channels_last -> the same as float32 on the same device."""
        means, deviations = MEANS[values], DEVIATIONS[values]
        if images.device.type != "cpu":
            if values not in self._there:
                scales = [1 / deviation for deviation in deviations]
                mean, scale = (torch.tensor(e, device=images.device).view(3, 1, 1) for e in (means, scales))
                self._there[values] = mean, scale
            mean, scale = self._there[values]
            return images.float().sub_(mean).mul_(scale)
        pixels = images.permute(0, 2, 3, 1)
        if self._buffer.numel() < pixels.numel():
            self._buffer = torch.empty(pixels.numel())
        out = self._buffer[: pixels.numel()].view(pixels.shape)
        ops.normalize(pixels.numpy(), np.array(means), np.array(deviations), out.numpy())
        return out.permute(0, 3, 1, 2)  # the memory stays NHWC


def preprocessing(settings: Config, stored: int | None) -> dict[str, Any]:
    """How pictures come to the network of a run that is judged: by `method`, resized to `size` (None: not
    known), cut to `crop` pixels, as (value - mean) / std in the order of `channels`; and where its blocks
    have their `stride`, which weights of the same shapes do not tell.

    stored: side of the pictures as they are stored, None if they differ.
    """
    input = config.seen(settings)
    return {
        "method": input.method,
        "size": input.resize or stored,
        "crop": input.crop,
        "channels": "RGB",
        "mean": MEANS[input.values],
        "std": DEVIATIONS[input.values],
        "stride": settings.model.stride,
    }


def refuse_other(metadata: Mapping[str, Any], settings: Config, file: Path) -> None:
    """Raises ConfigError where the metadata of a checkpoint's file state other preprocessing than its run's
    configuration. Older checkpoints state none, or no method: then it was square."""
    stated = metadata.get("preprocessing", {})
    stated = {"method": "square"} | stated if stated else stated
    for key, here in preprocessing(settings, None).items():
        if None not in (here, there := stated.get(key)) and here != there:
            raise ConfigError(f"{file}: trained with {key} {there}, but config.json says {here}")
