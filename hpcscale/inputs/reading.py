"""What is decoded, and how on a CPU: by libjpeg-turbo, in C++ (cpp/include/hpcscale/decode.hpp).

In: rows of samples with their crops (`Crops`), from crops.py. Out: pixels in memory that is given, or the
reason why a sample cannot be decoded.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from hpcscale import ops
from hpcscale.config import Input
from hpcscale.data.store import DataSet
from hpcscale.inputs.crops import Crops


class Reading(NamedTuple):
    """What is decoded, how, and where to."""

    data: DataSet
    input: Input
    device: torch.device
    by_dali: bool = False  # as on a GPU always

    @property
    def resizes(self) -> bool:
        """Whether windows have other sizes than what they are resized to."""
        return self.input.method != "square" or self.input.resize not in (None, self.data.stored_size)


def decode(reading: Reading, crops: Crops, out: NDArray[np.uint8]) -> list[str | None]:
    """Decode into `out` (at least n, crop, crop, 3), in `input.threads` threads; why a row fails, or None.

    Only the bytes of the mapped shards are read that are needed; rows that fail are undefined.
    """
    jpegs = reading.data.jpegs(crops.samples)
    cut = crops.windows, crops.sizes, crops.starts, crops.mirror
    reasons = ops.decode(jpegs, *cut, out[: len(jpegs)], reading.input.threads)
    return [
        reason and f"{reason} ({jpeg.size} bytes, first {jpeg[:4].tobytes().hex(' ')})"
        for reason, jpeg in zip(reasons, jpegs, strict=True)
    ]


def faults(reading: Reading, crops: Crops) -> list[str | None]:
    """Why each row cannot be decoded, or None."""
    side = reading.input.crop
    return decode(reading, crops, np.empty((len(crops.samples), side, side, 3), np.uint8))
