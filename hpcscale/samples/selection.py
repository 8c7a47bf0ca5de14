"""A selection of a data set, outside a run: for what counts it, shows it, or describes its labels.

In: a selection's TOML file, which has the keys of a recipe's [selection], and a data set. Out: its samples, a
chunk at a time, in constant memory whatever the size of either.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpcscale import catalogue, names
from hpcscale.config import Config, Selection
from hpcscale.data.store import DataSet
from hpcscale.labels import restrict
from hpcscale.labels.vocabulary import Vocabulary
from hpcscale.progress import Progress, none
from hpcscale.samples.candidates import Candidates, Tally, Walk, name_lists
from hpcscale.samples.limits import limits, trained_on
from hpcscale.sections import check, read_toml

NO_CLASSES = Vocabulary((), (), (), {}, (), 0, 0, {})


class Selected:
    """Some samples of a data set, with the classes that they have."""

    def __init__(
        self,
        data: DataSet,
        selection: Selection,
        vocabulary: Vocabulary | None = None,
        unlabelled: str = "drop",
        progress: Progress = none,
    ) -> None:
        """vocabulary: whose classes count; None: then samples have no classes, and none is left out for that.
        unlabelled: as data.unlabelled. Walks the data set, once or some times.

        Raises DataError, VocabularyError and ConfigError where the selection does not fit the data.
        """
        self.vocabulary = NO_CLASSES if vocabulary is None else vocabulary
        if vocabulary is not None and selection.classes is not None:
            chosen = restrict.read_classes(selection.classes, vocabulary)
            self.vocabulary = restrict.restricted(vocabulary, chosen)
        self._data, self._progress = data, progress
        self._settings = _settings(data, selection, unlabelled if vocabulary else "keep")
        self._lists = name_lists(self._settings)
        self._limits = limits(self._settings, self._candidates, len(self.vocabulary.classes))
        self.tally = Tally()  # of what `chunks` last looked at

    def chunks(self) -> Iterator[Candidates]:
        """The selected samples, by rising id."""
        for rows in self._candidates():
            yield rows.keep(trained_on(self._settings, rows, self._limits))

    def _candidates(self) -> Iterator[Candidates]:
        walk = Walk(self._settings, self._data, self.vocabulary, self._lists)
        yield from walk(range(len(self._data.entries)), self._progress)
        self._lists.refuse_unknown(self._data)
        self.tally = walk.tally


def read(place: str) -> Selection:
    """The selection of a file, or of a name in the catalogue. Raises ConfigError."""
    file = Path(place)
    try:
        name = None if file.exists() else names.parse(place)
    except names.BadName:
        name = None
    if name is None:
        return check(Selection, read_toml(file), str(file))
    found = catalogue.read(catalogue.needed())
    return found.entries[catalogue.look_up(found, place, name, "--selection")].selection


def info(data: DataSet, selected: Selected) -> dict[str, Any]:
    """What a selection holds: the figures of `data.verify.info` that depend on it, and with a vocabulary the
    number of its classes that have samples (classes) and of samples without a class (unlabelled)."""
    samples = size = tags = untagged = 0
    shards: set[int] = set()
    distinct = np.zeros(len(data.tags), np.bool_)
    counts = np.zeros(len(selected.vocabulary.classes), np.int64)
    for rows in selected.chunks():
        offsets, ids = data.tag_rows(rows.samples)
        samples += len(rows.samples)
        size += int(data.jpeg_sizes(rows.samples).sum())
        shards.update(np.unique(np.searchsorted(data.starts, rows.samples, side="right")).tolist())
        distinct[ids] = True
        tags += len(ids)
        untagged += int(np.count_nonzero(np.diff(offsets) == 0))
        counts += np.bincount(rows.classes, minlength=counts.size)
    found = {
        "samples": samples,
        "shards": len(shards),
        "bytes": size,
        "labels": int(np.count_nonzero(distinct)),
        "untagged": untagged,
        "tags_per_sample": round(tags / max(samples, 1), 4),
    }
    if counts.size:
        found |= {"classes": int(np.count_nonzero(counts)), "unlabelled": selected.tally.unlabelled}
    return found


def spread(selected: Selected, count: int) -> NDArray[np.int64]:
    """`count` samples of a selection, or all, evenly over it."""
    total = sum(len(rows.samples) for rows in selected.chunks())
    wanted = np.arange(min(count, total), dtype=np.int64) * total // max(min(count, total), 1)
    found, begin = [np.empty(0, np.int64)], 0
    for rows in selected.chunks():
        here = wanted[(wanted >= begin) & (wanted < begin + len(rows.samples))]
        found.append(rows.samples[here - begin])
        begin += len(rows.samples)
    return np.concatenate(found)


def _settings(data: DataSet, selection: Selection, unlabelled: str) -> Config:
    """The configuration of a run that would train on the selection; the rest of it does not matter."""
    folder = {"train": str(data.folder), "vocabulary": "none", "unlabelled": unlabelled}
    values = {"data": folder, "schedule": {"lr": 1.0}, "train": {"steps": 1, "batch": 1}}
    return check(Config, values, "selection").model_copy(update={"selection": selection})
