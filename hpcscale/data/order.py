"""Which sample when: the order of a run as a pure function, in constant memory.

In: number of samples, seeds, the share held out. Out: the sample at any position of the endless global
sequence, and the random numbers (crop, mirror) of any sample in any epoch. Nothing is shuffled and nothing
is stored: each epoch is a keyed permutation, evaluated only at the positions that are needed. So 3.5e9
samples cost no more than ten, a run resumes from one integer, and every world size sees the same sequence.
`pipeline` turns it into pictures.

The permutation is a Feistel network over as many bits as hold all samples, walked along its cycles until it
falls inside the range (Black and Rogaway 2002, "Ciphers with arbitrary finite domains"). Its round function
and all draws use the finaliser of SplitMix64 (Steele, Lea, Flood 2014). Golden values in the tests keep
both from drifting between releases: a drift would change every recipe's result.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

# Four rounds of random functions suffice for large domains (Luby and Rackoff 1988). Data sets of a few
# samples have halves of one or two bits and need more. 10 rounds and the walk cost 0.3 to 0.5 ms for 1024
# indices in all.
ROUNDS = 10
GOLDEN = 0x9E3779B97F4A7C15
# Separate the streams that come from one seed.
SPLIT, EPOCH, DRAW, IDENTITY = 0x53504C4954, 0x45504F4348, 0x44524157, 0x4944


def permute(indices: NDArray[np.int64], samples: int, key: int | NDArray[np.uint64]) -> NDArray[np.int64]:
    """A keyed bijection of range(samples), evaluated at `indices`  # (n,) int64 -> (n,) int64

    `key` is one number, or one per index (n,). Work and memory depend on n alone.
    Raises ValueError for indices outside the range and TypeError for indices that are not int64.
    """
    if indices.dtype != np.int64:
        raise TypeError(f"indices must be int64, found {indices.dtype}")
    if indices.size and not (indices.min() >= 0 and indices.max() < samples):
        raise ValueError(f"indices {indices.min()}..{indices.max()} outside 0..{samples - 1}")
    bits = max(2, (samples - 1).bit_length())
    # One key for every round and index: (ROUNDS, n), or (ROUNDS, 1) for a single key.
    keys = _mix((_words(key) if isinstance(key, int) else key) + _TURNS)
    values = _feistel(indices.view(np.uint64), bits, keys)
    # At least half of the domain lies inside the range, so each pass halves what is left, on average.
    outside = np.flatnonzero(values >= samples)
    while outside.size:
        walked = _feistel(values[outside], bits, keys if keys.shape[1] == 1 else keys[:, outside])
        values[outside] = walked
        outside = outside[walked >= samples]
    return values.view(np.int64)


def inverse(values: NDArray[np.int64], samples: int, key: int) -> NDArray[np.int64]:
    """The indices that `permute` turns into `values`  # (n,) int64 -> (n,) int64"""
    bits = max(2, (samples - 1).bit_length())
    keys = _mix(_words(key) + _TURNS)
    indices = _feistel(values.view(np.uint64), bits, keys, back=True)
    outside = np.flatnonzero(indices >= samples)
    while outside.size:  # back along the cycles that permute walks
        walked = _feistel(indices[outside], bits, keys, back=True)
        indices[outside] = walked
        outside = outside[walked >= samples]
    return indices.view(np.int64)


