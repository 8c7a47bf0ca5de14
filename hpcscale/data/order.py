"""Which sample when: the order of a run as a pure function, in constant memory.

In: number of samples, seeds, the share held out. Out: the sample at any position of the endless global
sequence, and the random numbers (crop, mirror) of any sample in any epoch. Nothing is shuffled and nothing
is stored: each epoch is a keyed permutation, evaluated only at the positions that are needed. So 3.5e9
samples cost no more than ten, a run resumes from one integer, and every world size sees the same sequence.
`pipeline` turns it into pictures.

The permutation is made in C++ (cpp/include/hpcscale/permute.hpp). It and all draws use the finaliser of
SplitMix64 (Steele, Lea, Flood 2014). Golden values in the tests keep both from drifting between releases: a
drift would change every recipe's result.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hpcscale import ops

GOLDEN = 0x9E3779B97F4A7C15
# Separate the streams that come from one seed.
SPLIT, EPOCH, DRAW = 0x53504C4954, 0x45504F4348, 0x44524157
SELECT, HOLD = 0x53454C454354, 0x484F4C44


def permute(
    indices: NDArray[np.int64],
    samples: int,
    key: int | NDArray[np.uint64],
    ends: NDArray[np.int64] | None = None,
) -> NDArray[np.int64]:
    """A keyed bijection of range(samples), evaluated at `indices`  # (n,) int64 -> (n,) int64

    `key` is one number, or one per index (n,). Work and memory depend on n alone. With `ends` (n,), at most
    `samples` and above their indices, each index has its own range(end), where it is a bijection too.
    Raises ValueError for indices outside the range and TypeError for indices that are not int64.
    """
    return ops.permute(np.ascontiguousarray(indices), samples, _keys(key), ends)


def inverse(values: NDArray[np.int64], samples: int, key: int) -> NDArray[np.int64]:
    """The indices that `permute` turns into `values`  # (n,) int64 -> (n,) int64"""
    return ops.permute(np.ascontiguousarray(values), samples, _keys(key), back=True)


