"""JPEG bytes to crops on a GPU. The only file that imports DALI.

In: rows of samples with their crops (`Crops`), from crops.py. Out: pixels in the buffer that it gives, or
the reason why a sample cannot be decoded. It runs on a CPU too, where tests compare it with reading.py.

DALI decodes only the crop where nothing is resized, straight from the mapped shard. Colours are upsampled as
libjpeg does by default ("fancy"), and decoding the crop gives the bits that decoding everything and cropping
gives.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from nvidia.dali import fn, types
from nvidia.dali.pipeline import Pipeline

from hpcscale.inputs.crops import Crops
from hpcscale.inputs.reading import Reading

# Colours are upsampled as libjpeg does by default, on both sides; nvJPEG would repeat pixels. What is stored
# is upright: metadata that survived ingest turns nothing.
DECODE = {"output_type": types.RGB, "jpeg_fancy_upsampling": True, "adjust_orientation": False}


def inputs(reading: Reading, crops: Crops) -> tuple[Any, ...]:
    """What DALI is fed for a batch: views of the mapped shards, mirror flags, and where to cut."""
    jpegs, mirror = reading.data.jpegs(crops.samples), crops.mirror.astype(np.int32)
    corners, shapes = crops.windows[:, :2], crops.windows[:, 2:]
    if not reading.resizes:
        return jpegs, mirror, corners + crops.starts
    parts = (corners, shapes, crops.sizes.astype(np.float32), crops.starts)
    return (jpegs, mirror, *map(np.ascontiguousarray, parts))


def decoder(reading: Reading, source: Iterator[tuple[Any, ...]], most: int, ahead: int) -> Any:
    """A DALI pipeline from `inputs` to (n, crop, crop, 3) uint8.

    most: rows of a batch; ahead: batches that are decoded before they are asked for.
    """
    input, device = reading.input, reading.device
    cpu = device.type == "cpu"
    number = None if cpu else device.index if device.index is not None else torch.cuda.current_device()
    pipe = Pipeline(most, input.threads, number, prefetch_queue_depth=ahead)
    square: dict[str, Any] = {"axes": [0, 1], "shape": [input.crop, input.crop]}
    decode = DECODE | {"device": "cpu" if cpu else "mixed"}
    with pipe:
        jpegs, mirror, start, *resizing = fn.external_source(
            source=source, num_outputs=6 if reading.resizes else 3, batch=True, no_copy=True
        )
        if resizing:
            shape, size, corner = resizing
            window = fn.decoders.image_slice(jpegs, start=start, shape=shape, axes=[0, 1], **decode)
            resized = fn.resize(window, size=size, interp_type=types.INTERP_LINEAR, antialias=True)
            crop = fn.slice(resized, start=corner, **square)
        else:
            crop = fn.decoders.image_slice(jpegs, start=start, **square, **decode)
        pipe.set_outputs(fn.flip(crop, horizontal=mirror))
    pipe.build()
    return pipe


def images(decoded: Any, buffer: torch.Tensor) -> torch.Tensor:
    """DALI's output as (n, 3, crop, crop) uint8 in `buffer`; on a GPU it waits for DALI (a device sync)."""
    found = decoded.as_tensor()
    out = buffer[: found.shape()[0]]
    if buffer.device.type == "cpu":
        np.copyto(out.numpy(), np.asarray(found))
    else:
        from nvidia.dali.plugin.pytorch import feed_ndarray

        feed_ndarray(found, out, cuda_stream=torch.cuda.current_stream(buffer.device))
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
