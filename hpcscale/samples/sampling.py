"""How often classes are seen: as they come, by the square root of their frequency, or all alike.

In: the lists of an index (samples by class). Out: orders, which say which sample comes at any position, and
how often each class then comes. Mahajan et al. 2018 (section 3.1.4) draw classes by the square root of their
frequency; how is in no paper. Two readings:

- two-stage: draw a class by its weight, then one of its samples. Literal, but an epoch misses samples.
- repeat: every sample comes at least once an epoch, and r times on average if its rarest class needs it
  (the repeat factors of LVIS, Gupta et al. 2019, with which detectron2 trains).

Both are pure functions of seed and position, in memory that depends on the number of classes alone. All
that decides which sample comes is done in integers, so every machine sees the same sequence.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hpcscale.config import ConfigError, Sampling
from hpcscale.data.order import permute, within, words
from hpcscale.ops import Ids, Offsets
from hpcscale.samples.lists import Lists

Name = Literal["natural", "sqrt", "uniform"]
Counts = NDArray[np.int64]  # (classes,): training samples that have each class
Factors = NDArray[np.float64]  # (classes,)

# Separate the streams that come from one seed.
STAGES, REPEATS = 0x535441474553, 0x52455045415453
# Weights and factors as integers: this many steps to 1.
WEIGHT, WIDTH = 1 << 24, 1 << 16
LONGEST = (1 << 62) // WIDTH  # samples of an epoch


def class_weights(counts: Counts, name: Name) -> Factors:
    """The probability of each class as the first stage draws it; 0 for one without samples."""
    return _shares(_weights(counts, name))


def _weights(counts: Counts, name: Name) -> Factors:
    choices = {"natural": counts, "sqrt": np.sqrt(counts), "uniform": counts > 0}
    return choices[name].astype(np.float64)


def _shares(values: Factors) -> Factors:
    total = values.sum()
    return values / total if total else values


def repeat_factors(counts: Counts, samples: int, name: Name, threshold: float | None = None) -> Factors:
    """How often a sample comes in an epoch, on average, if its rarest class is this one; at least 1.

    A class of frequency f is repeated max(1, phi(t / f)) times: phi(x) is sqrt(x) or x; natural: 1.
    samples: training samples in all; threshold: t; None: the frequency of the most frequent class.
    A class without samples has the factor 1.
    """
    found = counts[counts > 0]
    if name == "natural" or not found.size:
        return np.ones(counts.size)
    at = found.max() if threshold is None else threshold * samples
    ratios = at / np.where(counts > 0, counts, at)
    return np.maximum(1.0, np.sqrt(ratios) if name == "sqrt" else ratios)


@dataclass(frozen=True, eq=False)
class TwoStage:
    """A class by its weight, then any of its samples, with replacement.

    by_class: every sample under each of its classes; length: training samples, which are an epoch
    Raises ConfigError if no sample has a class.
    """

    by_class: Lists
    name: Name
    length: int
    seed: int

    def __post_init__(self) -> None:
        if not self.by_class.starts[-1]:
            raise ConfigError('sampling.method is "two-stage", but no sample to train on has a class')

    def samples_at(self, positions: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Sample ids, and a number that differs each time a sample comes  # (n,) int64 -> two (n,) int64"""
        found = words(self.seed ^ STAGES, (positions.view(np.uint64),), 2)
        classes = np.searchsorted(self._ends, within(found[:, 0], self._ends[-1]), side="right")
        starts = self.by_class.starts
        places = starts[classes] + within(found[:, 1], starts[classes + 1] - starts[classes])
        return self.by_class.ids.take(places), positions

    @cached_property
    def _ends(self) -> NDArray[np.int64]:
        """Classes lie on a line, each as wide as its weight: where each ends  # (classes,) int64"""
        return np.cumsum((_weights(self.by_class.counts(), self.name) * WEIGHT).astype(np.int64))


