"""What each method finds of the changed copies, and which pairs of different pictures it takes for the same.

In: the hashes or features of a sample and of its changed copies. Out: a `Curve` a method. At a radius,

    recall of a change   is the part of the pictures whose changed copy lies within the radius
    false pairs          are the pairs of two different pictures of the sample that lie within the radius

As in `dedup search`, PDQ leaves out pictures of quality below 50: originals below it are left out, copies
below it count as missed.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hpcscale.dedup.search import RADIUS
from hpcscale.dedup.study.planted import TRANSFORMATIONS, WORDS, Planted

TOP = {"pdq": 128, "phash": 32, "dhash": 32}  # the largest radius that is tried
COSINE_UNIT, COSINE_TOP = 0.001, 1000  # steps of 1 - cosine
NEVER = 1 << 30  # distance of a picture that a search leaves out
CLOSEST = 10  # pairs of different originals that are listed
ROWS = 64  # originals compared with all others at a time
PER_MILLION = 1_000_000
CONFIDENCE, QUANTILE = 0.95, 1.6448536269514722  # of a bound on a rate; the normal distribution's

Levels = NDArray[np.int64]


class Curve(NamedTuple):
    """One method. Distances and radii are whole numbers of `unit`."""

    method: str
    unit: float
    default: int | None  # radius of `dedup search`
    copies: Levels  # (n, transformations) distance from each original to its changed copies
    false_pairs: Levels  # (radii,) pairs of different originals within radius 0, 1, ...
    pairs: int  # of different originals
    closest: list[tuple[str, str, int]]

    def recall(self) -> NDArray[np.float64]:
        """(transformations, radii)"""
        radii = np.arange(len(self.false_pairs))
        found = np.sort(self.copies, axis=0)
        counts = [np.searchsorted(column, radii, side="right") for column in found.T]
        return np.stack(counts) / max(1, len(self.copies))

    def recommended(self) -> int | None:
        """The largest radius with at most one false pair in a million; with none if there are fewer pairs."""
        allowed = np.flatnonzero(self.false_pairs <= self.pairs // PER_MILLION)
        return int(allowed[-1]) if len(allowed) else None

    def shown(self, radius: int) -> str:
        """A radius as people read it: bits, or 1 - cosine."""
        return str(radius) if self.unit == 1 else f"{radius * self.unit:.3f}"


class Calibration(NamedTuple):
    pictures: int  # in the sample, without exact duplicates
    total: int  # in the source
    seed: int
    duplicates: list[tuple[str, str]]  # (kept, left out), equal pixels
    unreadable: list[tuple[str, str]]  # (name, reason)
    low_quality: tuple[int, int]  # originals and copies that PDQ leaves out
    network: str  # "" without one
    curves: list[Curve]


def upper_bound(seen: int) -> float:
    """The largest Poisson mean that gives at most `seen` events with a probability of 1 - CONFIDENCE.

    Exact up to 200 events (3.0 for 0 events); above that, Wilson and Hilferty's approximation, good to 1e-4.
    """
    if seen > 200:
        k = seen + 1
        return float(k * (1 - 1 / (9 * k) + QUANTILE / (3 * math.sqrt(k))) ** 3)
    low, high = float(seen), seen + 10 * math.sqrt(seen + 1)
    for _ in range(60):
        mean = (low + high) / 2
        below = sum(math.exp(i * math.log(mean) - mean - math.lgamma(i + 1)) for i in range(seen + 1))
        low, high = (mean, high) if below > 1 - CONFIDENCE else (low, mean)
    return high


def hash_curves(names: list[str], planted: list[Planted], low: NDArray[np.bool_]) -> list[Curve]:
    curves = []
    for index, (method, words) in enumerate(WORDS.items()):
        codes = np.stack([np.frombuffer(each.codes[index], np.uint64).reshape(-1, words) for each in planted])
        kept = ~low[:, 0] if method == "pdq" else np.ones(len(names), bool)
        hidden = low[kept, 1:] if method == "pdq" else np.zeros((len(names), len(TRANSFORMATIONS)), bool)
        own, copies = codes[kept, :1], codes[kept, 1:]
        those = [name for name, keep in zip(names, kept.tolist(), strict=True) if keep]
        curves.append(_hash_curve(method, method, those, own, copies, hidden))
        if method == "pdq":
            turned = np.stack([np.frombuffer(each.dihedral, np.uint64).reshape(8, 4) for each in planted])
            curves.append(_hash_curve("pdq, 8 turns", method, those, turned[kept], copies, hidden))
    return curves


def _hash_curve(
    name: str, method: str, names: list[str], own: NDArray[np.uint64], copies: NDArray[np.uint64],
    hidden: NDArray[np.bool_],
) -> Curve:  # fmt: skip
    """own (n, forms, words), of which the nearest form counts; copies (n, transformations, words)."""
    distances = np.bitwise_count(own[:, :, None] ^ copies[:, None]).sum(-1).min(1).astype(np.int64)

    def to_all(start: int) -> Levels:
        between = own[start : start + ROWS, :, None] ^ own[None, None, :, 0]
        return np.asarray(np.bitwise_count(between).sum(-1).min(1), np.int64)

    false_pairs, closest = _false_pairs(names, to_all, TOP[method])
    return Curve(name, 1, RADIUS[method], np.where(hidden, NEVER, distances), false_pairs,
                 len(names) * (len(names) - 1) // 2, closest)  # fmt: skip


def cosine_curve(name: str, names: list[str], vectors: NDArray[np.float32]) -> Curve:
    """vectors (n, 1 + transformations, d)"""
    exact = vectors.astype(np.float64)
    own = np.ascontiguousarray(exact[:, 0])
    copies = _levels(np.einsum("nd,ntd->nt", own, exact[:, 1:]))

    def to_all(start: int) -> Levels:
        return _levels(own[start : start + ROWS] @ own.T)

    false_pairs, closest = _false_pairs(names, to_all, COSINE_TOP)
    pairs = len(names) * (len(names) - 1) // 2
    return Curve(name, COSINE_UNIT, None, copies, false_pairs, pairs, closest)


def _levels(cosines: NDArray[np.float64]) -> Levels:
    """The smallest radius that includes each; rounded first, so that 0 stays 0."""
    return np.ceil(np.round((1 - cosines) / COSINE_UNIT, 3)).clip(0).astype(np.int64)


def _false_pairs(
    names: list[str], to_all: Callable[[int], Levels], top: int
) -> tuple[Levels, list[tuple[str, str, int]]]:
    """How many pairs lie within each radius from 0 to top, and the closest pairs. to_all(start): distances of
    the rows from `start` on to all rows."""
    counts = np.zeros(top + 1, np.int64)
    closest: list[tuple[int, int, int]] = []
    for start in range(0, len(names), ROWS):
        distances = to_all(start)
        rows = start + np.arange(len(distances))
        distances[rows[:, None] >= np.arange(len(names))] = NEVER
        counts += np.bincount(distances[distances <= top], minlength=top + 1)
        flat = np.argsort(distances, axis=None, kind="stable")[:CLOSEST].tolist()
        found = [(int(distances.flat[at]), start + at // len(names), at % len(names)) for at in flat]
        closest = sorted(closest + [each for each in found if each[0] < NEVER])[:CLOSEST]
    return np.cumsum(counts), [(names[i], names[j], distance) for distance, i, j in closest]
