"""What near-duplicates do to the numbers of an evaluation: the arithmetic of the audit.

In: the folder of an evaluation (evaluations.py, kept.py) and a pairs file (pairs.py). Out: the metrics of
all samples, of those without a near-duplicate in the training data, and of the others, and a lower bound. No
model and no pictures: `dedup audit` and `report` call this.

- full, dedup, dups: Kolesnikov et al. 2020 (BiT), table 1. The paper gives only the number of duplicates;
  here their metrics are measured too.
- dedup - full: Sun et al. 2017, tables 1 to 3, which print both.
- lower bound: Mahajan et al. 2018, section 2.1: every duplicate counts as wrong, so the accuracy is
  (correct and not duplicate) / N, which is at least accuracy - D / N. For accuracies only; for mean average
  precision the paper defines none, and so none of boxes, masks, key points and classes of pixels has one.

mAP by class runs over the classes that have a positive, so full and dedup may average over different ones.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hpcscale import origin
from hpcscale.evaluate import evaluations, kept, metrics
from hpcscale.evaluate.metrics import Metrics, Results
from hpcscale.files import FileError, open_regular
from hpcscale.pairs import Decisions, Pair, read_decisions, read_pairs

Side = Literal["a", "b", "either"]
Seen = dict[str, dict[str, None]]  # column -> names in it, each once, in order
Measuring = Callable[[NDArray[np.int64]], Metrics]  # of these samples, by their places in the evaluation
ACCURACIES = ("top1", "top5")
UNCHANGED = ("samples", "single", "classes")  # counts, not metrics


class LeakError(FileError):
    """An evaluation and a pairs file that do not go together; the message says why."""


class Leaks(NamedTuple):
    """What a pairs file says of a test set."""

    names: set[str]  # samples with a near-duplicate in the training data
    side: Side  # which column is the test set; either: the one of the two that is in it
    pairs: int  # that concern the test set, whatever was decided
    accepted: int
    rejected: int  # these do not count; the undecided do


class Parts(NamedTuple):
    full: Metrics
    dedup: Metrics  # without the duplicates
    dups: Metrics  # of the duplicates alone
    lower_bound: Metrics  # of the accuracies


class Audit(NamedTuple):
    leaks: Leaks
    samples: int
    duplicates: int
    parts: Parts
    pictures: Literal["checked", "unknown"]  # whether the pairs are known to be of the evaluated pictures
    remark: str  # a sentence on that, where there is something to say


def audit(folder: Path, pairs: Path, decisions: Path | None, within: bool, side: Side | None = None) -> Audit:
    """Audit one evaluation.

    folder: of the evaluation. decisions: pairs rejected there do not count. within: the test set is a part of
    the data set that the training data came from, and `pairs` was found within that one; then a pair of two
    test samples is no leak. side: see `find_leaks`. Raises LeakError, also where the pairs are of other
    pictures than those that were evaluated, or PairsError.
    """
    try:
        names, digests = evaluations.read_names(folder)
        measured = kept.measuring(folder) if kept.is_there(folder) else measuring(folder)
    except (OSError, FileError) as error:
        raise LeakError(f"{folder}: cannot be read: {error}") from None
    decided = read_decisions(decisions) if decisions else {}
    seen: Seen = {"a": {}, "b": {}}
    try:
        leaks = find_leaks(_noting(read_pairs(pairs), set(names), seen), set(names), decided, within, side)
    except LeakError as error:
        raise LeakError(f"{pairs}: {error}") from None
    duplicates = np.fromiter((name in leaks.names for name in names), bool, len(names))
    parts = split(measured, duplicates)
    columns = {of: seen[of] for of in ("a", "b") if leaks.side in (of, "either")}
    pictures, remark = _same_pictures(pairs, columns, names, digests)
    return Audit(leaks, len(names), int(duplicates.sum()), parts, pictures, remark)


def _noting(pairs: Iterable[Pair], names: set[str], seen: Seen) -> Iterator[Pair]:
    """The pairs; `seen` gets the names of the test set in either column, in the order of the lines."""
    for pair in pairs:
        for of, name in zip(("a", "b"), pair, strict=False):
            if name in names:
                seen[of][name] = None
        yield pair


def _same_pictures(
    pairs: Path, columns: Seen, names: list[str], digests: NDArray[np.uint8] | None
) -> tuple[Literal["checked", "unknown"], str]:
    """Whether the test pictures of the pairs are those that were evaluated, and a remark. Raises LeakError
    where they are others.

    columns: names of the test set that stand in the columns where it is looked for. digests: (names, 16), of
    what was evaluated. Pairs that were edited since pass, as long as search had named their pictures.
    """
    unknown = "it is not known whether the pairs are of these pictures"
    if digests is None:
        return "unknown", f"{unknown}: the evaluation does not say what it saw; evaluate again"
    try:
        found = origin.read(pairs)
        with open_regular(pairs) as stream:
            edited = found.sha256 != hashlib.file_digest(stream, "sha256").hexdigest()
    except FileNotFoundError:
        return "unknown", f"{unknown}: what `dedup search` wrote beside them (.json) is not there"
    except (OSError, FileError):
        return "unknown", f"{unknown}: what `dedup search` wrote beside them (.json) cannot be read"
    evaluated: dict[str, set[str]] = {name: set() for column in columns.values() for name in column}
    for name, digest in zip(names, digests, strict=True):
        if name in evaluated:
            evaluated[name].add(digest.tobytes().hex())
    stated = {"a": found.a, "b": found.b}
    listed = [(name, stated[of][name]) for of in columns for name in columns[of] if name in stated[of]]
    others = list(dict.fromkeys(name for name, these in listed if evaluated[name].isdisjoint(these)))
    if others:
        raise LeakError(
            f"{pairs}: {len(others)} of its test pictures are not the ones that were evaluated under these "
            f"names, the first is {others[0]!r}: the pairs were found with other pictures, as "
            f"{origin.beside(pairs).name} says; search, or evaluate, again"
        )
    if len(listed) < sum(map(len, columns.values())):
        return "unknown", f"{unknown}: some are not in what `dedup search` wrote beside them (.json)"
    return "checked", "the pairs were edited since they were found" if edited else ""


def measuring(folder: Path) -> Measuring:
    """What measures samples of an evaluation of classification; a class weighs as much in its averages as it
    has samples in the training data. Raises FileError and OSError."""
    results, _ = evaluations.read(folder)
    return of_results(
        results, np.array([row.samples for row in evaluations.read_classes(folder)], np.float64)
    )


def of_results(results: Results, weights: NDArray[np.float64]) -> Measuring:
    return lambda rows: metrics.measure(metrics.select(results, rows), weights)


def find_leaks(
    pairs: Iterable[Pair], names: set[str], decisions: Decisions, within: bool, side: Side | None = None
) -> Leaks:
    """Which samples of the test set `names` have a near-duplicate in the training data.

    Without `side` the column of the test set is the one that holds names of it. If both do: within one data
    set the sample of the two that is in the test set ("either"); otherwise LeakError, for then the names do
    not tell. LeakError too where there are pairs but none with a name of the test set, unless `within`.
    Memory: the names of the test set.
    """
    found: dict[Side, set[str]] = {"a": set(), "b": set(), "either": set()}
    counts: dict[Side, list[int]] = {"a": [0, 0, 0], "b": [0, 0, 0], "either": [0, 0, 0]}
    any_pair = False
    for a, b, _ in pairs:
        any_pair = True
        tested_a, tested_b = a in names, b in names
        if not (tested_a or tested_b):
            continue
        decision = decisions.get((a, b)) or decisions.get((b, a))
        verdict = 0 if decision is None else 1 if decision.decision == "accept" else 2
        sides: dict[Side, bool] = {"a": tested_a, "b": tested_b, "either": tested_a != tested_b}
        for of, counted in sides.items():
            if counted:
                counts[of][verdict] += 1
                if verdict != 2:
                    found[of].add(a if of == "a" or (of == "either" and tested_a) else b)
    if side is None:
        side = _side(sum(counts["a"]), sum(counts["b"]), within, any_pair)
    elif side != "either" and any_pair and not sum(counts[side]):
        raise LeakError(f"column {side} holds no name of the test set")
    undecided, accepted, rejected = counts[side]
    return Leaks(found[side], side, undecided + accepted + rejected, accepted, rejected)


def split(measured: Measuring, duplicates: NDArray[np.bool_]) -> Parts:
    """Metrics of all samples, of those that are no duplicates, and of the duplicates (n,); lower bounds."""
    parts = (np.ones_like(duplicates), ~duplicates, duplicates)
    full, dedup, dups = (measured(np.flatnonzero(rows)) for rows in parts)
    bound: Metrics = {}
    for key in ACCURACIES if "single" in full else ():
        single, kept = full["single"] or 0, dedup["single"] or 0
        bound[key] = (dedup[key] or 0.0) * kept / single if single else None
    return Parts(full, dedup, dups, bound)


def delta(parts: Parts, key: str) -> float | None:
    """De-duplicated minus original."""
    full, dedup = parts.full.get(key), parts.dedup.get(key)
    return None if full is None or dedup is None else dedup - full


def _side(in_a: int, in_b: int, within: bool, any_pair: bool) -> Side:
    if within:
        return "either"
    if in_a and in_b:
        raise LeakError(
            f"both columns hold names of the test set ({in_a} and {in_b} lines): which is the test set?"
        )
    if any_pair and not (in_a or in_b):
        raise LeakError("no name in it is one of the test set")
    return "a" if in_a else "b"
