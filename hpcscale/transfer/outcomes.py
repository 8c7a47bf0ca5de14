"""What a run predicted for each picture of a set, beside the truth: which predictions are wrong.

In: a run folder with an evaluation. Out: `Outcomes`, and the pictures themselves. A prediction is the best of
the classes that can be a truth. Pictures without a truth, whose tags select no class or several, are neither
right nor wrong. No model is needed.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hpcscale.data.store import DataSet, open_data
from hpcscale.evaluate import evaluations
from hpcscale.evaluate.metrics import Results
from hpcscale.files import FileError
from hpcscale.text import shown


class Outcomes(NamedTuple):
    """An evaluation of n pictures."""

    set: str
    step: int
    folder: Path  # of the evaluation
    data: str  # folder of the pictures, as it was when they were evaluated
    results: Results
    names: list[str]  # n, as they are shown: without control characters
    digests: list[str]  # n, BLAKE2b-128 of the picture files in hexadecimal; "" where it is not known
    classes: list[str]  # of the evaluation, by id, as they are shown

    @property
    def predictions(self) -> NDArray[np.int32]:
        """(n,) class; -2 where no class can be a truth."""
        guesses = self.results.guesses
        return guesses[:, 0] if guesses.shape[1] else np.full(len(guesses), -2, np.int32)

    @property
    def judged(self) -> NDArray[np.bool_]:
        """(n,) whether there is a truth."""
        return np.greater_equal(self.results.truths, 0)

    @property
    def right(self) -> NDArray[np.bool_]:
        """(n,) whether the prediction is the truth: top-1. False where there is no truth."""
        return np.equal(self.predictions, self.results.truths)

    @property
    def wrong(self) -> NDArray[np.int64]:
        """(m,) rows of the wrong predictions, rising."""
        return np.flatnonzero(self.judged & ~self.right)


def read(run: Path, which: str | None = None) -> Outcomes:
    """The newest evaluation of a set of a run; by default of the first of config.SETS that was evaluated.
    Raises FileError and OSError."""
    which, step, folder = evaluations.find(run, which)
    results, names = evaluations.read(folder)
    _, digests = evaluations.read_names(folder)
    known = [""] * len(names) if digests is None else [digest.tobytes().hex() for digest in digests]
    return Outcomes(
        set=which,
        step=step,
        folder=folder,
        data=evaluations.read_summary(folder).data,
        results=results,
        names=[shown(name) for name in names],
        digests=known,
        classes=[shown(row.name) for row in evaluations.read_classes(folder)],
    )


def open_pictures(found: Outcomes, rows: NDArray[np.int64], data: Path | None = None) -> DataSet:
    """The data set of the evaluation, where these rows (m,) are the pictures that were evaluated.

    data: its folder, where it has moved. Raises DataError, and FileError where the pictures are others.
    """
    if data is None and not found.data:
        raise FileError(f"{found.folder}: does not say where its pictures are; say it with --data")
    opened = open_data(data or Path(found.data))
    samples = found.results.samples[rows]
    if samples.size and not 0 <= samples.min() <= samples.max() < opened.samples:
        raise FileError(f"{opened.folder}: has {opened.samples} pictures; {found.folder} is of other data")
    stored = zip(opened.names(samples), opened.source_digests(samples), strict=True)
    for row, (name, digest) in zip(rows.tolist(), stored, strict=True):
        same = found.digests[row] in ("", digest.tobytes().hex())
        if shown(name) != found.names[row] or not same:
            raise FileError(
                f"{opened.folder}: sample {found.results.samples[row]} is {shown(name)!r:.80}, not "
                f"{found.names[row]!r:.80} as it was evaluated; say with --data where that data set is"
            )
    return opened
