"""Which 800 samples of a task are trained on, and which 200 validate: our own split, by a published rule.

VTAB-1k never published the ids of its samples; they hang on the order of TensorFlow Datasets (for smallNORB,
the 200 come from its test set). Ours hang on nothing but the pictures. The rule, named `NAME`:

1. A picture is known by the BLAKE2b-128 of its original file. Of equal pictures, the one whose name is first
   by code point counts, so none is on both sides.
2. Each class gives its share of the 1,000, rounded down. What is left to give goes, one each, to the classes
   with the largest remainders; of equal ones, to the class whose name is first.
3. The samples of a class are ranked by `order.keyed` of the picture with `KEY`; the first ones are taken.
4. Each class gives its share of the 200 from what it gave to the 1,000, by the rule of 2: its last ones.

So the 800 and the 200 together are the 1,000, and shards, order and machine do not matter.
"""

import json
import os
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hpcscale.data.manifest import DataError, digest
from hpcscale.data.order import identities, keyed
from hpcscale.data.store import DataSet
from hpcscale.files import check_output, read_bytes, write_new
from hpcscale.labels.targets import OwnClasses
from hpcscale.labels.vocabulary import Vocabulary
from hpcscale.pairs import escape
from hpcscale.transfer.vtab.tasks import Task

NAME = "hashed-1"
KEY = 0x56544142  # of this rule, for ever; another draw would be another name


Tags = dict[str, tuple[str, ...]]  # by name of the sample


class Labelled(NamedTuple):
    """n samples with one class each."""

    names: list[str]  # source ids
    pictures: NDArray[np.uint64]  # (n,) `order.identities`
    classes: NDArray[np.int64]  # (n,) places in `labels`
    labels: Sequence[str]
    samples: NDArray[np.int64]  # (n,) ids in their data set


class Split(NamedTuple):
    """Rows of `Labelled`, by class, and within a class by hash."""

    train: NDArray[np.int64]
    val: NDArray[np.int64]


def split(samples: Labelled, train: int = 800, val: int = 200) -> Split:
    """Draw exactly so many samples by the rule. Raises DataError where there are fewer different pictures."""
    by_name = np.array(sorted(range(len(samples.names)), key=samples.names.__getitem__), np.int64)
    rows = by_name[np.unique(samples.pictures[by_name], return_index=True)[1]]
    if len(rows) < train + val:
        raise DataError(f"{len(rows)} different pictures, and {train} + {val} are wanted; choose fewer")
    rows = rows[np.lexsort((keyed(samples.pictures[rows], KEY), samples.classes[rows]))]
    counts = np.bincount(samples.classes[rows], minlength=len(samples.labels))
    taken = apportion(counts, train + val, samples.labels)
    held = apportion(taken, val, samples.labels)
    of = samples.classes[rows]
    rank = np.arange(len(rows)) - (np.cumsum(counts) - counts)[of]
    first = (taken - held)[of]
    return Split(rows[rank < first], rows[(rank >= first) & (rank < taken[of])])


def apportion(counts: NDArray[np.int64], total: int, labels: Sequence[str]) -> NDArray[np.int64]:
    """`total` divided in proportion to counts, by largest remainders  # (classes,) -> (classes,) int64

    No part is larger than its count, if `total` is not above their sum. Ties go to the first label.
    """
    whole = max(1, int(counts.sum()))
    parts, remainders = np.divmod(counts * total, whole)
    order = sorted(range(len(labels)), key=lambda c: (-int(remainders[c]), labels[c]))
    parts[order[: total - int(parts.sum())]] += 1
    return parts


