"""JPEG bytes to normalised crops. The only file that imports DALI.

In: rows of samples with their crops (`Crops`), from crops.py. Out: pixels in the buffer that it gives, or
the reason why a sample cannot be decoded.

On the CPU, DALI decodes only the crop, straight from the mapped shard, and one C++ pass mirrors and
normalises into a buffer that is used again for every batch. That is as fast as decoding alone, where DALI's
own crop_mirror_normalize costs a third more (benchmarks/loader.py). On a GPU, DALI decodes and normalises
there. Both upsample colours as libjpeg does by default ("fancy"), and decoding the crop gives the bits that
decoding everything and cropping gives.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from nvidia.dali import fn, types
from nvidia.dali.pipeline import Pipeline

from hpcscale import ops
from hpcscale.config import Input
from hpcscale.data.store import DataSet
from hpcscale.inputs.crops import Crops
from hpcscale.models.preprocessing import MEAN, STD

# Colours are upsampled as libjpeg does by default, on both sides; nvJPEG would repeat pixels. What is stored
# is upright: metadata that survived ingest turns nothing.
DECODE = {"output_type": types.RGB, "jpeg_fancy_upsampling": True, "adjust_orientation": False}


class Reading(NamedTuple):
    """What is decoded, how, and where to."""

    data: DataSet
    input: Input
    device: torch.device


def inputs(reading: Reading, crops: Crops) -> tuple[Any, ...]:
    """What DALI is fed for a batch: views of the mapped shards, the crops and, on a GPU, the mirror flags."""
    fed = (reading.data.jpegs(crops.samples), crops.starts)
    return fed if reading.device.type == "cpu" else (*fed, crops.mirror.astype(np.int32))


def decoder(reading: Reading, source: Iterator[tuple[Any, ...]], most: int, ahead: int) -> Any:
    """A DALI pipeline from `inputs` to (n, crop, crop, 3): uint8 on the CPU, float32 in [-1, 1] on a GPU.

    most: rows of a batch; ahead: batches that are decoded before they are asked for.
    """
    data, input, device = reading
    cpu = device.type == "cpu"
    number = None if cpu else device.index if device.index is not None else torch.cuda.current_device()
    pipe = Pipeline(most, input.threads, number, prefetch_queue_depth=ahead)
    crop: dict[str, Any] = {"axes": [0, 1], "shape": [input.crop, input.crop]}
    decode = DECODE | {"device": "cpu" if cpu else "mixed"}
    with pipe:
        jpegs, starts, *mirror = fn.external_source(
            source=source, num_outputs=2 if cpu else 3, batch=True, no_copy=True
        )
        if input.resize not in (None, data.stored_size):
            whole = fn.resize(fn.decoders.image(jpegs, **decode), size=[input.resize, input.resize])
            cropped = fn.slice(whole, start=starts, **crop)
        else:
            cropped = fn.decoders.image_slice(jpegs, start=starts, **crop, **decode)
        if not cpu:
            cropped = fn.crop_mirror_normalize(
                cropped,
                mirror=mirror[0],
                mean=MEAN,
                std=STD,
                output_layout="HWC",
                dtype=types.FLOAT,
            )
        pipe.set_outputs(cropped)
    pipe.build()
    return pipe


def images(decoded: Any, crops: Crops, buffer: torch.Tensor) -> torch.Tensor:
    """DALI's output as (n, 3, crop, crop) float32 in `buffer`; on a GPU it waits for DALI (a device sync)."""
    out = buffer[: len(crops.samples)]
    if buffer.device.type == "cpu":
        ops.normalize(np.asarray(decoded.as_tensor()), crops.mirror, out.numpy())
    else:
        from nvidia.dali.plugin.pytorch import feed_ndarray

        feed_ndarray(decoded.as_tensor(), out, cuda_stream=torch.cuda.current_stream(buffer.device))
    return out.permute(0, 3, 1, 2)  # the memory stays NHWC, which torch calls channels_last


def faults(reading: Reading, crops: Crops) -> list[str | None]:
    """Decode each row alone: why it fails, or None. About 1 ms a row; 5 ms a failure: it ends a pipeline."""
    reasons: list[str | None] = []
    pipe = None
    while len(reasons) < len(crops.samples):
        try:
            if pipe is None:
                rest = (crops.rows(slice(row, row + 1)) for row in range(len(reasons), len(crops.samples)))
                pipe = decoder(reading, (inputs(reading, one) for one in rest), 1, 1)
            pipe.schedule_run()
            pipe.share_outputs()
            pipe.release_outputs()
            reasons.append(None)
        except RuntimeError as error:
            pipe = None
            row = len(reasons)
            jpeg = reading.data.jpegs(crops.samples[row : row + 1])[0]
            said = str(error).partition("encountered:")[2].strip().partition("\n")[0].strip() or str(error)
            reasons.append(f"DALI: {said} ({jpeg.size} bytes, first {jpeg[:4].tobytes().hex(' ')})")
    return reasons
