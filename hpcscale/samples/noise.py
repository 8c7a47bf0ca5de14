"""Wrong labels on purpose: each label of a sample is replaced, with some probability, by another class.

In: the own classes of samples, before their ancestors are added. Out: the same with noise, always the same
for a sample: a pure function of its picture, its classes and the settings. Mahajan et al. 2018 (section
3.1.3) "randomly replaced p % of the hashtags by hashtags sampled from the marginal distribution (excluding
the tag to be replaced)": class i becomes j with probability f_j / (1 - f_i), f the share of labels that are
of a class. All is done in integers, so every machine draws the same.
"""

from bisect import bisect_left, insort

import numpy as np
from numpy.typing import NDArray

from hpcscale import config
from hpcscale.config import ConfigError
from hpcscale.data.order import within, words
from hpcscale.ops import Ids, Offsets

NOISE = 0x4E4F495345  # separates these draws from others of the same picture
ATTEMPTS = 8  # of "resample", before the classes that are left are looked for one by one


class Noise:
    """What `config.Noise` does with labels of which class c is seen counts[c] times."""

    def __init__(self, settings: config.Noise, counts: NDArray[np.int64]) -> None:
        """counts (classes,): labels of each class in what is trained on, without noise.

        Raises ConfigError if there is noise and no class to draw.
        """
        if settings.share and np.count_nonzero(counts) < 2:
            raise ConfigError(
                f"noise.share is {settings.share}, but {np.count_nonzero(counts)} of {counts.size} classes "
                "have samples to train on: a label can only be replaced where two have"
            )
        self.settings = settings
        self._counts = counts
        self._ends = np.cumsum(counts)
        self._hits = np.uint64(int(settings.share * (1 << 53)))  # exact: a share has 53 bits

    def __call__(self, identities: NDArray[np.uint64], offsets: Offsets, classes: Ids) -> tuple[Offsets, Ids]:
        """Rows of classes, sorted, each once, with noise: the same number of rows, in CSR form.

        identities (rows,): as `data.order.identities` gives them, with the seed of the noise. A row that has
        a class keeps one.
        """
        if not self.settings.share:
            return offsets, classes
        sizes = np.diff(offsets)
        states = np.repeat(identities, sizes)
        hit = np.flatnonzero(
            words(NOISE, (states, _unsigned(classes)), 1)[:, 0] >> np.uint64(11) < self._hits
        )
        states, before = states[hit], classes[hit]
        # A class of a row as one number, in the order of the rows.
        rows = np.repeat(np.arange(sizes.size) * self._counts.size, sizes)
        keys = rows + classes
        if self.settings.duplicates == "merge":
            drawn = self._drawn(states, before, 1)
        else:
            drawn = self._others(states, before, rows[hit], keys)
        keys[hit] = rows[hit] + drawn
        keys.sort()  # ten times as fast as np.unique
        keys = keys[np.diff(keys, prepend=-1) > 0]
        found, after = np.divmod(keys, self._counts.size)
        ends = np.cumsum(np.bincount(found, minlength=sizes.size))
        return np.concatenate([[0], ends]), after.astype(np.int32)

    def _drawn(self, states: NDArray[np.uint64], before: Ids, attempt: int) -> NDArray[np.int64]:
        """Another class than `before`, drawn by frequency  # (n,), (n,) -> (n,)

        The labels of all classes lie on a line; a place is drawn among those that are not of `before`.
        """
        own = self._counts[before]
        places = within(
            words(NOISE, (states, _unsigned(before)), attempt + 1)[:, attempt], self._ends[-1] - own
        )
        places += np.where(places >= self._ends[before] - own, own, 0)
        return np.searchsorted(self._ends, places, side="right")

    def _others(
        self, states: NDArray[np.uint64], before: Ids, rows: NDArray[np.int64], keys: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Drawn classes that their row neither had (`keys`, rising) nor was given for another label.

        Where two labels of a row draw the same class at once, the lower label gets it. A label for which no
        class is left keeps its first draw: the row then has a class less.
        """
        drawn = np.empty(before.size, np.int64)
        waiting = np.arange(before.size)
        for attempt in range(1, ATTEMPTS + 1):
            drawn[waiting] = self._drawn(states[waiting], before[waiting], attempt)
            wanted = rows[waiting] + drawn[waiting]
            new, places = np.unique(wanted, return_index=True)
            fresh = places[~np.isin(new, keys, assume_unique=True)]
            keys = np.sort(np.concatenate([keys, wanted[fresh]]))
            waiting = np.delete(waiting, fresh)
            if not waiting.size:
                return drawn
            keys = keys[np.isin(keys // self._counts.size, rows[waiting] // self._counts.size)]
        taken: list[int] = keys.tolist()
        for i in waiting.tolist():
            row = int(rows[i])
            had = taken[bisect_left(taken, row) : bisect_left(taken, row + self._counts.size)]
            drawn[i] = self._left(states[i : i + 1], before[i : i + 1], [key - row for key in had])
            insort(taken, row + int(drawn[i]))
        return drawn

    def _left(self, state: NDArray[np.uint64], before: Ids, had: list[int]) -> int:
        """A class that is not among `had`, drawn by frequency; the first draw if there is none."""
        counts = self._counts.copy()
        counts[had] = 0
        ends = np.cumsum(counts)
        if not ends[-1]:
            return int(self._drawn(state, before, 1)[0])
        place = within(words(NOISE, (state, _unsigned(before)), ATTEMPTS + 2)[:, -1], ends[-1])
        return int(np.searchsorted(ends, place[0], side="right"))


def _unsigned(classes: Ids) -> NDArray[np.uint64]:
    return classes.astype(np.uint64)