class Order(Protocol):
    """The endless global sequence of training samples, as a pure function of the position."""

    @property
    def length(self) -> int:
        """Samples in one epoch."""

    def samples_at(self, positions: NDArray[np.int64], /) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Sample ids and turns at positions of the sequence  # (n,) int64 -> two (n,) int64

        A turn is a number that differs each time a sample comes: it keys what is drawn for the sample then.
        """


@dataclass(frozen=True)
class Whole:
    """The order of a whole data set, but for a held-out share; nothing else is left out.

    samples: number of samples of the data set
    seed: key of the sequence
    held_out: the share to hold out, exactly round(held_out * samples) samples
    split_seed: chooses which samples; the held-out part does not depend on `seed`

    Raises ValueError if no sample is left to train on.
    """

    samples: int
    seed: int
    held_out: float = 0.0
    split_seed: int = 0

    def __post_init__(self) -> None:
        if not 0.0 <= self.held_out < 1.0:
            raise ValueError(f"held_out is a share in [0, 1), found {self.held_out}")
        if self.length < 1:
            raise ValueError(f"no sample left to train on: {self.samples} samples, held_out {self.held_out}")

    @property
    def length(self) -> int:
        """Samples in one epoch: those that are not held out."""
        return self.samples - self.held_out_length

    @property
    def held_out_length(self) -> int:
        return round(self.held_out * self.samples)

    def samples_at(self, positions: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Position p is the (p % length)-th sample of epoch p // length, which is the turn of the sample; a
        batch may cross epochs."""
        epochs, indices = np.divmod(positions, np.int64(self.length))
        return self.parts(permute(indices, self.length, epoch_keys(self.seed, epochs))), epochs

    def held_out_samples(self) -> NDArray[np.int64]:
        """Ids of the held-out samples in a fixed random order  # (held_out_length,) int64"""
        return self.parts(np.arange(self.length, self.samples, dtype=np.int64))

    def holds_out(self, samples: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of these samples are held out  # (n,) int64 -> (n,)"""
        if not self.held_out_length:
            return np.zeros(len(samples), np.bool_)
        return inverse(samples, self.samples, self.split_seed ^ SPLIT) >= self.length

    def parts(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Indices below `length` are the training part, those above the held-out part."""
        if not self.held_out_length:
            return indices
        return permute(indices, self.samples, self.split_seed ^ SPLIT)


def epoch_keys(seed: int, epochs: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Keys of the permutations of epochs  # (n,) int64 -> (n,)"""
    return _mix(_words(seed ^ EPOCH) + epochs.view(np.uint64) * np.uint64(GOLDEN))


def draws(seed: int, epochs: NDArray[np.int64], samples: NDArray[np.int64], count: int) -> NDArray[np.uint32]:
    """Uniform 32-bit random numbers of each (epoch, sample)  # (n,) int64, (n,) int64 -> (n, count) uint32

    A pure function. The first columns stay the same when `count` grows.
    """
    found = words(seed ^ DRAW, (epochs.view(np.uint64), samples.view(np.uint64)), count)
    return (found >> np.uint64(32)).astype(np.uint32)


def words(key: int, numbers: Iterable[NDArray[np.uint64]], count: int) -> NDArray[np.uint64]:
    """Uniform 64-bit random words of what `numbers` say together, each (n,)  # -> (n, count) uint64

    A pure function. The first columns stay the same when `count` grows. `key` separates streams.
    """
    states = _mix(_words(key))
    for each in numbers:
        states = _mix(states + each)
    steps = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(GOLDEN)
    return _mix(states[:, None] + steps)


def subkeys(keys: NDArray[np.uint64], numbers: NDArray[np.int64]) -> NDArray[np.uint64]:
    """An independent key for each (key, number)  # both of shapes that broadcast together"""
    return _mix(_mix(keys) + numbers.view(np.uint64) * np.uint64(GOLDEN))


def identities(digests: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """One word for each picture, from the digest of its original file, wherever it lies  # (n, 16) -> (n,)"""
    halves = np.ascontiguousarray(digests).view("<u8").reshape(-1, 2).astype(np.uint64, copy=False)
    return _mix(halves[:, 0] + np.uint64(GOLDEN)) ^ halves[:, 1]


def keyed(identities: NDArray[np.uint64], seed: int) -> NDArray[np.uint64]:
    """A keyed hash of identities, uniform: those below a bound are that share of them  # (n,) -> (n,)"""
    return _mix(_mix(_words(seed)) + identities)


def below(draw: NDArray[np.uint32], limits: NDArray[np.int64] | int) -> NDArray[np.int64]:
    """Uniform integers in [0, limit) from 32-bit draws; the bias is under limit / 2**32  # (n,) -> (n,)"""
    found: NDArray[np.uint64] = draw.astype(np.uint64) * np.asarray(limits).astype(np.uint64)
    return (found >> np.uint64(32)).astype(np.int64)


def within(draw: NDArray[np.uint64], limits: NDArray[np.int64] | int) -> NDArray[np.int64]:
    """Uniform integers in [0, limit) from 64-bit draws; the bias is under limit / 2**64  # (n,) -> (n,)

    They are the upper words of the products, which are made from halves, since NumPy has only the lower ones.
    """
    half, mask = np.uint64(32), np.uint64(0xFFFFFFFF)
    factors = np.asarray(limits, np.int64).view(np.uint64)
    high, low, top, rest = draw >> half, draw & mask, factors >> half, factors & mask
    left = high * rest + (low * rest >> half)
    right = low * top + (left & mask)
    found: NDArray[np.uint64] = high * top + (left >> half) + (right >> half)
    return found.view(np.int64)


def _keys(key: int | NDArray[np.uint64]) -> NDArray[np.uint64]:
    return _words(key) if isinstance(key, int) else np.ascontiguousarray(key)


def _mix(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64: a bijection of words; every output bit depends on every input bit."""
    words = words ^ words >> np.uint64(30)
    words *= np.uint64(0xBF58476D1CE4E5B9)
    words ^= words >> np.uint64(27)
    words *= np.uint64(0x94D049BB133111EB)
    words ^= words >> np.uint64(31)
    return words


def _words(number: int) -> NDArray[np.uint64]:
    """A Python integer of any sign, as one word. An array, since NumPy warns when a scalar wraps around."""
    return np.array([number & 0xFFFFFFFFFFFFFFFF], np.uint64)
