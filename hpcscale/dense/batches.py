"""Pictures of a dense task with what is on them, prepared ahead of the model.

In: a packed data set with annotations, [input], the places of a rank. Out: `Batch`es, a pure function of the
step: sample, view and seed hang on (seed, epoch, sample) alone, or on the object too that is cut out of it.
One undecodable picture stops no run: its place gets the picture of the next one that can be decoded, as in
inputs/mending.py.

Decoded by Pillow, in a thread: a GPU takes 24 to 60 such pictures a second, and a core decodes hundreds.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hpcscale import tasks
from hpcscale.annotations import reader
from hpcscale.annotations.objects import Objects
from hpcscale.data.manifest import DataError
from hpcscale.data.order import draws, words
from hpcscale.data.store import DataSet
from hpcscale.dense import views
from hpcscale.dense.order import Order
from hpcscale.dense.views import View
from hpcscale.inputs.crops import Steps
from hpcscale.inputs.mending import BAD_SAMPLES, BAD_SHARE, BadSample, Tell

Size = tuple[int, int]  # height, width
# crop(box, original, stored, draws): the view of an object, by its box x1, y1, x2, y2 in a picture of the
# original size, and draws (views.DRAWS,) uint32.
Crop = Callable[[NDArray[np.floating], Size, Size, NDArray[np.uint32]], View]
Item = TypeVar("Item")
Made = TypeVar("Made")
OBJECT = 40  # bits of a sample's id, beside which an object of it gets draws of its own
BATCH = 0x4241544348  # separates the seeds of batches from other streams
UNREADABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)


class Seen(NamedTuple):
    """One picture as the model gets it."""

    sample: int
    pixels: NDArray[np.uint8]  # (height, width, 3)
    view: View
    original: Size  # of the picture that was packed
    objects: Objects | None  # in pixels of the view; None: the task has none
    masks: NDArray[np.uint8] | None  # (k, height, width) of these objects
    class_map: NDArray[np.uint8] | None  # (height, width)
    subject: int | None = None  # which of `objects` the view was cut around; None: none


class Batch(NamedTuple):
    samples: NDArray[np.int64]  # (n,)
    seen: list[Seen]
    seed: int  # of what the model draws in this step, from 0 to 2^63 - 1


class Wanted(NamedTuple):
    """What a task reads beside the pixels."""

    objects: bool = False
    masks: bool = False
    class_map: bool = False
    # The training view of one object; evaluations then see pictures as they are stored, with their objects.
    # None: views are of whole pictures.
    crop: Crop | None = None


def training_batches(
    data: DataSet, order: Order, settings: tasks.Dense, steps: Steps, wanted: Wanted, tell: Tell
) -> Generator[Batch, None, None]:
    """The batches of one rank. Raises DataError where too many pictures cannot be decoded."""
    seed, input, bad = settings.train.seed, settings.input, set[int]()
    swaps = _swaps(data) if wanted.objects else []

    def at(place: int) -> Seen:
        while True:
            rows, epochs = order.at(np.array([place]))
            samples, subject = order.ids[rows], None
            sample = int(samples[0])
            if order.objects is not None:
                subject = int(order.objects[rows[0]])
            random = draws(seed, epochs, samples + ((subject or 0) << OBJECT), views.DRAWS)[0]
            view = _training_view(data, sample, subject, input, wanted, random)
            try:
                return see(data, sample, view, wanted, swaps, subject)
            except UNREADABLE as error:
                _note(data, sample, str(error), bad, len(order.ids), tell)
                place += 1

    def batch(places: NDArray[np.int64]) -> Batch:
        seen = [at(place) for place in places.tolist()]
        number = words(seed ^ BATCH, (places[:1].view(np.uint64),), 1)[0, 0] >> np.uint64(1)
        return Batch(np.array([one.sample for one in seen]), seen, int(number))

    yield from _ahead(batch, steps.places(), input.prefetch)


def whole_pictures(
    data: DataSet, samples: NDArray[np.int64], input: tasks.View, wanted: Wanted, tell: Tell
) -> Iterator[Seen]:
    """The given samples in their order, whole, with their class maps as they were packed, if wanted; those
    that cannot be decoded are told and left out. Raises DataError where these are too many."""
    bad, crops = set[int](), wanted.crop is not None

    def one(sample: int) -> Seen | None:
        size = _size(data, sample)
        view = View(size, size, (0, 0), size, mirror=False) if crops else views.whole_view(size, input)
        try:
            seen = see(data, sample, view, Wanted(objects=crops))
            if wanted.class_map:
                (found,) = reader.class_maps(data, np.array([sample]), original=True)
                seen = seen._replace(class_map=found)
            return seen
        except UNREADABLE as error:
            _note(data, sample, str(error), bad, len(samples), tell)
            return None

    yield from (found for found in _ahead(one, samples.tolist(), input.prefetch) if found)


def see(
    data: DataSet,
    sample: int,
    view: View,
    wanted: Wanted,
    swaps: list[list[int]] | None = None,
    subject: int | None = None,
) -> Seen:
    """One picture and what is on it, through a view. swaps: of key points, by category. subject: the object
    that the view was cut around, of which it must show some."""
    ids = np.array([sample])
    pixels = views.picture(bytes(data.jpegs(ids)[0]), view)
    objects = masks = class_map = None
    if wanted.objects:
        (stored,) = reader.objects(data, ids)
        objects, kept = views.objects(stored, view, swaps or ())
        subject = None if subject is None else int(np.searchsorted(kept, subject))
        if wanted.masks:
            whole = stored._replace(masks=[stored.masks[number] for number in kept.tolist()])
            masks = views.masks(whole, view)
    if wanted.class_map:
        (found,) = reader.class_maps(data, ids)
        class_map = None if found is None else views.class_map(found, view)
    return Seen(sample, pixels, view, _original(data, sample), objects, masks, class_map, subject)


def _training_view(
    data: DataSet,
    sample: int,
    subject: int | None,
    input: tasks.View,
    wanted: Wanted,
    random: NDArray[np.uint32],
) -> View:
    stored = _size(data, sample)
    if wanted.crop is None or subject is None:
        return views.training_view(stored, input, random)
    _, boxes = data.annotations("boxes", np.array([sample]))
    return wanted.crop(boxes.reshape(-1, 4)[subject], _original(data, sample), stored, random)


def _swaps(data: DataSet) -> list[list[int]]:
    return [views.swaps_of(category) for category in reader.table_of(data).categories]


def _size(data: DataSet, sample: int) -> Size:
    height, width = data.sizes(np.array([sample]))[0].tolist()
    return height, width


def _original(data: DataSet, sample: int) -> Size:
    _, (height, width, _) = data.annotations("original", np.array([sample]))
    return int(height), int(width)


def _note(data: DataSet, sample: int, reason: str, bad: set[int], samples: int, tell: Tell) -> None:
    if sample not in bad:
        bad.add(sample)
        tell(BadSample(sample, data.names(np.array([sample]))[0], reason))
    if len(bad) > max(min(BAD_SAMPLES, samples // 2), BAD_SHARE * samples):
        raise DataError(
            f"{data.folder}: {len(bad)} of {samples} samples cannot be decoded, the last one {sample}: "
            f"{reason}. Look with `hpcscale data verify {data.folder}`"
        )


def _ahead(make: Callable[[Item], Made], items: Iterable[Item], count: int) -> Generator[Made, None, None]:
    """What `make` makes of items, in their order, `count` of them ahead in a thread."""
    waiting, under_way = iter(items), deque[Future[Made]]()
    with ThreadPoolExecutor(1) as pool:
        try:
            for item in waiting:
                under_way.append(pool.submit(make, item))
                if len(under_way) > count:
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
