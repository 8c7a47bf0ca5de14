"""Stored pictures to batches that a model reads, decoded ahead of it (reading.py, decoder.py).

In: a `DataSet`, the order of its samples, the configuration `input`. Out: `Batch`es of one rank, to the
training loop and to evaluation.

Everything that is chosen (sample, crop, mirror) is computed in crops.py and fed to the decoders, which keep
no random state: a batch is a pure function of its step.

One undecodable picture never stops a run: its batch is mended as mending.py says. On a GPU, DALI fails for a
whole batch and is useless afterwards, so a new DALI pipeline then goes on with otherwise the same batches.
"""

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from itertools import chain, islice
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from hpcscale import ops
from hpcscale.config import Input
from hpcscale.data.order import Order
from hpcscale.data.store import DataSet
from hpcscale.inputs.crops import Crops, Steps, centre_crops, random_crops, whole_pictures
from hpcscale.inputs.decoder import decoder, images, inputs
from hpcscale.inputs.mending import BAD_SAMPLES, BadSample, Mender, Tell, on_stderr
from hpcscale.inputs.reading import Reading, decode
from hpcscale.progress import Progress, none
from hpcscale.view import Values


class Batch(NamedTuple):
    """n pictures with their raw tags. The images are valid until the next batch is asked for."""

    images: torch.Tensor  # (n, 3, crop, crop) uint8, channels_last, on the device
    tag_offsets: NDArray[np.int64]  # (n + 1,)
    tag_ids: NDArray[np.int32]  # (tag_offsets[-1],) ids into DataSet.tags
    samples: NDArray[np.int64]  # (n,) ids of the samples that the images show
    values: Values = "signed"  # what a model reads of them (models/preprocessing.py)
    number: int = 0  # of this batch among those of its rank, from the first of a run on