@dataclass(frozen=True, eq=False)
class Repeated:
    """Every sample as often as its factor says: in each epoch the integer below or above it.

    once: every sample under its rarest class, then those without a class
    factors (classes,): as `repeat_factors` gives them; samples without a class come once

    All samples lie on a line, each as wide as its factor. Points with a distance of 1, which start elsewhere
    in every epoch, are the places of an epoch; a keyed permutation mixes them. So that all epochs are equally
    long, the end of the line is rounded up, and the last sample may come once more.
    Raises ConfigError if an epoch is too long to be counted.
    """

    once: Lists
    factors: Factors
    seed: int

    def __post_init__(self) -> None:
        length = float(self.once.counts() @ self._each)
        if length >= LONGEST:
            raise ConfigError(f"sampling.threshold gives epochs of {length:.1e} samples: lower it")

    @cached_property
    def length(self) -> int:
        return -(-int(self._ends[-1]) // WIDTH)

    def samples_at(self, positions: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Sample ids, and a number that differs each time a sample comes  # (n,) int64 -> two (n,) int64"""
        epochs, indices = np.divmod(positions, np.int64(self.length))
        keys, starts = words(self.seed ^ REPEATS, (epochs.view(np.uint64),), 2).T
        points = permute(indices, self.length, keys) * WIDTH + within(starts, WIDTH)
        points = np.minimum(points, self._ends[-1] - 1)
        lists = np.searchsorted(self._ends, points, side="right") - 1
        places = self.once.starts[lists] + (points - self._ends[lists]) // self._widths[lists]
        return self.once.ids.take(places), positions

    @cached_property
    def _each(self) -> Factors:
        """The factor of each list  # (lists,)"""
        return np.append(self.factors, np.ones(self.once.starts.size - 1 - self.factors.size))

    @cached_property
    def _widths(self) -> NDArray[np.int64]:
        """How wide a sample of each list is  # (lists,)"""
        return np.rint(self._each * WIDTH).astype(np.int64)

    @cached_property
    def _ends(self) -> NDArray[np.int64]:
        """Where each list ends on the line, after a 0  # (lists + 1,)"""
        return np.concatenate([[0], np.cumsum(self.once.counts() * self._widths)])


def order_of(
    settings: Sampling, by_class: Lists, once: Lists, samples: int, seed: int
) -> TwoStage | Repeated:
    """The order of a sampling that is not natural; samples: training samples in all."""
    if settings.method == "two-stage":
        return TwoStage(by_class, settings.name, samples, seed)
    return Repeated(once, repeat_factors(by_class.counts(), samples, settings.name, settings.threshold), seed)


def copies(settings: Sampling, counts: Counts, samples: int, offsets: Offsets, classes: Ids) -> Factors:
    """How often each row of classes comes in an epoch, on average; rows in CSR form  # (rows,)

    Exact up to the rounding of weights and factors (1e-5).
    """
    sizes = np.diff(offsets)
    filled = np.flatnonzero(sizes)
    if settings.name == "natural" or settings.method == "repeat":
        found = np.ones(sizes.size)
        factors = repeat_factors(counts, samples, settings.name, settings.threshold)
        join: np.ufunc = np.maximum
    else:
        found = np.zeros(sizes.size)
        factors, join = samples * class_weights(counts, settings.name) / np.maximum(counts, 1), np.add
    if filled.size:
        found[filled] = join.reduceat(factors[classes], offsets[filled])
    return found


def distribution(settings: Sampling, counts: Counts, samples: int) -> Factors:
    """The share of labels that are of each class, where every sample has one class; the sum is 1.

    For the two-stage draw, the distribution of the class that is drawn, of whatever samples. How often
    classes come where samples have several is the sum over samples: `classes_seen`.
    """
    if settings.method == "two-stage":
        return class_weights(counts, settings.name)
    return _shares(counts * repeat_factors(counts, samples, settings.name, settings.threshold))


def classes_seen(settings: Sampling, counts: Counts, samples: int, offsets: Offsets, classes: Ids) -> Factors:
    """How often each class comes in an epoch, on average, through these rows  # (classes,)

    Where rows come in parts, the sum of the parts is that of all.
    """
    each = np.repeat(copies(settings, counts, samples, offsets, classes), np.diff(offsets))
    return np.bincount(classes, each, counts.size).astype(np.float64, copy=False)


def entropy(shares: Factors) -> float:
    """Of a distribution over classes, in nats: log(classes) where all are alike, 0 where there is but one."""
    some = shares[shares > 0]
    return float(-(some * np.log(some)).sum())
