"""How many of a data set's labels are right: from the answers of reviewers to a number with an interval.

In: the draw (draw.py), and the files that reviewers saved from its page (page.py). Out: `Measured`.

A file of decisions is JSONL, one answer a line: {"page": id of the draw, "sample": id, "picture": name,
"label": class, "decision": "yes", "no" or "unsure", "reviewer": who, "time": ISO 8601}; picture, reviewer and
time may be left out. Yes: what the label says is in the picture. Of a label, what more than half of its
reviewers say counts; without such a majority nobody can say. Labels without an answer count as not drawn.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hpcscale.config import Selection
from hpcscale.data.store import DataSet, open_data
from hpcscale.labels.vocabulary import Vocabulary, load
from hpcscale.ops import Ids, Offsets
from hpcscale.pairs import Decision, string, views
from hpcscale.progress import Progress, none
from hpcscale.review.draw import Draw, Stratum, draw
from hpcscale.review.estimate import CONFIDENCE, Interval, agreement, alpha, combine, exact, kappa
from hpcscale.samples.selection import Selected, read
from hpcscale.text import shown

VERDICTS = ("yes", "no", "unsure")
KEYS = ("page", "sample", "picture", "label", "decision", "reviewer", "time")
Answers = dict[int, dict[str, Decision]]  # place in the draw -> reviewer -> answer


class Asked(NamedTuple):
    """What is drawn from what: the same gives the same draw."""

    data: Path
    vocabulary: Path
    sample: int  # labels to draw
    seed: int = 0
    selection: str | None = None  # a file, or a name of the catalogue

    def draw(self, progress: Progress = none) -> tuple[DataSet, Vocabulary, Draw]:
        """The data set, the classes that the selection leaves, and the draw. Raises DataError,
        VocabularyError and ConfigError."""
        data, chosen = open_data(self.data), read(self.selection) if self.selection else Selection()
        selected = Selected(data, chosen, load(self.vocabulary), progress=progress)

        def chunks() -> Iterator[tuple[NDArray[np.int64], Offsets, Ids]]:
            for rows in selected.chunks():
                yield rows.samples, rows.offsets, rows.classes

        names = selected.vocabulary.classes
        return data, selected.vocabulary, draw(chunks, names, data.digest, self.sample, self.seed)


class Row(NamedTuple):
    """One stratum: labels that reviewers call right or wrong, or cannot tell."""

    stratum: Stratum
    yes: int
    no: int
    unsure: int
    precision: Interval | None  # of the labels on which they could decide


class Couple(NamedTuple):
    """Two reviewers."""

    one: str
    other: str
    labels: int  # that both have answered
    agreement: float  # share on which they say the same
    kappa: float | None


class Measured(NamedTuple):
    id: str
    rows: list[Row]
    precision: Interval | None  # all strata, weighted by their labels
    unsure: float | None  # share of labels on which nobody can say, weighted
    if_wrong: float | None  # the precision if all of these were wrong
    if_right: float | None
    reviewers: dict[str, int]  # answers of each
    agreement: float | None
    alpha: float | None
    couples: list[Couple]


def measure(asked: Asked, files: Sequence[Path], progress: Progress = none) -> Measured:
    """The precision of the labels. Raises PairsError, which names the line of an answer that is malformed or
    about another draw."""
    _, vocabulary, drawn = asked.draw(progress)
    return of_answers(drawn, read_answers(files, drawn, vocabulary.classes))


def read_answers(files: Iterable[Path], drawn: Draw, names: Sequence[str]) -> Answers:
    """The newest answer of each reviewer to each label. names: of the classes. Raises PairsError."""
    places = {(label.sample, names[label.c]): place for place, label in enumerate(drawn.labels)}

    def place(values: dict[str, Any]) -> int:
        if unknown := sorted(values.keys() - set(KEYS)):
            raise ValueError(f"unknown key {unknown[0]!r:.80}; known are {', '.join(KEYS)}")
        if (page := string(values, "page")) != drawn.id:
            raise ValueError(
                f"an answer to page {page!r:.80}, but this draw is {drawn.id}: give the data, vocabulary, "
                "--selection, --sample and --seed that the page was drawn with"
            )
        sample, label = values.get("sample"), string(values, "label")
        if not isinstance(sample, int) or (sample, label) not in places:
            raise ValueError(f"sample {sample!r:.80} with label {label!r:.80} is not on the page")
        return places[sample, label]

    return views(files, place, VERDICTS)


def of_answers(drawn: Draw, answers: Answers) -> Measured:
    counts = np.zeros((len(drawn.labels), len(VERDICTS)), np.int64)
    for place, by in answers.items():
        for answer in by.values():
            counts[place, VERDICTS.index(answer.decision)] += 1
    given = counts.sum(1)
    final = np.where(2 * counts.max(1) > given, counts.argmax(1), VERDICTS.index("unsure"))
    final[given == 0] = -1
    of = np.array([label.stratum for label in drawn.labels])
    rows = []
    for index, stratum in enumerate(drawn.strata):
        yes, no, unsure = (int(((of == index) & (final == kind)).sum()) for kind in range(len(VERDICTS)))
        rows.append(Row(stratum, yes, no, unsure, exact(yes, yes + no, stratum.labels)))
    reviewers: dict[str, int] = {}
    for by in answers.values():
        for who in by:
            reviewers[who] = reviewers.get(who, 0) + 1
    return Measured(
        id=drawn.id,
        rows=rows,
        precision=combine([(row.precision, row.stratum.labels) for row in rows]),
        unsure=_share(rows, [row.unsure for row in rows]),
        if_wrong=_share(rows, [row.yes for row in rows]),
        if_right=_share(rows, [row.yes + row.unsure for row in rows]),
        reviewers=dict(sorted(reviewers.items())),
        agreement=agreement(counts),
        alpha=alpha(counts),
        couples=_couples(answers, sorted(reviewers)),
    )


def _share(rows: Sequence[Row], of: Sequence[int]) -> float | None:
    """A share of the answered labels, weighted by the labels of the strata."""
    found = [
        exact(n, row.yes + row.no + row.unsure, row.stratum.labels) for n, row in zip(of, rows, strict=True)
    ]
    whole = combine([(each, row.stratum.labels) for each, row in zip(found, rows, strict=True)])
    return whole.value if whole else None


def _couples(answers: Answers, reviewers: Sequence[str]) -> list[Couple]:
    couples = []
    for one, other in combinations(reviewers, 2):
        both = [
            (by[one].decision, by[other].decision) for by in answers.values() if one in by and other in by
        ]
        if both:
            same = sum(a == b for a, b in both) / len(both)
            couples.append(Couple(one, other, len(both), same, kappa(*zip(*both, strict=True))))
    return couples


# for people and scripts


def as_json(found: Measured) -> dict[str, Any]:
    """Shares from 0 to 1; null where there is no answer, or a kappa is not defined."""
    return {
        "id": found.id,
        "labels": sum(row.stratum.labels for row in found.rows),
        "drawn": sum(row.stratum.drawn for row in found.rows),
        **_counts(found.rows),
        **_limits(found.precision),
        "confidence": CONFIDENCE,
        "unsure_share": found.unsure,
        "precision_if_unsure_wrong": found.if_wrong,
        "precision_if_unsure_right": found.if_right,
        "strata": [
            {**row.stratum._asdict(), **_counts([row]), **_limits(row.precision)} for row in found.rows
        ],
        "reviewers": found.reviewers,
        "agreement": found.agreement,
        "alpha": found.alpha,
        "pairs": [couple._asdict() for couple in found.couples],
    }


def _counts(rows: Sequence[Row]) -> dict[str, int]:
    return {kind: sum(getattr(row, kind) for row in rows) for kind in VERDICTS}


def _limits(found: Interval | None) -> dict[str, float | None]:
    value, low, high = found or (None, None, None)
    return {"precision": value, "low": low, "high": high}


def as_text(found: Measured) -> str:
    head = f"{'samples a class':<20}{'classes':>9}{'labels':>15}{'drawn':>7}{'yes':>6}{'no':>6}{'unsure':>8}"
    lines = [f"{head}  precision, {CONFIDENCE:.1%} interval"]
    for row in found.rows:
        stratum = row.stratum
        name = f"{stratum.least:,} to {stratum.below - 1:,}"
        lines.append(_line(name, [stratum], _counts([row]), row.precision))
    strata = [row.stratum for row in found.rows]
    lines.append(_line("all, weighted", strata, _counts(found.rows), found.precision))
    lines.append("")
    if found.precision is None:
        lines.append("No label has an answer yet.")
    elif missing := sum(row.stratum.labels for row in found.rows if row.precision is None):
        share = missing / sum(stratum.labels for stratum in strata)
        lines.append(f"The last line leaves out {share:.1%} of the labels: nobody decided in their strata.")
    if found.unsure:
        lines.append(
            f"Nobody can say for {found.unsure:.1%} (weighted): precision is {found.if_wrong:.1%} if all of "
            f"these are wrong, {found.if_right:.1%} if all are right."
        )
    lines += [f"{shown(who)}: {count} answers" for who, count in found.reviewers.items()]
    for each in found.couples:
        both = (
            f"{shown(each.one)} and {shown(each.other)}: {each.agreement:.1%} of {each.labels} labels alike"
        )
        lines.append(f"{both}, Cohen's kappa {_number(each.kappa)}")
    if found.agreement is not None:
        alike = f"agreement: {found.agreement:.1%} of pairs of answers"
        lines.append(f"{alike}, Krippendorff's alpha {_number(found.alpha)}")
    return "\n".join(lines)


def _line(name: str, strata: Sequence[Stratum], counts: dict[str, int], found: Interval | None) -> str:
    sizes = [sum(getattr(each, key) for each in strata) for key in ("classes", "labels", "drawn")]
    share = f"{found.value:8.1%}, {found.low:.1%} to {found.high:.1%}" if found else "       -"
    return (
        f"{name:<20}{sizes[0]:>9,}{sizes[1]:>15,}{sizes[2]:>7,}"
        f"{counts['yes']:>6,}{counts['no']:>6,}{counts['unsure']:>8,}  {share}"
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
