"""What cannot be decoded: found, told, replaced by rule, and not too much of it.

In: batches that could not be decoded, and which rows may be to blame: those that failed, or all that were
under way when DALI did. Out: the same batches without what cannot be decoded.

Each of these rows is decoded alone. In training, a place of the global sequence whose sample fails
gets the sample (and the crop) of the next place that does not: a pure function again, never a held-out
sample, the same after a resume and at any world size. In evaluation a bad sample is left out. What decoders
do not notice: a JPEG that ends early fails only if rows of the crop are missing, and one with wrong
bytes inside often decodes, with visible damage and a line on stderr; `hpcscale data verify` finds both by
their checksums, and with --decode (pipeline.undecodable) also what was stored like that.
"""

import sys
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hpcscale.data.store import DataError
from hpcscale.inputs import decoder
from hpcscale.inputs.crops import Crops, Cut
from hpcscale.inputs.reading import Reading, faults

# A run stops when more samples than this, and than this share of all samples so far, cannot be decoded.
BAD_SAMPLES, BAD_SHARE = 16, 0.01


class BadSample(NamedTuple):
    sample: int
    name: str  # source id
    reason: str


Tell = Callable[[BadSample], None]


def on_stderr(bad: BadSample) -> None:
    print(f"sample {bad.sample} ({bad.name}) cannot be decoded: {bad.reason}", file=sys.stderr)


class Mender:
    """Remembers what could not be decoded. `handed_out` counts the samples that were, for the limit."""

    def __init__(self, reading: Reading, cut: Cut | None, allowed: int, most: int, tell: Tell) -> None:
        """cut: of the place that replaces a bad one; None: bad rows are left out. allowed: bad samples that
        are few enough whatever their share. most: rows of a batch. tell: called once for every bad
        sample."""
        self.faults = decoder.faults if reading.by_dali else faults
        self.reading, self.cut, self.allowed, self.most, self.tell = reading, cut, allowed, most, tell
        self.bad: set[int] = set()
        self.failures = self.handed_out = 0

    def known(self, crops: Crops) -> Crops:
        """A batch that DALI has not seen yet, without the samples that are known to be bad."""
        rows = np.flatnonzero(np.isin(crops.samples, list(self.bad))) if self.bad else ()
        return self.mend(crops, np.asarray(rows)) if len(rows) else crops

    def mend(self, torn: Crops, suspects: NDArray[np.int64]) -> Crops:
        """Decode the suspect rows alone and put something else where that fails, in place; or leave it out.

        Raises DataError where too much fails.
        """
        reasons = self.faults(self.reading, torn.rows(suspects))
        broken = [(int(row), reason) for row, reason in zip(suspects, reasons, strict=True) if reason]
        for row, reason in broken:
            self._note(torn, row, reason)
            if self.cut is not None:
                place = int(torn.places[row]) + 1
                while (
                    failed := self.faults(self.reading, other := self.cut(np.array([place])))[0]
                ) is not None:
                    self._note(other, 0, failed)
                    place += 1
                torn.put(row, other)
        if self.cut is None:
            return torn.rows(np.delete(np.arange(len(torn.samples)), [row for row, _ in broken]))
        return torn

    def _note(self, crops: Crops, row: int, reason: str) -> None:
        self.failures += 1
        data = self.reading.data
        sample, name = int(crops.samples[row]), data.names(crops.samples[row : row + 1])[0]
        if sample not in self.bad:
            self.tell(BadSample(sample, name, reason))
        self.bad.add(sample)
        if len(self.bad) > max(self.allowed, BAD_SHARE * self.handed_out):
            raise DataError(
                f"{data.folder}: {len(self.bad)} of about {self.handed_out + self.most} samples cannot be "
                f"decoded, the last one {sample} ({name}): {reason}; allowed are {self.allowed} or "
                f"{BAD_SHARE:.0%}. Look with `hpcscale data verify {data.folder}`"
            )
