"""Bounds that only all candidates together give: who is held out of each class, and who is in a subset.

In: candidates (candidates.py), walked a few times. Out: `Limits`, by which each sample is judged alone.
Memory is a few numbers for each class, and those near a bound.

A sample is in a subset, or held out for one of its classes, if the keyed hash of its picture is among the
smallest. So a larger subset holds the smaller ones, and neither shards nor machines nor the number of ranks
matter.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hpcscale.config import Config, ConfigError
from hpcscale.data.order import HOLD, SELECT, keyed
from hpcscale.samples.candidates import Candidates, by_class
from hpcscale.samples.grouping import count

Tables = Callable[[], Iterable[Candidates]]
BITS = 16  # of a hash: how finely it is counted before those near the bound are sorted


class Limits(NamedTuple):
    subset: int | None = None  # the largest hash of the subset; None: there is none, all are in it
    # (classes,) the largest hash that is held out, of classes that have samples; None: it is by share.
    held_out: NDArray[np.uint64] | None = None


def limits(settings: Config, tables: Tables, classes: int) -> Limits:
    """Walk the candidates. Raises ConfigError where there are fewer than `selection.size`."""
    found = Limits()
    if by_class(settings):
        found = Limits(held_out=_of_classes(settings, tables, classes))
    wanted = settings.selection
    if wanted.size is not None or wanted.share is not None:
        found = found._replace(subset=_of_subset(settings, tables, found))
    return found


def held_out(settings: Config, rows: Candidates, bounds: Limits) -> NDArray[np.bool_]:
    """Which candidates are held out  # (n,)"""
    if bounds.held_out is None:
        return rows.held_out
    hashes = keyed(rows.pictures, settings.data.split_seed ^ HOLD)
    lengths = np.diff(rows.offsets)
    chosen = np.repeat(hashes, lengths) <= bounds.held_out[rows.classes]
    found = np.zeros(len(hashes), np.bool_)
    found[np.repeat(np.arange(len(hashes)), lengths)[chosen]] = True
    return found


def trained_on(settings: Config, rows: Candidates, bounds: Limits) -> NDArray[np.bool_]:
    """Which candidates are trained on  # (n,)"""
    wanted = settings.selection
    chosen = rows.named
    if bounds.subset is not None:
        chosen = chosen & (keyed(rows.pictures, wanted.seed ^ SELECT) <= np.uint64(bounds.subset))
    return (~chosen if wanted.complement else chosen) & ~held_out(settings, rows, bounds)


def _of_subset(settings: Config, tables: Tables, bounds: Limits) -> int:
    """The hash of the last sample of the subset."""
    wanted = settings.selection

    def hashes() -> Iterable[NDArray[np.uint64]]:
        for rows in tables():
            chosen = rows.named & ~held_out(settings, rows, bounds)
            yield keyed(rows.pictures, wanted.seed ^ SELECT)[chosen]

    coarse = np.zeros(1 << BITS, np.int64)
    for one in hashes():
        coarse += np.bincount((one >> np.uint64(64 - BITS)).astype(np.int64), minlength=len(coarse))
    there = int(coarse.sum())
    size = wanted.size if wanted.size is not None else max(1, round((wanted.share or 0.0) * there))
    if size > there:
        raise ConfigError(f"selection.size: {size}, but {there} samples could be trained on; choose fewer")
    ends = np.cumsum(coarse)
    bucket = int(np.searchsorted(ends, size))
    near = [one[one >> np.uint64(64 - BITS) == np.uint64(bucket)] for one in hashes()]
    rank = size - int(ends[bucket] - coarse[bucket])
    return int(np.sort(np.concatenate(near))[rank - 1])


def _of_classes(settings: Config, tables: Tables, classes: int) -> NDArray[np.uint64]:
    """Of each class, the hash of the last sample that is held out: its share or number, at least one."""
    counts = np.zeros(classes, np.int64)
    for rows in tables():
        counts += count(rows.offsets, rows.classes, classes)
    if (quota := settings.data.held_out_per_class) is not None:
        wanted = np.minimum(counts, quota)
    else:
        wanted = np.minimum(counts, np.maximum(1, np.rint(settings.data.held_out * counts).astype(np.int64)))
    bounds = np.zeros(classes, np.uint64)
    missing, slack = counts > 0, 8.0
    while missing.any():
        # The wanted-th smallest of n uniform numbers is near wanted / n: sort only those up to a bit above.
        share = np.minimum(1.0, (wanted + slack * np.sqrt(wanted) + slack) / np.maximum(counts, 1))
        ceiling = np.where(missing, np.minimum(share * 2.0**64, 2.0**64 - 2048), 0.0).astype(np.uint64)
        ceiling[missing & (share >= 1.0)] = np.uint64(2**64 - 1)
        of, hashes = _below(settings, tables, ceiling, missing)
        order = np.lexsort((hashes, of))
        of, hashes = of[order], hashes[order]
        starts = np.searchsorted(of, np.arange(classes + 1))
        done = missing & (np.diff(starts) >= wanted)
        bounds[done] = hashes[(starts[:-1] + wanted - 1)[done]]
        missing, slack = missing & ~done, 8 * slack
    return bounds


def _below(
    settings: Config, tables: Tables, ceiling: NDArray[np.uint64], of: NDArray[np.bool_]
) -> tuple[NDArray[np.int32], NDArray[np.uint64]]:
    """Classes and hashes of all (sample, class) whose hash is not above the ceiling of the class."""
    found: list[tuple[NDArray[np.int32], NDArray[np.uint64]]] = []
    for rows in tables():
        hashes = np.repeat(keyed(rows.pictures, settings.data.split_seed ^ HOLD), np.diff(rows.offsets))
        near = of[rows.classes] & (hashes <= ceiling[rows.classes])
        found.append((rows.classes[near], hashes[near]))
    return np.concatenate([one for one, _ in found]), np.concatenate([one for _, one in found])
