"""Rectified accuracy: people look at the predictions that are wrong by the labels, and some are right.

Mahajan et al. 2018, section 3.1.1: "We present all incorrect classifications to five human annotators,
asking whether or not the prediction is correct: if at least four annotators answer this question
affirmatively the model's prediction is considered correct." With c right ones of n, and r of the others
rectified, the rectified accuracy is (c + r) / n, which is at least the raw one, c / n.

In: the evaluation of a run. Out: a folder for raters with `votes.csv` and `page.html`, which saves the same
CSV; then the votes of any number of raters, as one number. A line of `COLUMNS` is what one rater says of one
prediction: `vote` is yes (the predicted class is in the picture), no, or empty (not looked at yet); capitals
do not matter. An empty `rater` is known by the path of the file. CSV is UTF-8, with commas; a cell that a
spreadsheet would compute has a ' before it, and digests begin with "blake2b-": none looks like a number.
"""

import csv
import io
import json
from collections import Counter
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hpcscale.evaluate.evaluations import safe
from hpcscale.files import FileError, check_output, compared, marked, read_text, write_new
from hpcscale.progress import Progress, none
from hpcscale.review import page
from hpcscale.review.estimate import agreement, alpha
from hpcscale.text import shown
from hpcscale.transfer.outcomes import Outcomes, open_pictures, read

COLUMNS = ("evaluation", "sample", "name", "digest", "predicted", "truth", "rater", "vote")
FIXED = 6  # of them say what is voted on; raters fill in the others
VOTES = ("no", "yes")
LEAST = 4  # yes, of five
MARK = b'content="hpcscale transfer raters"'  # in raters.html: a page that may be replaced
CSV, PAGE = "votes.csv", "page.html"


class VotesError(FileError):
    """A file of votes that cannot be used; the message names file and line."""


class Exported(NamedTuple):
    predictions: int  # wrong ones, to be looked at
    missing: list[str]  # pictures that cannot be decoded


class Rectified(NamedTuple):
    """Accuracies are shares of `judged`, None if that is 0."""

    evaluation: str  # what was voted on
    set: str
    step: int
    judged: int  # pictures with a truth
    correct: int  # of them, by the labels
    wrong: int
    rectified: int  # of the wrong ones, by the raters
    incomplete: int  # of the wrong ones: with fewer votes than `least`, so that they cannot be rectified
    least: int
    raters: dict[str, int]  # votes of each
    agreement: float | None  # share of pairs of votes on a picture that are alike
    alpha: float | None  # Krippendorff's

    @property
    def raw_accuracy(self) -> float | None:
        return self.correct / self.judged if self.judged else None

    @property
    def rectified_accuracy(self) -> float | None:
        return (self.correct + self.rectified) / self.judged if self.judged else None


def export(
    run: Path, out: Path, which: str | None = None, data: Path | None = None, progress: Progress = none
) -> Exported:
    """Write the wrong predictions of an evaluation into the folder `out`: `votes.csv` and `page.html`.

    data: where the data set is, if it has moved. Raises DataError and FileError, also where a votes.csv is
    there that differs, such as one with votes: it is never replaced. Memory: names, and a block of pictures.
    """
    found = read(run, which)
    inputs = [Path(found.data) if found.data else None, data]
    check_output(out / CSV, inputs, compared)
    check_output(out / PAGE, inputs, marked(MARK))
    rows = found.wrong
    opened = open_pictures(found, rows, data)
    lines = asked(found)
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writerows([COLUMNS, *([*cells, "", ""] for cells in lines)])
    write_new(out / CSV, text.getvalue().encode())
    classes = sorted(set(found.predictions[rows].tolist()))
    samples = found.results.samples[rows]
    content = {
        "id": identity(found),
        "set": f"{shown(run.resolve().name)}, {found.set}",
        "block": page.BLOCK,
        "unsure": False,
        "samples": samples.tolist(),
        "names": [f"sample {sample}" for sample in samples.tolist()],  # names often say the truth
        "classes": [{"name": found.classes[c], "means": [], "above": []} for c in classes],
        "labels": [[at, classes.index(c)] for at, c in enumerate(found.predictions[rows].tolist())],
        "answers": [],
        "columns": COLUMNS,
        "cells": lines,
    }
    missing = page.fill("raters.html", out / PAGE, content, [(opened, samples)], progress=progress)
    return Exported(rows.size, [found.names[row] for row in rows[missing].tolist()])


def identity(found: Outcomes) -> str:
    """Says what is voted on: set, pictures, predictions and truths; the same for the same."""
    rows = found.wrong.tolist()
    pairs = np.stack([found.predictions, found.results.truths], 1)[rows].tolist()
    content = [[found.names[row], found.digests[row]] for row in rows]
    named = [[found.classes[c] for c in pair] for pair in pairs]
    mark = blake2b(json.dumps([content, named]).encode(), digest_size=8).hexdigest()
    return f"{found.set}-{mark}"