def train_batches(
    data: DataSet,
    order: Order,
    input: Input,
    steps: Steps,
    seed: int,
    device: torch.device,
    tell: Tell = on_stderr,
) -> Generator[Batch, None, None]:
    """The batches of one rank, `steps.parts` a step: random crops, mirrored at random.

    `seed` keys crops and mirrors. `tell` is called once for every sample that cannot be decoded and was
    replaced. Closing the generator frees threads and memory. Raises ConfigError where crop, resize or
    batch do not fit, and DataError (from the generator) where too many samples cannot be decoded.
    """
    cut = random_crops(data, order, input, seed)
    reading, rows = Reading(data, input, device, device.type != "cpu"), steps.rows
    mender = Mender(reading, cut, min(BAD_SAMPLES, order.length // 2), rows, tell)
    return _batches(reading, map(cut, steps.places()), mender, rows, steps.first * steps.parts)


def evaluate_batches(
    data: DataSet,
    samples: NDArray[np.int64],
    input: Input,
    *,
    batch: int,
    device: torch.device,
    tell: Tell = on_stderr,
) -> Generator[Batch, None, None]:
    """The given samples in their order, each once, `batch` at a time: centre crops, never mirrored.

    The last batch is as short as what is left. A sample that cannot be decoded is told and left out, so
    `Batch.samples` says what was seen; a batch of nothing is not yielded. Errors as in `train_batches`.
    """
    cut = centre_crops(data, samples, input)
    reading = Reading(data, input, device, device.type != "cpu")
    firsts = range(0, len(samples), batch)
    places = (np.arange(first, min(first + batch, len(samples)), dtype=np.int64) for first in firsts)
    mender = Mender(reading, None, min(BAD_SAMPLES, len(samples) // 2), batch, tell)
    return _batches(reading, map(cut, places), mender, batch)


def undecodable(
    data: DataSet,
    threads: int,
    progress: Progress = none,
) -> list[BadSample]:
    """Decode every stored picture. The samples that DALI refuses, which decodes on a GPU, and those of which
    libjpeg warns. Memory: about 64 MB of pixels, or one picture.
    """
    side = data.stored_size or 64
    input = Input(crop=side, resize=None if data.stored_size else side, threads=threads)
    most = max(1, min(64, (1 << 22) // side**2))
    found: dict[int, BadSample] = {}
    for first in range(0, data.samples, 1024):
        samples = np.arange(first, min(first + 1024, data.samples), dtype=np.int64)
        reasons = ops.jpeg_faults(data.jpegs(samples), threads)
        for sample, name, reason in zip(samples.tolist(), data.names(samples), reasons, strict=True):
            if reason:
                found[sample] = BadSample(sample, name, reason)
        crops = whole_pictures(data, samples, side)
        refused: list[BadSample] = []
        reading = Reading(data, input, torch.device("cpu"), by_dali=True)
        pieces = (crops.rows(slice(row, row + most)) for row in range(0, len(samples), most))
        for _ in _batches(reading, pieces, Mender(reading, None, data.samples, most, refused.append), most):
            pass
        found |= {bad.sample: bad for bad in refused}
        progress("decode", int(samples[-1]) + 1, data.samples)
    return [bad for _, bad in sorted(found.items())]


def _batches(
    reading: Reading, waiting: Iterator[Crops], mender: Mender, most: int, first: int = 0
) -> Generator[Batch, None, None]:
    """Decode batches of at most `most` rows, numbered from `first` on; what cannot be decoded is the mender's
    matter."""
    decoded = _by_dali if reading.by_dali else _by_libjpeg
    with closing(decoded(reading, waiting, mender, most)) as batches:
        for number, (images, crops) in enumerate(batches, first):
            mender.handed_out += len(crops.samples)
            tags = reading.data.tag_rows(crops.samples)
            yield Batch(images, *tags, crops.samples, reading.input.values, number)


Decoded = Generator[tuple[torch.Tensor, Crops], None, None]


def _by_libjpeg(reading: Reading, waiting: Iterator[Crops], mender: Mender, most: int) -> Decoded:
    """Decoded ahead in a thread: `input.prefetch` batches wait while the caller has another."""
    ahead, side = reading.input.prefetch, reading.input.crop
    # Used in turn: fresh memory for each batch would cost its page faults.
    buffers = torch.empty((ahead + 1, most, side, side, 3), dtype=torch.uint8)
    free, under_way = deque(buffers), deque[tuple[Crops, torch.Tensor, Future[list[str | None]]]]()
    pool = ThreadPoolExecutor(1)

    def start(count: int) -> None:
        for crops in islice(waiting, count):
            buffer = free.popleft()
            under_way.append((crops, buffer, pool.submit(decode, reading, crops, buffer.numpy())))

    try:
        start(ahead)
        while under_way:
            crops, buffer, decoding = under_way.popleft()
            bad = np.flatnonzero(np.array(decoding.result(), bool))  # waits for the thread
            start(1)
            if bad.size:
                crops = mender.mend(crops, bad)
                decode(reading, crops, buffer.numpy())
            if len(crops.samples):
                yield buffer[: len(crops.samples)].permute(0, 3, 1, 2), crops
            free.append(buffer)
    finally:
        pool.shutdown(cancel_futures=True)


def _by_dali(reading: Reading, waiting: Iterator[Crops], mender: Mender, most: int) -> Decoded:
    """Decoded ahead by DALI."""
    input = reading.input
    # One buffer for all batches: fresh memory for each would cost its page faults.
    buffer = torch.empty((most, input.crop, input.crop, 3), dtype=torch.uint8, device=reading.device)
    under_way: deque[tuple[Crops, Any]] = deque()  # keeps alive what DALI reads without a copy

    def feed(waiting: Iterator[Crops]) -> Iterator[tuple[Any, ...]]:
        for crops in waiting:
            mended = mender.known(crops)
            if len(mended.samples):
                under_way.append((mended, inputs(reading, mended)))
                yield under_way[-1][1]

    pipe = None
    while True:
        try:
            if pipe is None:
                pipe = decoder(reading, feed(waiting), most, input.prefetch)
                pipe.schedule_run()
            (decoded,) = pipe.share_outputs()  # waits for DALI
            shown = images(decoded, buffer)
            pipe.release_outputs()
            pipe.schedule_run()  # DALI decodes ahead while the caller computes
        except StopIteration:
            return
        except RuntimeError:
            pipe, before = None, mender.failures
            torn = [torn for torn, _ in under_way]
            under_way.clear()
            mended = [mender.mend(one, np.arange(len(one.samples))) for one in torn]
            if mender.failures == before:  # no sample is to blame: no memory left, say
                raise
            waiting = chain(mended, waiting)
            continue
        yield shown, under_way.popleft()[0]
