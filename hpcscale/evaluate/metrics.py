"""Metrics of ranked predictions.

In: Results, what is kept of every sample of an evaluation: its labels and its K best classes, not all its
scores. Out: accuracies and mean average precisions as plain numbers. NumPy alone, no model and no files:
`classify.py` calls this after it has gathered the Results of all ranks, and an audit calls it again on a part
of them (`select`).

mAP@100 is what Sun et al. 2017 (section 4.2) watch: mean average precision over each picture's 100 best
classes, "the class AP is weighted by how common the class is". The exact formula was never published, so both
readings are given:

(a) by class: AP_c over all pictures, ranked by the score of class c, where a picture outside whose 100 best
    classes c lies is not retrieved. AP_c = (sum of the precision at each retrieved positive) / (positives of
    c), so that a class which no picture predicts has AP 0 and does not vanish. mAP = sum w_c AP_c / sum w_c
    over classes with a positive; classes without one are left out. With K >= classes and w = 1 it is
    scikit-learn's macro average precision.
(b) by picture: AP_i = (sum of w_c P(c) over the positives c among the 100 best of picture i) / (sum of the
    100 largest w_c of its labels); P(c) is the precision of the picture's list down to c. mAP = mean over
    pictures with a label (whose labels do not all weigh 0).

Equal scores are one step: P counts everything that scores at least as much. So no metric depends on the order
of samples or of equal scores. Only which of several equal classes is the Kth best has to be decided: the
lower id.
"""

from typing import NamedTuple, SupportsFloat

import numpy as np
from numpy.typing import NDArray

TOP = 100  # classes kept of every sample


class Results(NamedTuple):
    """What an evaluation keeps of its n samples, in rising order of the sample ids; about 1 KB a sample."""

    samples: NDArray[np.int64]  # (n,) ids, unique
    losses: NDArray[np.float32]  # (n,)
    truths: NDArray[np.int32]  # (n,) the class of a sample whose tags select exactly one, else -1
    guesses: NDArray[np.int32]  # (n, g) the 5 best of the classes that can be a truth, best first
    classes: NDArray[np.int32]  # (n, k) the K best of all classes, best first
    scores: NDArray[np.float32]  # (n, k) their scores, falling
    label_offsets: NDArray[np.int64]  # (n + 1,) CSR of the labels, ancestors included
    labels: NDArray[np.int32]


Metrics = dict[str, int | float | None]  # None: not defined on these samples


def measure(results: Results, weights: NDArray[np.float64]) -> Metrics:
    """All metrics of the samples.

    weights: (classes,) of the weighted averages, usually each class's number of training samples; only ratios
    matter. Keys: samples; loss, mean over samples; single, samples with a truth, and top1 and top5, the part
    of them whose truth is among the first 1 and 5 guesses; classes, those with a positive; map100 and
    map100_uniform, reading (a) weighted and with equal weights; image_map100 and image_map100_uniform,
    reading (b).
    """
    correct = results.guesses == results.truths[:, None]  # never where there is no truth, -1
    single = int(np.count_nonzero(results.truths >= 0))
    precisions, positives = average_precisions(results, weights.size)
    seen = positives > 0
    uniform = np.ones_like(weights)
    return {
        "samples": results.samples.size,
        "loss": _ratio(results.losses.sum(dtype=np.float64), results.samples.size),
        "single": single,
        "top1": _ratio(np.count_nonzero(correct[:, :1]), single),
        "top5": _ratio(np.count_nonzero(correct[:, :5]), single),
        "classes": int(np.count_nonzero(seen)),
        "map100": _ratio(precisions[seen] @ weights[seen], weights[seen].sum()),
        "map100_uniform": _ratio(precisions[seen] @ uniform[seen], uniform[seen].sum()),
        "image_map100": _image_map(results, weights),
        "image_map100_uniform": _image_map(results, uniform),
    }


