"""Stored pictures to batches that a model reads, decoded ahead of it (decoder.py).

In: a `DataSet`, the order of its samples, the configuration `input`. Out: `Batch`es of one rank, to the
training loop and to evaluation.

Everything that is chosen (sample, crop, mirror) is computed here from `data/order.py` and fed to DALI,
which keeps no random state: a batch is a pure function of its step.

One undecodable picture never stops a run. DALI fails for a whole batch and is useless afterwards, so every
sample that was under way is then decoded alone, the bad ones are reported and replaced by rule, and a new
DALI pipeline goes on with otherwise the same batches. In training, a place of the global sequence whose
sample fails gets the sample (and the crop) of the next place that does not: a pure function again, never a
held-out sample, the same after a resume and at any world size. In evaluation a bad sample is left out.
What DALI takes for decodable: a JPEG that ends early fails only if rows of the crop are missing, and one
with wrong bytes inside often decodes, with visible damage and a line on stderr; `hpcscale data verify`
finds both by their checksums, and with --decode (`undecodable`) also what was stored like that.
"""

import sys
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from hpcscale.config import ConfigError, Input
from hpcscale.data.jpeg import fault
from hpcscale.data.order import Order, below, draws
from hpcscale.data.store import DataError, DataSet
from hpcscale.inputs.decoder import Crops, decoder, faults, images, inputs
from hpcscale.progress import Progress, none

# A run stops when more samples than this, and than this share of all samples so far, cannot be decoded.
BAD_SAMPLES, BAD_SHARE = 16, 0.01


class Batch(NamedTuple):
    """n pictures with their raw tags. The images are valid until the next batch is asked for."""

    images: torch.Tensor  # (n, 3, crop, crop) float32 in [-1, 1], channels_last, on the device
    tag_offsets: NDArray[np.int64]  # (n + 1,)
    tag_ids: NDArray[np.int32]  # (tag_offsets[-1],) ids into DataSet.tags
    samples: NDArray[np.int64]  # (n,) ids of the samples that the images show


class BadSample(NamedTuple):
    sample: int
    name: str  # source id
    reason: str


def on_stderr(bad: BadSample) -> None:
    print(f"sample {bad.sample} ({bad.name}) cannot be decoded: {bad.reason}", file=sys.stderr)


