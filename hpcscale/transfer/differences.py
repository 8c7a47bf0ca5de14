"""Two runs on the same pictures, class by class: who is right more often, and by how much; and confusions.

The accuracy of a class is over the pictures whose truth it is (its recall). Both runs saw the same pictures,
so the difference is one of paired proportions. Of n pictures, a are right in both runs, b in this one alone,
c in the other alone, d in neither: the difference is (b - c) / n. Its interval is method 10 of Newcombe 1998,
"Improved confidence intervals for the difference between binomial proportions based on paired data": Wilson's
score limits of both accuracies, their distances joined as those of correlated errors. It holds for few
pictures, and where both runs are all right. Mahajan et al. 2018 (supplement) show such effects per class
without intervals.

With 1,000 classes and intervals of 95 %, 50 of them miss their truth by chance: a class that was picked
because its interval is far from 0 needs a second look at other pictures.
"""

from collections import Counter
from math import sqrt
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hpcscale.files import FileError
from hpcscale.transfer.outcomes import Outcomes

CONFIDENCE = 0.95
Z = 1.959963984540054  # of the normal distribution, both sides


class Paired(NamedTuple):
    """Accuracies on the same n pictures, and this one minus the other, with an interval."""

    pictures: int
    accuracy: float
    other: float
    difference: float
    low: float
    high: float


class Differences(NamedTuple):
    pictures: int  # that both runs have judged
    left_out: int  # judged by one of them
    whole: Paired
    classes: dict[str, Paired]  # by name of the truth; the largest difference first
    apart: int  # classes whose interval does not hold 0


class Confusion(NamedTuple):
    """How often pictures of one class are taken for another."""

    truth: str
    predicted: str
    pictures: int
    share: float  # of the pictures of the truth


def paired(both: int, one: int, other: int, neither: int) -> Paired:
    """Compare two accuracies. both, one, other, neither: on how many pictures both runs are right, this one
    alone, the other alone, none; at least one picture."""
    n = both + one + other + neither
    first, second = (both + one) / n, (both + other) / n
    difference = (one - other) / n
    (low1, high1), (low2, high2) = wilson(both + one, n), wilson(both + other, n)
    product = (both + one) * (other + neither) * (both + other) * (one + neither)
    excess = float(both * neither - one * other)
    if excess > 0:  # Newcombe's continuity correction
        excess = max(excess - n / 2, 0.0)
    phi = excess / sqrt(product) if product else 0.0
    below = _joined(first - low1, high2 - second, phi)
    above = _joined(high1 - first, second - low2, phi)
    return Paired(n, first, second, difference, max(-1.0, difference - below), min(1.0, difference + above))


def wilson(right: int, n: int) -> tuple[float, float]:
    """Wilson's score interval (1927) of a share, `right` of `n`, at `CONFIDENCE`."""
    p, square = right / n, Z * Z
    middle = p + square / (2 * n)
    half = Z * sqrt(p * (1 - p) / n + square / (4 * n * n))
    return max(0.0, (middle - half) / (1 + square / n)), min(1.0, (middle + half) / (1 + square / n))


def _joined(one: float, other: float, phi: float) -> float:
    """The length of the difference of two errors with correlation phi."""
    return sqrt(max(0.0, one * one - 2 * phi * one * other + other * other))


def compare(found: Outcomes, other: Outcomes) -> Differences:
    """This run against another on the pictures that both have judged. Classes are matched by name.

    Raises FileError where there is no such picture, or where the two give a picture different truths.
    """
    known = any(found.digests) and any(other.digests)
    here, there = _judged(found, known), _judged(other, known)
    common = here.keys() & there.keys()
    if not common:
        raise FileError(f"{found.folder} and {other.folder}: no picture was evaluated in both")
    rows, others = (np.array([side[key] for key in sorted(common)]) for side in (here, there))
    names = [found.classes[c] for c in found.results.truths[rows].tolist()]
    for row, c, name in zip(rows.tolist(), other.results.truths[others].tolist(), names, strict=True):
        if other.classes[c] != name:
            raise FileError(
                f"{other.folder}: the truth of {found.names[row]!r:.80} is {other.classes[c]!r:.80}, "
                f"in {found.folder} it is {name!r:.80}"
            )
    kinds = 2 * ~found.right[rows] + ~other.right[others]  # 0 both are right, 1 this one, 2 the other, 3 none
    truths = sorted(set(names))
    of = np.searchsorted(truths, names)
    counts = np.bincount(4 * of + kinds, minlength=4 * len(truths)).reshape(-1, 4)
    classes = {name: paired(*row) for name, row in zip(truths, counts.tolist(), strict=True)}
    order = sorted(classes, key=lambda name: (-abs(classes[name].difference), name))
    return Differences(
        pictures=len(common),
        left_out=len(here) + len(there) - 2 * len(common),
        whole=paired(*counts.sum(0).tolist()),
        classes={name: classes[name] for name in order},
        apart=sum(each.low > 0 or each.high < 0 for each in classes.values()),
    )


