"""Accuracy by reassessed labels (ReaL): the votes of raters that somebody else has collected, for ImageNet's
validation pictures.

Beyer et al. 2020, "Are we done with ImageNet?": a prediction is right if it is one of the picture's labels;
pictures without a label are left out. In: an evaluation of these pictures, and `real.json` as published, a
list of lists: the labels of the 50,000 pictures in their order, classes from 0 to 999 in the order of their
wnids.

Picture i, from 0, is the one whose name holds ILSVRC2012_val_ and i + 1 in eight digits. A class of the
evaluation is ImageNet's class i if the file `classes` has its name in line i + 1. Without that file, exactly
1,000 classes must have a wnid as their name, in whose order they are taken.
"""

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hpcscale.files import FileError, read_json, read_text
from hpcscale.text import shown
from hpcscale.transfer.outcomes import Outcomes

NAME = re.compile(r"ILSVRC2012_val_([0-9]{8})(?![0-9])")
WNID = re.compile(r"n[0-9]{8}")
CLASSES = 1000


class Reassessed(NamedTuple):
    judged: int  # pictures with a label
    correct: int
    empty: int  # pictures left out: no label
    others: int  # pictures left out: their names are none of ImageNet's validation pictures
    accuracy: float | None  # correct / judged


def read_labels(file: Path) -> list[list[int]]:
    """The labels of each picture. Raises FileError, naming the first picture with anything else."""
    found = read_json(file)
    if not isinstance(found, list):
        raise FileError(f"{file}: expected a list of lists of classes, found {type(found).__name__}")
    for index, labels in enumerate(found):
        good = isinstance(labels, list) and all(type(c) is int and 0 <= c < CLASSES for c in labels)
        if not good:
            raise FileError(
                f"{file}: picture {index}: expected a list of classes from 0 to {CLASSES - 1}, "
                f"found {labels!r:.80}"
            )
    return found


def reassess(found: Outcomes, labels: Path, classes: Path | None = None) -> Reassessed:
    """The accuracy of an evaluation by reassessed labels. Raises FileError, also if no picture is known."""
    right = read_labels(labels)
    numbers = _numbers(found, classes)
    judged = correct = empty = 0
    known = [(row, match) for row, name in enumerate(found.names) if (match := NAME.search(name))]
    for row, match in known:
        place = int(match[1]) - 1
        if not 0 <= place < len(right):
            raise FileError(f"{labels}: has {len(right)} pictures, none of the name {found.names[row]!r:.80}")
        empty += not right[place]
        judged += bool(right[place])
        prediction = int(found.predictions[row])
        correct += prediction >= 0 and int(numbers[prediction]) in right[place]
    if not known:
        raise FileError(f"{found.folder}: no name of a picture holds ILSVRC2012_val_ and eight digits")
    others = len(found.names) - len(known)
    return Reassessed(judged, correct, empty, others, correct / judged if judged else None)


def _numbers(found: Outcomes, file: Path | None) -> NDArray[np.int64]:
    """(classes,) ImageNet's number of each class of the evaluation; -1: none."""
    if file is None:
        names = sorted(name for name in found.classes if WNID.fullmatch(name))
        if len(names) != CLASSES:
            raise FileError(
                f"{found.folder}: {len(names)} classes have a wnid as their name, not {CLASSES}: which is "
                "which class of ImageNet? Say it with --classes"
            )
    else:
        names = [shown(line) for line in read_text(file).splitlines()]
        if len(names) != CLASSES:
            raise FileError(f"{file}: {len(names)} lines, expected a class for each of {CLASSES}")
        if unknown := [(number, name) for number, name in enumerate(names, 1) if name not in found.classes]:
            number, name = unknown[0]
            raise FileError(f"{file}:{number}: no class {name!r:.80} in {found.folder}")
    number_of = {name: number for number, name in enumerate(names)}
    return np.array([number_of.get(name, -1) for name in found.classes], np.int64)


def as_text(found: Reassessed) -> str:
    accuracy = "-" if found.accuracy is None else f"{found.accuracy:.4f}"
    left_out = f"left out: {found.empty} without a label" + (
        f", {found.others} of other names" if found.others else ""
    )
    return f"top-1 accuracy, ReaL      {accuracy:>8}  of {found.judged} pictures; {left_out}"