def train_batches(
    data: DataSet,
    order: Order,
    input: Input,
    *,
    batch: int,
    seed: int,
    first_step: int,
    steps: int,
    rank: int,
    size: int,
    device: torch.device,
    report: Callable[[BadSample], None] = on_stderr,
) -> Generator[Batch, None, None]:
    """The batches of steps [first_step, first_step + steps) of one rank: random crops, mirrored at random.

    Step s holds the places [s * batch, (s + 1) * batch) of the global sequence; rank r of `size` gets the
    [r * batch / size, (r + 1) * batch / size) of them. `seed` keys crops and mirrors. `report` is called once
    for every sample that cannot be decoded and was replaced. Closing the generator frees DALI's threads and
    memory. Raises ConfigError where crop, resize or batch do not fit, and DataError (from the generator)
    where too many samples cannot be decoded.
    """
    if batch % size:
        raise ConfigError(
            f"train.batch: {batch} samples cannot be divided among {size} ranks; needs a multiple"
        )
    room = _side(data, input) - input.crop + 1
    share = batch // size

    def plan(places: NDArray[np.int64]) -> Crops:
        samples, epochs = order.samples_at(places)
        random = draws(seed, epochs, samples, 3)
        starts = np.stack([below(random[:, 0], room), below(random[:, 1], room)], axis=1)
        mirror = random[:, 2] >> 31 if input.mirror else np.zeros(len(places))
        return Crops(places, samples, starts.astype(np.int32), mirror.astype(np.uint8))

    firsts = range(first_step * batch + rank * share, (first_step + steps) * batch, batch)
    plans = (plan(np.arange(first, first + share, dtype=np.int64)) for first in firsts)
    return _batches(data, input, plans, plan, min(BAD_SAMPLES, order.length // 2), share, device, report)


def evaluate_batches(
    data: DataSet,
    samples: NDArray[np.int64],
    input: Input,
    *,
    batch: int,
    device: torch.device,
    report: Callable[[BadSample], None] = on_stderr,
) -> Generator[Batch, None, None]:
    """The given samples in their order, each once, `batch` at a time: centre crops, never mirrored.

    The last batch is as short as what is left. A sample that cannot be decoded is reported and left out, so
    `Batch.samples` says what was seen; a batch of nothing is not yielded. Errors as in `train_batches`.
    """
    start = (_side(data, input) - input.crop) // 2

    def plan(places: NDArray[np.int64]) -> Crops:
        n = len(places)
        return Crops(places, samples[places], np.full((n, 2), start, np.int32), np.zeros(n, np.uint8))

    firsts = range(0, len(samples), batch)
    plans = (plan(np.arange(first, min(first + batch, len(samples)), dtype=np.int64)) for first in firsts)
    return _batches(data, input, plans, None, min(BAD_SAMPLES, len(samples) // 2), batch, device, report)


def undecodable(
    data: DataSet,
    threads: int,
    progress: Progress = none,
) -> list[BadSample]:
    """Decode every stored picture as training does on the CPU. The samples that DALI refuses, and those of
    which libjpeg warns, which DALI's output does not tell. Memory: about 64 MB of pixels, or one picture.
    """
    side = data.stored_size or 64
    input = Input(crop=side, resize=None if data.stored_size else side, threads=threads)
    most = max(1, min(64, (1 << 22) // side**2))
    found: dict[int, BadSample] = {}
    for first in range(0, data.samples, 1024):
        samples = np.arange(first, min(first + 1024, data.samples), dtype=np.int64)
        with ThreadPoolExecutor(threads) as pool:
            reasons = list(pool.map(lambda jpeg: fault(jpeg.tobytes()), data.jpegs(samples)))
        for sample, name, reason in zip(samples.tolist(), data.names(samples), reasons, strict=True):
            if reason:
                found[sample] = BadSample(sample, name, reason)
        n = len(samples)
        plan = Crops(samples, samples, np.zeros((n, 2), np.int32), np.zeros(n, np.uint8))
        plans = (plan.rows(slice(row, row + most)) for row in range(0, len(samples), most))
        refused: list[BadSample] = []
        for _ in _batches(data, input, plans, None, data.samples, most, torch.device("cpu"), refused.append):
            pass
        found |= {bad.sample: bad for bad in refused}
        progress("decode", int(samples[-1]) + 1, data.samples)
    return [bad for _, bad in sorted(found.items())]


def _side(data: DataSet, input: Input) -> int:
    """Side of the square pictures from which crops are taken."""
    stored, resize = data.stored_size, input.resize
    if stored is None and resize is None:
        raise ConfigError(
            f"input.resize: missing, and {data.folder} stores pictures at their own sizes; set it, or ingest "
            "with --resize, which saves the time in training"
        )
    side = resize or stored or 0
    if input.crop > side:
        raise ConfigError(
            f"input.crop: found {input.crop}, but the pictures of {data.folder} "
            f"{'are resized to' if resize else 'are'} {side} x {side}; allowed are 1 to {side}"
        )
    return side


def check_sizes(data: DataSet, input: Input) -> None:
    """Raises ConfigError where `input` does not fit the pictures: what the first batch would raise."""
    _side(data, input)


def _batches(
    data: DataSet,
    input: Input,
    plans: Iterator[Crops],
    plan: Callable[[NDArray[np.int64]], Crops] | None,
    allowed: int,
    most: int,
    device: torch.device,
    report: Callable[[BadSample], None],
) -> Generator[Batch, None, None]:
    """Decode `plans` of at most `most` rows; a bad row gets the `plan` of a later place, or is left out."""
    # One buffer for all batches: fresh memory for each would cost its page faults.
    buffer = torch.empty((most, input.crop, input.crop, 3), device=device)
    under_way: deque[tuple[Crops, Any]] = deque()  # keeps alive what DALI reads without a copy
    bad: set[int] = set()
    failures = handed_out = 0

    def note(plan: Crops, row: int, reason: str) -> None:
        nonlocal failures
        failures += 1
        sample, name = int(plan.samples[row]), data.names(plan.samples[row : row + 1])[0]
        if sample not in bad:
            report(BadSample(sample, name, reason))
        bad.add(sample)
        if len(bad) > max(allowed, BAD_SHARE * handed_out):
            raise DataError(
                f"{data.folder}: {len(bad)} of about {handed_out + most} samples cannot be decoded, the last "
                f"one {sample} ({name}): {reason}; allowed are {allowed} or {BAD_SHARE:.0%}. "
                f"Look with `hpcscale data verify {data.folder}`"
            )

    def mend(torn: Crops, suspects: NDArray[np.int64]) -> Crops:
        """Decode the suspect rows alone and put something else where that fails."""
        reasons = faults(data, input, torn.rows(suspects), device)
        broken = [(int(row), reason) for row, reason in zip(suspects, reasons, strict=True) if reason]
        for row, reason in broken:
            note(torn, row, reason)
            if plan is not None:
                place = int(torn.places[row]) + 1
                while (
                    failed := faults(data, input, other := plan(np.array([place])), device)[0]
                ) is not None:
                    note(other, 0, failed)
                    place += 1
                torn.places[row], torn.samples[row] = other.places[0], other.samples[0]
                torn.starts[row], torn.mirror[row] = other.starts[0], other.mirror[0]
        if plan is None:
            return torn.rows(np.delete(np.arange(len(torn.samples)), [row for row, _ in broken]))
        return torn

    def feed(waiting: Iterator[Crops]) -> Iterator[tuple[Any, ...]]:
        for next_plan in waiting:
            known = np.flatnonzero(np.isin(next_plan.samples, list(bad))) if bad else ()
            mended = mend(next_plan, np.asarray(known)) if len(known) else next_plan
            if len(mended.samples):
                under_way.append((mended, inputs(data, mended, device)))
                yield under_way[-1][1]

    pipe = None
    waiting = plans
    while True:
        try:
            if pipe is None:
                pipe = decoder(feed(waiting), data, input, most, device, input.prefetch)
                pipe.schedule_run()
            (decoded,) = pipe.share_outputs()  # waits for DALI
            shown = images(decoded, under_way[0][0], buffer)
            pipe.release_outputs()
            pipe.schedule_run()  # DALI decodes ahead while the caller computes
        except StopIteration:
            return
        except RuntimeError:
            pipe, before = None, failures
            torn = [torn for torn, _ in under_way]
            under_way.clear()
            mended = [mend(one, np.arange(len(one.samples))) for one in torn]
            if failures == before:  # no sample is to blame: no memory left, say
                raise
            waiting = chain(mended, waiting)
            continue
        done, _ = under_way.popleft()
        handed_out += len(done.samples)
        yield Batch(shown, *data.tag_rows(done.samples), done.samples)
