"""What classes a run sees, and how often: the long tail, labels per picture, pairs, what a sampling changes.

In: the own classes of samples (those that its tags select, without ancestors), walked twice in chunks, so
that memory does not grow with the samples. Out: plain values, which `labels stats --json` prints as they are,
and a column a class for its table and plots (report/classes.py).

Samples without a class are counted and left out of everything else, as `data.unlabelled` leaves them out of
training.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hpcscale import config, ops
from hpcscale.data.order import keyed
from hpcscale.data.store import DataSet
from hpcscale.labels.hierarchy import Hierarchy, depths, fan_outs
from hpcscale.labels.vocabulary import Vocabulary
from hpcscale.ops import Ids, Offsets
from hpcscale.progress import Progress, none
from hpcscale.samples import grouping
from hpcscale.samples.noise import Noise
from hpcscale.samples.sampling import classes_seen, entropy
from hpcscale.samples.selection import Selected

# Walks samples in chunks: row i of a chunk is the own classes of a sample, in CSR form, each once.
Rows = Callable[[], Iterable[tuple[Offsets, Ids]]]
SAMPLINGS = ("natural", "sqrt", "uniform")
FEW = (20, 100)  # samples; Sun et al. 2017 count the classes below these (section 3)
EXTREMES = 10  # classes named at each end
PAIRED = 1000  # classes of which pairs are counted, the most frequent: 8 MB of counts
PAIRS = 20  # named
BLOCK = 1 << 22  # pairs counted at a time
# What is told of the whole data set beside a part of it.
WHOLE = ("samples", "labelled", "unlabelled", "labels", "labels_per_picture", "labels_per_picture_closed",
         "classes", "without_samples", "below_20", "below_100", "depth", "fan_out", "fan_out_mean", "entropy",
         "distributions")  # fmt: skip


class Statistics(NamedTuple):
    summary: dict[str, Any]  # as JSON
    columns: dict[str, Sequence[Any] | NDArray[Any]]  # by name, a value for every class


class Counts(NamedTuple):
    """Of one walk. Histograms: the samples with k classes, at place k."""

    samples: int
    labelled: int  # with at least one class
    own: NDArray[np.int64]  # (classes,) samples whose tags select it
    closed: NDArray[np.int64]  # (classes,) samples in which it holds, by itself or by a descendant
    per_picture: NDArray[np.int64]
    per_picture_closed: NDArray[np.int64]


class Choice(NamedTuple):
    """What the statistics are of, as a recipe says it."""

    sampling: config.Sampling = config.Sampling()
    selection: config.Selection = config.Selection()
    noise: config.Noise = config.Noise()


def of_data(data: DataSet, vocabulary: Vocabulary, choice: Choice, progress: Progress = none) -> Statistics:
    """The statistics of a data set: of what a selection leaves of it, with noise.

    Where there is either, "whole" is what they would be without both, and "moved" the share of labels that
    are of other classes than there. Raises DataError, VocabularyError and ConfigError.
    """
    selected = Selected(data, choice.selection, vocabulary, progress=progress)
    found = measure(_rows(selected, choice.noise), selected.vocabulary, choice.sampling)
    found.summary.update(samples=data.samples, unlabelled=selected.tally.unlabelled, noise=choice.noise.share)
    plain = Choice(choice.sampling)
    if choice != plain:
        whole = of_data(data, vocabulary, plain, progress)
        found.summary["whole"] = {key: whole.summary[key] for key in WHOLE}
        found.summary["moved"] = _moved(found, whole)
    return found


def measure(rows: Rows, vocabulary: Vocabulary, sampling: config.Sampling) -> Statistics:
    """All there is to say of these rows, with `sampling` as the one that "entropy" is of."""
    tree = vocabulary.hierarchy()
    counts = count(rows, tree)
    most = np.argsort(-counts.own, kind="stable")[:PAIRED]
    most = most[counts.own[most] > 0]
    seen, together = _second_walk(rows, counts, sampling, most)
    shares = {name: times / max(times.sum(), 1e-300) for name, times in seen.items()}
    deep = depths(tree)
    distributions = {name: _distribution(share) for name, share in shares.items()}
    summary = {
        "samples": counts.samples,
        "labelled": counts.labelled,
        "unlabelled": counts.samples - counts.labelled,
        "classes": len(tree.names),
        **{f"below_{few}": int((counts.closed < few).sum()) for few in FEW},
        "without_samples": int((counts.closed == 0).sum()),
        "own": _tail(counts.own, tree.names),
        "closed": _tail(counts.closed, tree.names),
        "labels": int(counts.own.sum()),
        "labels_per_picture": _mean(counts.per_picture),
        "labels_per_picture_closed": _mean(counts.per_picture_closed),
        "labels_per_picture_histogram": _listed(counts.per_picture),
        "labels_per_picture_closed_histogram": _listed(counts.per_picture_closed),
        "depth": int(deep.max(initial=0)),
        "depth_histogram": _listed(np.bincount(deep)),
        **_fan_out(tree),
        "pairs_among": len(most),
        "pairs": _pairs(together, most, counts, tree.names),
        "sampling": sampling.model_dump(mode="json"),
        "entropy": distributions[sampling.name]["entropy"],
        "distributions": distributions,
    }
    columns = {"class": tree.names, "own": counts.own, "closed": counts.closed, "depth": deep, **shares}
    return Statistics(summary, columns)


def count(rows: Rows, tree: Hierarchy) -> Counts:
    """The first walk."""
    classes = len(tree.names)
    closure = ops.Closure(np.arange(classes, dtype=np.int32), tree.ancestor_offsets, tree.ancestor_ids)
    holds, sizes = np.zeros((2, classes), np.int64), np.zeros((2, classes + 1), np.int64)
    for offsets, own in rows():
        for which, (starts, ids) in enumerate(((offsets, own), closure.labels(offsets, own))):
            holds[which] += np.bincount(ids, minlength=classes)
            sizes[which] += np.bincount(np.diff(starts), minlength=classes + 1)
    samples = int(sizes[0].sum())
    return Counts(samples, samples - int(sizes[0, 0]), holds[0], holds[1], sizes[0], sizes[1])


def _rows(selected: Selected, noise: config.Noise) -> Rows:
    if not noise.share:
        return lambda: ((rows.offsets, rows.classes) for rows in selected.chunks())
    total = len(selected.vocabulary.classes)
    counts = np.zeros(total, np.int64)
    for rows in selected.chunks():
        counts += grouping.count(rows.offsets, rows.classes, total)
    change = Noise(noise, counts)
    return lambda: (
        change(keyed(rows.pictures, noise.seed), rows.offsets, rows.classes) for rows in selected.chunks()
    )


def _moved(one: Statistics, other: Statistics) -> float:
    """Half the sum of the differences between the shares of labels that are of each class."""
    shares = dict(zip(other.columns["class"], other.columns["natural"], strict=True))
    for name, share in zip(one.columns["class"], one.columns["natural"], strict=True):
        shares[name] -= share
    return float(sum(map(abs, shares.values()))) / 2


def _second_walk(
    rows: Rows, counts: Counts, sampling: config.Sampling, most: NDArray[np.int64]
) -> tuple[dict[str, NDArray[np.float64]], NDArray[np.int64]]:
    """How often each class is seen under every sampling, and together with which other of `most`."""
    samplings = {name: sampling.model_copy(update={"name": name}) for name in SAMPLINGS}
    seen = {name: np.zeros(counts.own.size) for name in SAMPLINGS}
    places = np.full(counts.own.size, -1, np.int64)
    places[most] = np.arange(most.size)
    together = np.zeros((most.size, most.size), np.int64)
    for offsets, own in rows():
        for name in SAMPLINGS:
            seen[name] += classes_seen(samplings[name], counts.own, counts.labelled, offsets, own)
        _add_pairs(offsets, places[own], together)
    return seen, together + together.T


def _add_pairs(offsets: Offsets, places: NDArray[np.int64], found: NDArray[np.int64]) -> None:
    """Count every two of `places` in one row, once; -1 counts in none. found (n, n), added to."""
    kept = places >= 0
    starts = np.append(0, np.cumsum(kept))[offsets]
    places = places[kept]
    # A place makes a pair with each that comes after it in its row.
    after = np.repeat(starts[1:], np.diff(starts)) - np.arange(places.size) - 1
    pairs = np.cumsum(after)
    if not places.size or not pairs[-1]:
        return
    cuts = np.searchsorted(pairs, np.arange(0, pairs[-1], BLOCK))
    for begin, end in zip(cuts, [*cuts[1:], places.size], strict=True):
        many = after[begin:end]
        step = np.arange(many.sum()) - np.repeat(np.cumsum(many) - many, many)
        first = np.repeat(places[begin:end], many)
        second = places[np.repeat(np.arange(begin, end), many) + 1 + step]
        found += np.bincount(first * len(found) + second, minlength=found.size).reshape(found.shape)


def _pairs(
    together: NDArray[np.int64], most: NDArray[np.int64], counts: Counts, names: Sequence[str]
) -> list[dict[str, Any]]:
    """The pairs of classes that most samples have. lift: how many times as often as if they came
    independently."""
    above = np.triu(together, 1).ravel()
    found = []
    for place in np.argsort(-above, kind="stable")[:PAIRS].tolist():
        if not above[place]:
            break
        a, b = most[place // len(most)], most[place % len(most)]
        lift = above[place] * counts.labelled / (counts.own[a] * counts.own[b])
        found.append({"classes": [names[a], names[b]], "samples": int(above[place]), "lift": float(lift)})
    return found


def _distribution(shares: NDArray[np.float64]) -> dict[str, float]:
    """How even a distribution is. head, tail: the share of labels that the most frequent 1 % of the classes
    that occur have, and the rarer half of them."""
    rising = np.sort(shares[shares > 0])
    bits = entropy(shares) / np.log(2)
    return {
        "entropy": bits,
        "effective_classes": 2.0**bits if rising.size else 0.0,
        "head": float(rising[rising.size - -(-rising.size // 100) :].sum()),
        "tail": float(rising[: rising.size // 2].sum()),
    }


def _tail(counts: NDArray[np.int64], names: Sequence[str]) -> dict[str, Any]:
    """Classes below FEW samples; of those that occur, the most frequent, and the rarest of the others from
    the rarest on. Of equal ones, the lower id is the more frequent."""
    order = np.argsort(-counts, kind="stable")
    order = order[counts[order] > 0]
    ends = {"top": order[:EXTREMES], "bottom": order[EXTREMES:][::-1][:EXTREMES]}
    return {
        **{f"below_{few}": int((counts < few).sum()) for few in FEW},
        **{end: [{"class": names[c], "samples": int(counts[c])} for c in ids] for end, ids in ends.items()},
    }


def _fan_out(tree: Hierarchy) -> dict[str, Any]:
    children = fan_outs(tree)
    inner = children[children > 0]
    return {
        "fan_out": int(children.max(initial=0)),
        "widest": tree.names[int(children.argmax())] if inner.size else None,
        "fan_out_mean": float(inner.mean()) if inner.size else 0.0,
        "fan_out_histogram": _listed(np.bincount(children)),
    }


def _mean(sizes: NDArray[np.int64]) -> float:
    """Of a histogram, without what is at 0."""
    return float(np.arange(sizes.size) @ sizes / max(1, sizes[1:].sum()))


def _listed(sizes: NDArray[np.integer[Any]]) -> list[list[int]]:
    """A histogram as pairs of value and how many have it, without values that none has."""
    values = np.flatnonzero(sizes)
    return [[value, number] for value, number in zip(values.tolist(), sizes[values].tolist(), strict=True)]
