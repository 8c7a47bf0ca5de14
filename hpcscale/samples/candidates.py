"""Which samples of a data set could be trained on, and the classes that their tags select.

In: a data set, a vocabulary, a configuration. Out: `Candidates`, a chunk at a time, in rising order, so that
memory does not depend on the data set. What only all of them together decide (how many, how many of each
class) is limits.py's matter.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hpcscale.config import Config, ConfigError
from hpcscale.data.manifest import DataError
from hpcscale.data.named import NameList
from hpcscale.data.order import Whole, identities
from hpcscale.data.store import DataSet
from hpcscale.labels.targets import OwnClasses
from hpcscale.labels.vocabulary import Vocabulary
from hpcscale.progress import Progress, none

CHUNK = 1 << 18  # samples read at a time


class Candidates(NamedTuple):
    """n samples, by rising id, that nothing rules out by themselves."""

    samples: NDArray[np.int64]  # (n,)
    pictures: NDArray[np.uint64]  # (n,) `order.identities`
    offsets: NDArray[np.int64]  # (n + 1,) of `classes`
    classes: NDArray[np.int32]  # the classes that the tags of a sample select, rising, without ancestors
    # (n,) by `data.held_out`, where it is a share of all samples, or by `data.held_out_names`
    held_out: NDArray[np.bool_]
    named: NDArray[np.bool_]  # (n,) by `selection.names`; all, where there is no such list

    def keep(self, rows: NDArray[np.bool_]) -> "Candidates":
        """Only these rows  # (n,)"""
        if rows.all():
            return self
        lengths = np.diff(self.offsets)
        offsets = np.zeros(np.count_nonzero(rows) + 1, np.int64)
        np.cumsum(lengths[rows], out=offsets[1:])
        return Candidates(
            self.samples[rows],
            self.pictures[rows],
            offsets,
            self.classes[np.repeat(rows, lengths)],
            self.held_out[rows],
            self.named[rows],
        )


class Tally(NamedTuple):
    """What became of the samples that were looked at."""

    samples: int = 0
    dropped: int = 0  # by the drop list
    unlabelled: int = 0  # not dropped, and without a class; left out unless data.unlabelled is "keep"

    def plus(self, other: "Tally") -> "Tally":
        return Tally(*(one + another for one, another in zip(self, other, strict=True)))


class NameLists(NamedTuple):
    """The lists of names of a configuration, read once."""

    drop: NameList | None
    names: NameList | None
    held_out: NameList | None = None

    def refuse_unknown(self, data: DataSet) -> None:
        """After all shards. Raises DataError if a list names what is not there."""
        for names in filter(None, self):
            names.refuse_unknown(data)


def name_lists(settings: Config) -> NameLists:
    """Raises DataError where a list cannot be read, or should be held out and is empty."""
    files = (settings.data.drop, settings.selection.names, settings.data.held_out_names)
    found = NameLists(*(NameList(file) if file else None for file in files))
    if found.held_out and not found.held_out.numbers:
        raise DataError(f"{found.held_out.file}: names no sample; data.held_out_names needs one at least")
    return found


class Walk:
    """Walks some shards of a data set, once. `tally` counts, and the lists remember the names met."""

    def __init__(self, settings: Config, data: DataSet, vocabulary: Vocabulary, lists: NameLists) -> None:
        self.settings, self.data = settings, data
        self.own = OwnClasses(vocabulary, data.tags)
        self.lists = lists
        self.whole = whole_of(settings, data)
        self.tally = Tally()

    def __call__(self, shards: Sequence[int], progress: Progress = none) -> Iterator[Candidates]:
        """Raises DataError of a shard that cannot be used."""
        starts = self.data.starts
        total, done = sum(int(starts[index + 1] - starts[index]) for index in shards), 0
        for index in shards:
            everything = np.ones(int(starts[index + 1] - starts[index]), np.bool_)
            drop, names, held = self.lists
            dropped = drop.rows(self.data, index) if drop else ~everything
            named = names.rows(self.data, index) if names else everything
            kept = held.rows(self.data, index) if held else None  # else `whole` says
            for begin in range(0, len(everything), CHUNK):
                rows, start = slice(begin, begin + CHUNK), int(starts[index]) + begin
                yield self._chunk(start, dropped[rows], named[rows], None if kept is None else kept[rows])
            done += len(everything)
            progress("samples", done, total)

    def _chunk(
        self,
        start: int,
        dropped: NDArray[np.bool_],
        named: NDArray[np.bool_],
        held: NDArray[np.bool_] | None,
    ) -> Candidates:
        samples = np.arange(start, start + len(dropped), dtype=np.int64)
        offsets, classes = self.own.classes(*self.data.tag_rows(samples))
        labelled = np.diff(offsets) > 0
        bare = np.count_nonzero(~dropped & ~labelled)
        self.tally = self.tally.plus(Tally(len(samples), int(np.count_nonzero(dropped)), int(bare)))
        pictures = identities(self.data.source_digests(samples))
        held = self.whole.holds_out(samples) if held is None else held
        found = Candidates(samples, pictures, offsets, classes, held, named)
        return found.keep(~dropped if self.settings.data.unlabelled == "keep" else ~dropped & labelled)


def whole_of(settings: Config, data: DataSet) -> Whole:
    """The order of the whole data set. Raises ConfigError where a share holds out everything, or nothing
    though it should."""
    held_out = 0.0 if by_class(settings) else settings.data.held_out
    left = data.samples - round(held_out * data.samples)
    found = f"of the {data.samples} samples of {data.folder}"
    if not left:
        raise ConfigError(f"data.held_out: {held_out} {found} leaves none to train on; choose less")
    if held_out and left == data.samples:
        raise ConfigError(f"data.held_out: {held_out} {found} is none; choose 0 or more")
    return Whole(data.samples, settings.train.seed, held_out, settings.data.split_seed)


def by_class(settings: Config) -> bool:
    """Whether samples of each class are held out."""
    return settings.data.stratified or settings.data.held_out_per_class is not None
