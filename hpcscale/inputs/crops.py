"""Which sample a batch shows, and which part of it: pure geometry, computed before anything is decoded.

In: the order of samples, the configuration `input`, which step. Out: `Crops`, a row for every sample.

Of a stored picture, a window is read and resized, and a square of that is what the model sees:

    square      all of it -> resize x resize -> a crop of crop x crop
    short       all of it -> its shorter side is resize -> a crop of crop x crop
    inception   a random box (boxes.py) -> crop x crop
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hpcscale.config import ConfigError, Input
from hpcscale.data.order import Order, below, draws
from hpcscale.data.store import DataSet
from hpcscale.inputs.boxes import DRAWS, random_boxes


class Crops(NamedTuple):
    """What a batch will show, row by row; fed to the decoder and kept until the batch is handed out."""

    places: NDArray[np.int64]  # (n,) places in the global sequence
    samples: NDArray[np.int64]  # (n,)
    windows: NDArray[np.int32]  # (n, 4) top, left, height and width of the part that is read, pixels
    sizes: NDArray[np.int32]  # (n, 2) height and width to which it is resized
    starts: NDArray[np.int32]  # (n, 2) top and left of the crop in that
    mirror: NDArray[np.uint8]  # (n,) 0 or 1

    def rows(self, rows: NDArray[np.int64] | slice) -> "Crops":
        return Crops._make(field[rows] for field in self)

    def put(self, row: int, other: "Crops") -> None:
        """The only row of `other` in place of a row."""
        fields: tuple[NDArray[Any], ...] = tuple(self)
        values: tuple[NDArray[Any], ...] = tuple(other)
        for field, value in zip(fields, values, strict=True):
            field[row] = value[0]


class Steps(NamedTuple):
    """The part of the global sequence that a rank reads: steps [first, first + length).

    Step s holds the places [s * batch, (s + 1) * batch). Rank r of `ranks` gets those from r * batch / ranks
    to (r + 1) * batch / ranks of them, in `parts` batches of equal length.
    """

    first: int
    length: int
    batch: int  # samples of a step over all ranks
    rank: int = 0
    ranks: int = 1
    parts: int = 1

    @property
    def rows(self) -> int:
        """Samples of one batch. Raises ConfigError where they cannot be alike."""
        if self.batch % (self.ranks * self.parts):
            raise ConfigError(
                f"train.batch: {self.batch} samples cannot be divided among {self.ranks} ranks"
                + (f" in {self.parts} parts" if self.parts > 1 else "")
                + "; needs a multiple"
            )
        return self.batch // (self.ranks * self.parts)

    def places(self) -> Iterator[NDArray[np.int64]]:
        """Of each batch in turn  # (rows,)"""
        rows, of_rank = self.rows, self.batch // self.ranks
        first = self.first * self.batch + self.rank * of_rank
        for step in range(first, first + self.length * self.batch, self.batch):
            for start in range(step, step + of_rank, rows):
                yield np.arange(start, start + rows, dtype=np.int64)


Cut = Callable[[NDArray[np.int64]], Crops]  # takes places
Sizes = Callable[[NDArray[np.int64]], NDArray[np.int32]]  # height and width of samples' pictures  # (n, 2)


def random_crops(data: DataSet, order: Order, input: Input, seed: int, sizes: Sizes | None = None) -> Cut:
    """What `input.method` says, at a random place, mirrored or not: drawn from (seed, epoch, sample).

    sizes: of stored pictures, by default `sizes_of(data)`. Raises ConfigError where sizes do not fit, and
    DataError where they are not known.
    """
    side, of = side_of(data, input), sizes or sizes_of(data)

    def cut(places: NDArray[np.int64]) -> Crops:
        samples, epochs = order.samples_at(places)
        pictures, n = of(samples), len(places)
        inception = input.method == "inception"
        random = draws(seed, epochs, samples, 3 + DRAWS * inception)
        windows: NDArray[Any] = _whole(pictures)
        if inception:
            windows = random_boxes(pictures, random[:, :2], random[:, 3:], input)
            resized, starts = np.full((n, 2), side, np.int64), np.zeros((n, 2), np.int64)
        else:
            resized = _resized(pictures, input, side)
            room = resized - input.crop + 1
            starts = np.stack([below(random[:, k], room[:, k]) for k in (0, 1)], axis=1)
        mirror = random[:, 2] >> 31 if input.mirror else np.zeros(n)
        return _crops(places, samples, windows, resized, starts, mirror)

    return cut


def centre_crops(data: DataSet, samples: NDArray[np.int64], input: Input) -> Cut:
    """The square of `input.crop` pixels in the middle, never mirrored; places are those in `samples`.

    A middle between two pixels is the even one, as torchvision rounds. Raises as `random_crops` does, and
    ConfigError of method inception, which has no middle.
    """
    side, of = side_of(data, input), sizes_of(data)
    if input.method == "inception":
        raise ConfigError(
            "input.method: 'inception' draws boxes, which an evaluation must not; set evaluate.method"
        )

    def cut(places: NDArray[np.int64]) -> Crops:
        shown = samples[places]
        resized = _resized(pictures := of(shown), input, side)
        starts = np.rint((resized - input.crop) / 2)
        return _crops(places, shown, _whole(pictures), resized, starts, np.zeros(len(places)))

    return cut


def whole_pictures(data: DataSet, samples: NDArray[np.int64], side: int) -> Crops:
    """All of each picture, squeezed to a square of `side` pixels. Raises DataError as `sizes_of`."""
    n, pictures = len(samples), sizes_of(data)(samples)
    return _crops(samples, samples, _whole(pictures), np.full((n, 2), side), np.zeros((n, 2)), np.zeros(n))


def side_of(data: DataSet, input: Input) -> int:
    """The shorter side of what crops are taken from, pixels. Raises ConfigError where crops do not fit, and
    where pictures are stored at their own sizes and squares of them are not resized."""
    if input.method == "inception":
        return input.crop
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
            f"{'are resized to' if resize else 'are'} {side} x {side if input.method == 'square' else 'more'}"
            f"; allowed are 1 to {side}"
        )
    return side


def sizes_of(data: DataSet) -> Sizes:
    """Sizes of stored pictures. Raises DataError at once where they are not known."""
    stored = data.stored_size
    if stored is not None:
        return lambda samples: np.full((len(samples), 2), stored, np.int32)
    data.sizes(np.empty(0, np.int64))
    return data.sizes


def _whole(pictures: NDArray[np.int32]) -> NDArray[np.int32]:
    """Windows that are all of each picture."""
    return np.concatenate([np.zeros_like(pictures), pictures], axis=1)


def _resized(pictures: NDArray[np.int32], input: Input, side: int) -> NDArray[np.int64]:
    """The size that each picture is resized to, of methods square and short  # (n, 2)"""
    if input.method == "square":
        return np.full((len(pictures), 2), side, np.int64)
    long: NDArray[np.int64] = pictures.astype(np.int64)
    found: NDArray[np.int64] = side * long // long.min(axis=1, keepdims=True)  # as torchvision rounds
    return found


def _crops(
    places: NDArray[np.int64],
    samples: NDArray[np.int64],
    windows: NDArray[Any],
    sizes: NDArray[Any],
    starts: NDArray[Any],
    mirror: NDArray[Any],
) -> Crops:
    """Of the dtypes that decoders take."""
    four, two, at = (np.ascontiguousarray(each, np.int32) for each in (windows, sizes, starts))
    return Crops(places, samples, four, two, at, mirror.astype(np.uint8))