def _judged(found: Outcomes, known: bool) -> dict[tuple[str, str], int]:
    """Name and digest -> row, of the pictures with a truth. known: both evaluations have digests."""
    return {
        (found.names[row], found.digests[row] if known else ""): row
        for row in np.flatnonzero(found.judged).tolist()
    }


def confusions(found: Outcomes) -> list[Confusion]:
    """Which class is taken for which, the most frequent first; equally frequent ones by name."""
    truths: NDArray[np.int32] = found.results.truths[found.judged]
    totals = np.bincount(truths, minlength=len(found.classes))
    rows = found.wrong
    pairs = Counter(zip(found.results.truths[rows].tolist(), found.predictions[rows].tolist(), strict=True))
    listed = [
        Confusion(found.classes[truth], found.classes[predicted], count, count / int(totals[truth]))
        for (truth, predicted), count in pairs.items()
    ]
    return sorted(listed, key=lambda each: (-each.pictures, each.truth, each.predicted))


# for people and scripts


def as_json(
    found: Outcomes, confused: list[Confusion], compared: Differences | None, page: dict[str, Any] | None
) -> dict[str, Any]:
    """Keys: set, step, judged, mistakes; confusions, the most frequent first; against: None without another
    run; page: None without one. `expected_apart`: how many classes would stand apart by chance, if the runs
    did not differ."""
    return {
        "set": found.set,
        "step": found.step,
        "judged": int(found.judged.sum()),
        "mistakes": len(found.wrong),
        "confusions": [each._asdict() for each in confused],
        "against": _against(compared) if compared else None,
        "page": page,
    }


def _against(found: Differences) -> dict[str, Any]:
    return {
        **found.whole._asdict(),
        "left_out": found.left_out,
        "confidence": CONFIDENCE,
        "interval": "Newcombe 1998, method 10",
        "apart": found.apart,
        "expected_apart": (1 - CONFIDENCE) * len(found.classes),
        "classes": [{"class": name, **each._asdict()} for name, each in found.classes.items()],
    }


def as_text(found: Outcomes, confused: list[Confusion], compared: Differences | None, top: int) -> str:
    """Tables for the terminal. top: classes that are listed."""
    judged = int(found.judged.sum())
    lines = [f"{found.set}, step {found.step}: {len(found.wrong)} mistakes among {judged} pictures", ""]
    if compared:
        head = f"{'pictures':>9}{'accuracy':>10}{'other':>8}  difference, {CONFIDENCE:.0%} interval"
        lines += [head, _line("all classes", compared.whole)]
        lines += [_line(name, each) for name, each in list(compared.classes.items())[:top]]
        total = len(compared.classes)
        chance = f"by chance alone, at most about {(1 - CONFIDENCE) * total:.0f}"
        lines.append(f"{compared.apart} of {total} classes stand apart; {chance}")
        if compared.left_out:
            lines.append(f"{compared.left_out} pictures were judged in one run alone and are left out")
        lines.append("")
    lines += [f"{'pictures':>9}{'share':>9}  truth, taken for"]
    lines += [f"{each.pictures:>9}{each.share:>9.1%}  {each.truth}, {each.predicted}" for each in confused]
    return "\n".join(lines)


def _line(name: str, found: Paired) -> str:
    interval = f"{found.difference:+.4f}, {found.low:+.4f} to {found.high:+.4f}"
    return f"{found.pictures:>9}{found.accuracy:>10.4f}{found.other:>8.4f}  {interval}  {name}"
