"""Every mistake of an evaluation on one HTML page: the picture, what was predicted, what is true, how surely.

As the galleries of Kolesnikov et al. 2020 (BiT), supplement, appendix C: the prediction first, the truth
second. In: a run with an evaluation, its pictures, perhaps embedding files. Out: a page that needs no server
and no other file, the surest mistakes first. The page itself is mistakes.html beside this file.

The confidence is of the scores that an evaluation keeps, those of the 100 best classes. With the logistic
loss it is the class's own probability. With softmax it is the share among these classes: exact up to 100
classes, and beyond that an upper bound, since the sum lacks the others. Where the prediction is not among the
100 best, as an ancestor may push it out, there is none.

About 7.5 KB a picture: 10,000 mistakes without neighbours are 75 MB. The browser decodes what is in sight.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hpcscale import config
from hpcscale.data.codes import POOLINGS, Codes, read_codes
from hpcscale.data.store import DataSet, open_data
from hpcscale.files import FileError, Usage, check_output, marked
from hpcscale.progress import Progress, none
from hpcscale.review import page
from hpcscale.text import shown
from hpcscale.transfer.outcomes import Outcomes, open_pictures, read

SIDE = 176  # of a thumbnail, pixels
MARK = b'content="hpcscale transfer mistakes"'  # in mistakes.html: a page that may be replaced
NEAREST = 3
TAGS = 4  # of a training picture that are shown


class Neighbours(NamedTuple):
    """Where the nearest training pictures are looked for."""

    test: Path  # embedding file of the data set that was evaluated
    training: Path  # of the data set that was trained on
    pictures: Path | None = None  # that data set's folder; by default `data.train` of the run
    most: int = NEAREST  # neighbours of each mistake


class Nearest(NamedTuple):
    """The nearest training pictures of m mistakes."""

    data: DataSet
    samples: NDArray[np.int64]  # (m, k) of `data`; -1: there are no more
    cosines: NDArray[np.float64]  # (m, k)


class Gallery(NamedTuple):
    mistakes: int
    pictures: int  # with those of the training data
    missing: list[str]  # that cannot be decoded


def gallery(
    run: Path,
    out: Path,
    which: str | None = None,
    data: Path | None = None,
    neighbours: Neighbours | None = None,
    progress: Progress = none,
) -> Gallery:
    """Write the page `out`. data: where the data set is, if it has moved.

    Raises ConfigError, DataError, FileError and Usage; then nothing is written. Memory: names, a block of
    pictures, and with neighbours 512 MB of the training pictures' features at a time.
    """
    found = read(run, which)
    settings = config.read(run / "config.json")
    files = [neighbours.test, neighbours.training, neighbours.pictures] if neighbours else []
    check_output(out, [Path(found.data) if found.data else None, data, *files], marked(MARK))
    sure = confidences(found, settings.loss.name)
    rows = found.wrong
    order = np.lexsort((rows, -np.nan_to_num(sure, nan=-1.0)))
    rows, sure = rows[order], sure[order]
    opened = open_pictures(found, rows, data)
    near = None
    if neighbours and rows.size:
        near = nearest(found, opened, rows, neighbours, Path(settings.data.train))
    sets = [(opened, found.results.samples[rows])]
    if near:
        sets.append((near.data, np.unique(near.samples[near.samples >= 0])))
    content = _content(run, found, rows, sure, near, sets) | {"score": settings.loss.name}
    missing = page.fill("mistakes.html", out, content, sets, SIDE, progress)
    return Gallery(rows.size, len(content["names"]), [content["names"][index] for index in missing])


def confidences(found: Outcomes, loss: str) -> NDArray[np.float64]:
    """(m,) how sure each wrong prediction is, from 0 to 1; NaN where its score was not kept."""
    rows = found.wrong
    scores = found.results.scores[rows].astype(np.float64)
    at = found.results.classes[rows] == found.predictions[rows][:, None]
    own = np.where(at, scores, -np.inf).max(1, initial=-np.inf)
    own[~at.any(1)] = np.nan
    if loss == "logistic":
        return np.asarray(np.exp(-np.logaddexp(0, -own)))
    return np.asarray(np.exp(own - np.logaddexp.reduce(scores, axis=1)))


def nearest(
    found: Outcomes, opened: DataSet, rows: NDArray[np.int64], where: Neighbours, trained: Path
) -> Nearest:
    """The training pictures whose features are nearest by cosine to those of the rows (m,) of an evaluation.

    Where both files are of one data set, what was evaluated is no neighbour; of set train, only the picture
    itself is none. Raises DataError and FileError for files of other data, or by other networks.
    """
    from hpcscale.dedup import cosine

    test, training = _embeddings(where.test, opened), _embeddings(where.training, None)
    if (test.checkpoint, test.method) != (training.checkpoint, training.method):
        raise FileError(f"{where.test} and {where.training}: made by other networks, or pooled otherwise")
    data = opened if training.source == opened.digest else open_data(where.pictures or trained)
    if training.source != data.digest:
        raise FileError(f"{where.training}: not of {data.folder}; say with --pictures of which data")
    own, other = _samples(where.test, test, opened), _samples(where.training, training, data)
    wanted = found.results.samples[rows]
    places = np.searchsorted(own, wanted).clip(max=max(0, len(own) - 1))
    known = np.flatnonzero(own[places] == wanted) if len(own) else np.zeros(0, np.int64)
    allowed = np.arange(len(other))
    if data is opened and found.set != "train":
        allowed = allowed[~np.isin(other, found.results.samples)]
    block = max(1, cosine.FLOATS // training.codes.shape[1])
    parts = (training.codes[allowed[begin : begin + block]] for begin in range(0, len(allowed), block))
    threads = len(os.sched_getaffinity(0))
    count = min(where.most + 1, max(1, len(allowed)))  # one more: it may be the picture itself
    columns, distances = cosine.nearest(test.codes[places[known]], parts, count, None, threads)
    samples = np.full((rows.size, where.most), -1, np.int64)
    cosines = np.full((rows.size, where.most), np.nan)
    for place, column, distance in zip(known.tolist(), columns, distances, strict=True):
        picked = other[allowed[column[column >= 0]]]
        keep = np.ones(len(picked), bool) if data is not opened else picked != wanted[place]
        taken = picked[keep][: where.most]
        samples[place, : len(taken)] = taken
        cosines[place, : len(taken)] = 1 - distance[: len(picked)][keep][: len(taken)] / cosine.UNIT
    return Nearest(data, samples, cosines)


def _embeddings(file: Path, data: DataSet | None) -> Codes:
    found = read_codes(file)
    if found.method not in POOLINGS:
        raise Usage(f"{file}: holds {found.method} hashes; `dedup embed` makes a file of features")
    if data is not None and found.source != data.digest:
        raise FileError(f"{file}: not of {data.folder}, whose pictures were evaluated")
    return found


def _samples(file: Path, found: Codes, data: DataSet) -> NDArray[np.int64]:
    """The sample of `data` that each row is of, rising: all but those that could not be decoded."""
    lines = found.quarantine.tobytes().splitlines()
    samples = np.setdiff1d(np.arange(data.samples), [json.loads(line)["row"] for line in lines])
    if len(samples) != len(found.names):
        raise FileError(f"{file}: has {len(found.names)} pictures, {data.folder} {len(samples)}")
    return samples


def _content(
    run: Path,
    found: Outcomes,
    rows: NDArray[np.int64],
    sure: NDArray[np.float64],
    near: Nearest | None,
    sets: list[tuple[DataSet, NDArray[np.int64]]],
) -> dict[str, Any]:
    """What the page knows."""
    names, tags = [found.names[row] for row in rows.tolist()], []
    beside: list[list[list[float]]] = [[] for _ in rows]
    if near:
        data, samples = sets[1]
        number = {sample: rows.size + index for index, sample in enumerate(samples.tolist())}
        names += [shown(name) for name in data.names(samples)]
        offsets, ids = data.tag_rows(samples)
        tags = [
            ", ".join(shown(data.tags[tag]) for tag in ids[begin:end][:TAGS])
            for begin, end in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)
        ]
        beside = [
            [[number[s], round(c, 6)] for s, c in zip(*each, strict=True) if s >= 0]
            for each in zip(near.samples.tolist(), near.cosines.tolist(), strict=True)
        ]
    predictions, truths = found.predictions[rows].tolist(), found.results.truths[rows].tolist()
    used = sorted({*predictions, *truths}, key=lambda c: (found.classes[c], c))
    number_of = {c: index for index, c in enumerate(used)}
    mistakes = [
        [number_of[predicted], number_of[truth], None if np.isnan(p) else round(p, 6), neighbours]
        for predicted, truth, p, neighbours in zip(predictions, truths, sure.tolist(), beside, strict=True)
    ]
    return {
        "id": hashlib.blake2b(json.dumps([names, mistakes]).encode(), digest_size=8).hexdigest(),
        "run": shown(run.resolve().name),
        "set": found.set,
        "step": found.step,
        "judged": int(found.judged.sum()),
        "classes": [found.classes[c] for c in used],
        "among": min(found.results.scores.shape[1], len(found.classes)),
        "all": len(found.classes),
        "names": names,
        "tags": tags,  # of the training pictures, which are the last of `names`
        "mistakes": mistakes,  # [predicted, truth, confidence, [[place in `names`, cosine], ...]]
        "block": page.BLOCK,
    }