@dataclass(frozen=True)
class Order:
    """The endless global sequence of training samples, and the samples that training never sees.

    samples: number of samples of the data set
    seed: key of the sequence
    held_out: the share to hold out, exactly round(held_out * samples) samples
    split_seed: chooses which samples; the held-out part does not depend on `seed`
    dropped: rising ids, int64, of samples that are in neither part; they do not change which of the others
        are held out, and cost up to 24 bytes each

    Raises ValueError if no sample is left to train on.
    """

    samples: int
    seed: int
    held_out: float = 0.0
    split_seed: int = 0
    dropped: NDArray[np.int64] = field(
        default_factory=lambda: np.empty(0, np.int64), repr=False, compare=False
    )

    def __post_init__(self) -> None:
        if not 0.0 <= self.held_out < 1.0:
            raise ValueError(f"held_out is a share in [0, 1), found {self.held_out}")
        ids = self.dropped
        if ids.dtype != np.int64 or ids.ndim != 1 or (np.diff(ids) <= 0).any():
            raise ValueError(
                f"dropped must be rising int64 ids, found {ids.dtype} of {ids.ndim} dimension(s)"
            )
        if ids.size and not 0 <= ids[0] <= ids[-1] < self.samples:
            raise ValueError(f"dropped ids {ids[0]}..{ids[-1]} outside 0..{self.samples - 1}")
        if self.length < 1:
            found = f"{self.samples} samples, held_out {self.held_out}, {ids.size} dropped"
            raise ValueError(f"no sample left to train on: {found}")

    @cached_property
    def length(self) -> int:
        """Samples in one epoch: those neither held out nor dropped."""
        return self._split - int(np.searchsorted(self._gaps, self._split))

    @cached_property
    def held_out_length(self) -> int:
        """Samples held out and not dropped."""
        return self.samples - self.dropped.size - self.length

    @property
    def _split(self) -> int:
        """Places below it are the training part, the others the held-out part; both with dropped samples."""
        return self.samples - round(self.held_out * self.samples)

    @cached_property
    def _gaps(self) -> NDArray[np.int64]:
        """The places of the dropped samples, rising  # (dropped,) int64"""
        if self._split == self.samples:
            return self.dropped
        return np.sort(inverse(self.dropped, self.samples, self.split_seed ^ SPLIT))

    @cached_property
    def _before(self) -> NDArray[np.int64]:
        """Of each gap, the number of places before it that are not gaps  # (dropped,) int64"""
        return self._gaps - np.arange(self._gaps.size)

    def samples_at(self, positions: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Sample ids and epochs at positions of the global sequence  # (n,) int64 -> two (n,) int64

        Position p is the (p % length)-th sample of epoch p // length; a batch may cross epochs.
        """
        epochs, indices = np.divmod(positions, np.int64(self.length))
        keys = _mix(_words(self.seed ^ EPOCH) + epochs.view(np.uint64) * np.uint64(GOLDEN))
        return self._parts(permute(indices, self.length, keys)), epochs

    def held_out_samples(self) -> NDArray[np.int64]:
        """Ids of the held-out samples in a fixed random order  # (held_out_length,) int64"""
        return self._parts(np.arange(self.length, self.length + self.held_out_length, dtype=np.int64))

    def _parts(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Indices below `length` are the training part, those above the held-out part, both without gaps."""
        if self._gaps.size:  # the k-th place that is not a gap is k + the number of gaps before it
            indices = indices + np.searchsorted(self._before, indices, side="right")
        if self._split == self.samples:
            return indices
        return permute(indices, self.samples, self.split_seed ^ SPLIT)


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


def identities(digests: NDArray[np.uint8], seed: int) -> NDArray[np.uint64]:
    """A keyed hash of each picture, from the digest of its original file  # (n, 16) -> (n,) uint64

    The same wherever the picture lies, and uniform: who takes all below a bound takes that share of them.
    """
    halves = np.ascontiguousarray(digests).view("<u8").reshape(-1, 2).astype(np.uint64, copy=False)
    return _mix(_mix(halves[:, 0] + _mix(_words(seed ^ IDENTITY))) ^ halves[:, 1])


def below(draw: NDArray[np.uint32], limit: int) -> NDArray[np.int64]:
    """Uniform integers in [0, limit) from 32-bit draws; the bias is under limit / 2**32."""
    return (draw.astype(np.uint64) * np.uint64(limit) >> np.uint64(32)).astype(np.int64)


def within(draw: NDArray[np.uint64], limits: NDArray[np.int64] | int) -> NDArray[np.int64]:
    """Uniform integers in [0, limit) from 64-bit draws; the bias is under limit / 2**64  # (n,) -> (n,)

    They are the upper words of the products, which are made from halves, since NumPy has only the lower ones.
    """
    half, mask = np.uint64(32), np.uint64(0xFFFFFFFF)
    factors = np.asarray(limits, np.int64).view(np.uint64)
    high, low, top, rest = draw >> half, draw & mask, factors >> half, factors & mask
    left = high * rest + (low * rest >> half)
    right = low * top + (left & mask)
    return (high * top + (left >> half) + (right >> half)).view(np.int64)


def _feistel(
    values: NDArray[np.uint64], bits: int, keys: NDArray[np.uint64], back: bool = False
) -> NDArray[np.uint64]:
    """A bijection of range(2**bits): each round adds (xor) a hash of one half to the other half, in turn.

    Done in the opposite order, the same rounds lead `back`.
    """
    low_bits = np.uint64(bits // 2)
    low_mask, high_mask = np.uint64((1 << bits // 2) - 1), np.uint64((1 << bits - bits // 2) - 1)
    low, high = values & low_mask, values >> low_bits
    for turn in range(ROUNDS - 2, -1, -2) if back else range(0, ROUNDS, 2):
        if back:
            low ^= _mix(high + keys[turn + 1]) & low_mask
            high ^= _mix(low + keys[turn]) & high_mask
        else:
            high ^= _mix(low + keys[turn]) & high_mask
            low ^= _mix(high + keys[turn + 1]) & low_mask
    return high << low_bits | low


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


_TURNS = np.concatenate([_words(turn * GOLDEN) for turn in range(1, ROUNDS + 1)])[:, None]