def of_data(data: DataSet, vocabulary: Vocabulary | None = None) -> Labelled:
    """The samples of a packed training set that have a class. Without a vocabulary each tag is one.

    Raises DataError of a sample with two classes: a vocabulary says which tags are those of the task.
    """
    everything = np.arange(data.samples, dtype=np.int64)
    offsets, ids = data.tag_rows(everything)
    labels: Sequence[str] = data.tags
    if vocabulary is not None:
        offsets, ids = OwnClasses(vocabulary, data.tags).classes(offsets, ids)
        labels = vocabulary.classes
    lengths = np.diff(offsets)
    if (several := np.flatnonzero(lengths > 1)).size:
        sample = int(several[0])
        found = ", ".join(repr(labels[c]) for c in ids[offsets[sample] : offsets[sample + 1]])
        raise DataError(
            f"{data.folder}: {data.names(several[:1])[0]!r} has {found}; a task needs one class: choose by a "
            "vocabulary"
        )
    kept = everything[lengths == 1]
    pictures = identities(data.source_digests(kept))
    return Labelled(data.names(kept), pictures, ids.astype(np.int64), labels, kept)


def write_hashed(
    data: DataSet,
    folder: Path,
    vocabulary: Vocabulary | None = None,
    sizes: tuple[int, int] = (800, 200),
    task: Task | None = None,
) -> Path:
    """Draw the split of a packed set and write it. sizes: of train and val. Returns split.json.

    `ids` in it is the BLAKE2b-128 of both parts' sorted identities: it is the same wherever the split is.
    Raises DataError, also where the set has not the classes of the task, and OutputError.
    """
    samples = of_data(data, vocabulary)
    classes = len(np.unique(samples.classes))
    if task is not None and classes != task.classes:
        raise DataError(f"{data.folder}: {classes} classes; {task.name} has {task.classes}")
    found = split(samples, *sizes)
    parts = {f"train{sizes[0]}": found.train, f"val{sizes[1]}": found.val}
    words = b"".join(np.sort(samples.pictures[rows]).astype("<u8").tobytes() for rows in found)
    tags = {part: _tags(data, samples, rows) for part, rows in parts.items()}
    about = {
        "split": NAME,
        "task": task.name if task else None,
        "key": KEY,
        "ids": digest(words).hex(),
        "data": data.digest,
        "classes": classes,
    }
    files = texts(tags | {"".join(tags): {**tags[f"train{sizes[0]}"], **tags[f"val{sizes[1]}"]}}, about)
    return write(folder, files, [data.folder]) / "split.json"


def _tags(data: DataSet, samples: Labelled, rows: NDArray[np.int64]) -> Tags:
    """All tags that the data set has of these rows, also those that are no class."""
    offsets, ids = data.tag_rows(samples.samples[rows])
    words = [data.tags[tag] for tag in ids.tolist()]
    return {
        samples.names[row]: tuple(words[begin:end])
        for row, (begin, end) in zip(rows.tolist(), pairwise(offsets.tolist()), strict=True)
    }


def texts(parts: dict[str, Tags], about: dict[str, Any]) -> dict[str, str]:
    """Files of a split, by name: each part as a list that `[selection] names` reads, PART.txt, and as a
    manifest that packs it alone, PART.jsonl; last split.json, which says what split it is and how many names
    each part has."""
    files = {}
    for part, tags in parts.items():
        files[f"{part}.txt"] = "".join(escape(name) + "\n" for name in sorted(tags))
        files[f"{part}.jsonl"] = manifest(tags)
    said = about | {"samples": {part: len(tags) for part, tags in parts.items()}}
    return files | {"split.json": json.dumps(said, indent=2) + "\n"}


def manifest(tags: Tags) -> str:
    """The manifest of pictures, by name."""
    return "".join(json.dumps({"image": name, "tags": words}) + "\n" for name, words in sorted(tags.items()))


def write(folder: Path, files: dict[str, str], inputs: Sequence[Path]) -> Path:
    """Write text files into a folder, in their order. Returns it.

    Raises OutputError, before it writes any, where one is there with other content or lies in an input.
    """
    contents = {folder / name: os.fsencode(text) for name, text in files.items()}
    for file in contents:
        check_output(file, inputs, lambda file: read_bytes(file) == contents[file])
    for file, content in contents.items():
        write_new(file, content)
    return folder