def average_precisions(results: Results, classes: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Reading (a): (classes,) AP, NaN for a class without positives, and (classes,) positives."""
    positives = np.bincount(results.labels, minlength=classes)
    hits = _hits(results, classes).ravel()
    ranked = results.classes.ravel()
    precisions = step_precisions(ranked, results.scores.ravel(), hits)
    sums = np.bincount(ranked[hits], weights=precisions[hits], minlength=classes)
    return np.divide(sums, positives, out=np.full(classes, np.nan), where=positives > 0), positives


def step_precisions(
    lists: NDArray[np.integer], scores: NDArray[np.float32], hits: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Precision of many ranked lists at each of their entries.

    lists (m,): which list an entry is in; scores (m,); hits (m,): the entry is a positive. Returns (m,): the
    share of hits among the entries of the same list that score at least as much. O(m log m), about 60 bytes
    an entry.
    """
    if not scores.size:
        return np.zeros(0)
    order = np.lexsort((-scores, lists))
    first = np.ones(scores.size, bool)  # of a list
    first[1:] = np.diff(lists[order]) != 0
    step = first.copy()  # first of a step: entries of one list with the same score
    step[1:] |= np.diff(scores[order]) != 0
    start = np.flatnonzero(first)[np.cumsum(first) - 1]
    end = np.append(np.flatnonzero(step)[1:], scores.size)[np.cumsum(step) - 1]
    found = np.append(0, np.cumsum(hits[order]))
    precisions = np.empty(scores.size)
    precisions[order] = (found[end] - found[start]) / (end - start)
    return precisions


def select(results: Results, keep: NDArray[np.integer]) -> Results:
    """The rows `keep` (m,) of the results, in that order."""
    counts = np.diff(results.label_offsets)[keep]
    offsets = np.append(0, np.cumsum(counts))
    source = np.arange(offsets[-1]) + np.repeat(results.label_offsets[:-1][keep] - offsets[:-1], counts)
    return Results._make([*(field[keep] for field in results[:6]), offsets, results.labels[source]])


def constant(results: Results, scores: NDArray[np.float64], candidates: NDArray[np.integer]) -> Results:
    """The same samples, predicted by the same scores (classes,) whatever the picture: a baseline.

    candidates (c,): classes that can be a truth, rising. The loss is left undefined (NaN), for scores need
    not be probabilities.
    """
    n = results.samples.size
    best = np.argsort(-scores, kind="stable")[:TOP].astype(np.int32)
    guesses = candidates[np.argsort(-scores[candidates], kind="stable")[:5]].astype(np.int32)
    return results._replace(
        losses=np.full(n, np.nan, np.float32),
        guesses=np.tile(guesses, (n, 1)),
        classes=np.tile(best, (n, 1)),
        scores=np.tile(scores[best].astype(np.float32), (n, 1)),
    )


def _hits(results: Results, classes: int) -> NDArray[np.bool_]:
    """(n, k): the predicted class is one of the sample's labels."""
    rows = np.arange(results.samples.size)
    labelled = np.repeat(rows, np.diff(results.label_offsets)) * classes + results.labels
    return np.isin(rows[:, None] * classes + results.classes, labelled)


def _image_map(results: Results, weights: NDArray[np.float64]) -> float | None:
    n, k = results.classes.shape
    rows = np.repeat(np.arange(n), k)
    hits = _hits(results, weights.size).ravel()
    precisions = step_precisions(rows, results.scores.ravel(), hits)
    gains = precisions[hits] * weights[results.classes.ravel()[hits]]
    # The best that a list of k classes can reach: the k heaviest labels of the picture.
    of = np.repeat(np.arange(n), np.diff(results.label_offsets))
    heaviest = np.lexsort((-weights[results.labels], of))
    within = np.arange(of.size) - results.label_offsets[of] < k
    limit = np.bincount(of[within], weights=weights[results.labels[heaviest]][within], minlength=n)
    counted = limit > 0
    reached = np.bincount(rows[hits], weights=gains, minlength=n)
    return _ratio((reached[counted] / limit[counted]).sum(), np.count_nonzero(counted))


def _ratio(part: SupportsFloat, whole: SupportsFloat) -> float | None:
    part, whole = float(part), float(whole)
    return part / whole if whole > 0 and np.isfinite(part) else None