def asked(found: Outcomes) -> list[list[str]]:
    """The first `FIXED` cells of each wrong prediction, in the order of `Outcomes.wrong`."""
    evaluation = identity(found)
    return [
        [
            evaluation,
            str(found.results.samples[row]),
            safe(found.names[row]),
            found.digests[row] and f"blake2b-{found.digests[row]}",
            safe(found.classes[found.predictions[row]]),
            safe(found.classes[found.results.truths[row]]),
        ]
        for row in found.wrong.tolist()
    ]


def rectify(found: Outcomes, files: Sequence[Path], least: int = LEAST) -> Rectified:
    """Count the votes of raters. A prediction with at least `least` yes is correct. Raises VotesError."""
    lines = asked(found)
    votes = read_votes(files, lines)
    counts = np.zeros((len(lines), len(VOTES)), np.int64)
    raters: Counter[str] = Counter()
    for (place, rater), vote in votes.items():
        counts[place, VOTES.index(vote)] += 1
        raters[rater] += 1
    return Rectified(
        evaluation=identity(found),
        set=found.set,
        step=found.step,
        judged=int(found.judged.sum()),
        correct=int(found.right.sum()),
        wrong=len(lines),
        rectified=int((counts[:, 1] >= least).sum()),
        incomplete=int((counts.sum(1) < least).sum()),
        least=least,
        raters=dict(sorted(raters.items())),
        agreement=agreement(counts),
        alpha=alpha(counts),
    )


def read_votes(files: Sequence[Path], lines: Sequence[Sequence[str]]) -> dict[tuple[int, str], str]:
    """(place in `lines`, rater) -> yes or no. lines: as `asked` gives them. Raises VotesError for a line that
    is malformed or about something else, and where a rater votes twice on a prediction."""
    places = {cells[1]: place for place, cells in enumerate(lines)}
    votes: dict[tuple[int, str], str] = {}
    for file in files:
        rows = csv.reader(io.StringIO(read_text(file).removeprefix("\ufeff"), newline=""), strict=True)
        try:
            if tuple(head := next(rows, [])) != COLUMNS:
                raise ValueError(
                    f"the columns are {', '.join(head)[:80]!r}, expected {', '.join(COLUMNS)}, with commas"
                )
            for row in rows:
                if not row:
                    continue
                place, rater, vote = _vote(row, lines, places)
                if not vote:
                    continue
                rater = rater or str(file)
                if (place, rater) in votes:
                    raise ValueError(f"rater {rater!r:.80} votes twice on sample {row[1]}")
                votes[place, rater] = vote
        except (ValueError, csv.Error) as error:
            raise VotesError(f"{file}:{rows.line_num}: {error}") from None
    return votes


def _vote(row: Sequence[str], lines: Sequence[Sequence[str]], places: dict[str, int]) -> tuple[int, str, str]:
    """Place, rater and vote of a line; an empty vote is none yet."""
    if len(row) != len(COLUMNS):
        raise ValueError(f"{len(row)} cells, expected {len(COLUMNS)}")
    if row[1] not in places:
        raise ValueError(f"sample {row[1]!r:.80} is no wrong prediction of this evaluation")
    place = places[row[1]]
    for column, cell, expected in zip(COLUMNS, row[:FIXED], lines[place], strict=False):
        if cell != expected:
            raise ValueError(
                f"a vote of another evaluation: {column} is {cell!r:.80}, in this one {expected!r:.80}"
            )
    rater, vote = row[FIXED].strip().removeprefix("'"), row[FIXED + 1].strip().lower()
    if vote not in ("", *VOTES):
        raise ValueError(f"vote is {row[FIXED + 1]!r:.80}, allowed: yes, no, or nothing")
    return place, rater, vote


# for people and scripts


def as_json(found: Rectified) -> dict[str, Any]:
    """Accuracies from 0 to 1; `upper_bound` is the rectified one if all incomplete predictions were right."""
    open_ones = found.correct + found.rectified + found.incomplete
    return {
        **found._asdict(),
        "raw_accuracy": found.raw_accuracy,
        "rectified_accuracy": found.rectified_accuracy,
        "upper_bound": open_ones / found.judged if found.judged else None,
    }


def as_text(found: Rectified) -> str:
    values = as_json(found)
    lines = [f"{found.set}, step {found.step}: {found.judged} pictures with one truth, {found.wrong} wrong"]
    for label, key in (("raw", "raw_accuracy"), ("rectified", "rectified_accuracy")):
        value = "-" if values[key] is None else f"{values[key]:.4f}"
        lines.append(f"top-1 accuracy, {label:<10}{value:>8}")
    lines.append(f"{found.rectified} predictions are right by at least {found.least} votes")
    if found.incomplete:
        lines.append(
            f"{found.incomplete} have fewer than {found.least} votes and count as wrong; if all of them were "
            f"right, the accuracy were {values['upper_bound']:.4f}"
        )
    lines += [f"{shown(rater)}: {count} votes" for rater, count in found.raters.items()]
    if found.agreement is not None:
        alike = f"agreement: {found.agreement:.1%} of pairs of votes"
        lines.append(f"{alike}, Krippendorff's alpha {'-' if found.alpha is None else f'{found.alpha:.2f}'}")
    return "\n".join(lines)
