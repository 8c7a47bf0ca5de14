"""What a run trains on, as lists of sample ids: in memory, or in an index file.

In: candidates (candidates.py) and the bounds of a selection (limits.py). Out: `Index`, for the orders of a
run (orders.py, sampling.py). Work is done in chunks, three or four times over the candidates; of an index
file nothing is kept in memory but a few numbers for each class.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hpcscale import ops
from hpcscale.config import Config
from hpcscale.data.order import keyed
from hpcscale.samples import grouping
from hpcscale.samples.candidates import Candidates, Tally
from hpcscale.samples.limits import Tables, held_out, limits, trained_on
from hpcscale.samples.lists import Ids, Lists
from hpcscale.samples.noise import Noise

# Gives arrays to fill, by name, of these lengths and dtypes.
Make = Callable[[dict[str, tuple[int, str]]], dict[str, NDArray[Any]]]


class Index(NamedTuple):
    """Of a data set, what is trained on and what is held out. Classes are those of the vocabulary; a sample
    has those that its tags select, after noise, without ancestors."""

    samples: Ids  # trained on, rising
    held_out: Ids  # rising
    by_class: Lists  # every sample that is trained on, under each of its classes
    # Each once, under that of its classes which has the fewest samples; those without a class in a last list.
    once: Lists
    clean: NDArray[np.int64]  # (classes,) samples of each class that are trained on, before noise
    tally: Tally
    whole: bool  # nothing is left out but, maybe, a share of all samples that is held out


def build(settings: Config, tables: Tables, classes: int, make: Make, ids: str) -> dict[str, NDArray[Any]]:
    """Make and fill the arrays of an index from all candidates, walked some times; lists are of type `ids`.

    Besides the four lists: class_starts (classes + 1,) of by_class, once_starts (classes + 2,) of once, and
    clean (classes,), int64. Raises ConfigError where the settings ask for more than there is.
    """
    bounds = limits(settings, tables, classes)
    clean, lengths = np.zeros(classes, np.int64), np.zeros(2, np.int64)
    for rows in tables():
        chosen, held = trained_on(settings, rows, bounds), held_out(settings, rows, bounds)
        clean += grouping.count(rows.offsets, rows.classes, classes, chosen)
        lengths += [np.count_nonzero(chosen), np.count_nonzero(held)]
    noise = Noise(settings.noise, clean)

    def trained() -> Iterator[Candidates]:
        for rows in tables():
            kept = rows.keep(trained_on(settings, rows, bounds))
            keys = keyed(kept.pictures, settings.noise.seed)
            offsets, noisy = noise(keys, kept.offsets, kept.classes)
            yield kept._replace(offsets=offsets, classes=noisy)

    counts, firsts = clean, np.zeros(classes + 1, np.int64)
    if settings.noise.share:
        counts = np.zeros(classes, np.int64)
        for rows in trained():
            counts += grouping.count(rows.offsets, rows.classes, classes)
    for rows in trained():
        firsts += np.bincount(_first(rows, counts), minlength=classes + 1)
    starts = {"class_starts": np.append(0, np.cumsum(counts)), "once_starts": np.append(0, np.cumsum(firsts))}
    small = starts | {"clean": clean}
    sizes = {"samples": lengths[0], "held_out": lengths[1], "by_class": counts.sum(), "once": lengths[0]}
    arrays = make(
        {name: (int(size), ids) for name, size in sizes.items()}
        | {name: (len(array), "<i8") for name, array in small.items()}
    )
    for name, array in small.items():
        arrays[name][:] = array
    lists = {
        "samples": _Filling(arrays["samples"], np.zeros(2, np.int64)),
        "held_out": _Filling(arrays["held_out"], np.zeros(2, np.int64)),
        "by_class": _Filling(arrays["by_class"], starts["class_starts"]),
        "once": _Filling(arrays["once"], starts["once_starts"]),
    }
    for rows in trained():
        lists["samples"].put_all(rows.samples)
        lists["by_class"].put(rows.offsets, rows.classes, rows.samples)
        lists["once"].put(np.arange(len(rows.samples) + 1), _first(rows, counts), rows.samples)
    for rows in tables():
        lists["held_out"].put_all(rows.samples[held_out(settings, rows, bounds)])
    return arrays


class _Filling:
    """Lists end to end in one array, each filled in turn."""

    def __init__(self, array: NDArray[Any], starts: NDArray[np.int64]) -> None:
        self.array, self.ends = array, starts[:-1].copy()

    def put(self, offsets: NDArray[np.int64], lists: NDArray[np.int32], ids: NDArray[np.int64]) -> None:
        """Append each id to its lists, given in CSR form."""
        ops.scatter(offsets, lists, ids.astype(self.array.dtype), self.ends, self.array)

    def put_all(self, ids: NDArray[np.int64]) -> None:
        """Append all to the only list."""
        end = int(self.ends[0])
        self.array[end : end + len(ids)] = ids
        self.ends[0] += len(ids)


def _first(rows: Candidates, counts: NDArray[np.int64]) -> NDArray[np.int32]:
    """The list of `Index.once` in which each row is  # (rows,)"""
    found = grouping.rarest(rows.offsets, rows.classes, counts)
    return np.where(found < 0, np.int32(counts.size), found)


def id_type(samples: int) -> str:
    """The smallest type that holds every id of so many samples."""
    return "<u4" if samples <= 1 << 32 else "<i8"
