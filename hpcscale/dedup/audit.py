"""What the near-duplicates of a pairs file do to the numbers of a run.

In: a run folder with an evaluation, a pairs file, perhaps decisions of reviewers. Out: metrics with and
without the duplicates, as a table or as a dict for JSON. The arithmetic is in `evaluate/leaks.py`,
which `report` uses too.
"""

from pathlib import Path
from typing import Any, NamedTuple

from hpcscale.evaluate import evaluations, leaks
from hpcscale.evaluate.leaks import Audit, LeakError, Side
from hpcscale.files import FileError


class RunAudit(NamedTuple):
    set: str
    step: int
    audit: Audit


def audit(
    run: Path, pairs: Path, which: str | None = None, decisions: Path | None = None, side: Side | None = None
) -> RunAudit:
    """Audit the newest evaluation of a set; by default of the first of SETS that was evaluated.

    side: which column of `pairs` is the test set, if the names do not tell. Raises LeakError or PairsError.
    """
    try:
        which, step, folder = evaluations.find(run, which)
    except FileError as error:
        raise LeakError(str(error)) from None
    return RunAudit(which, step, leaks.audit(folder, pairs, decisions, which != "validation", side))


def as_json(found: RunAudit) -> dict[str, Any]:
    """Keys: set, step, side; pictures ("checked": the pairs are of the pictures that were evaluated; or
    "unknown"); pairs, accepted, rejected, undecided, samples, duplicates; full, dedup, dups: metrics; delta:
    dedup - full; lower_bound: of top1 and top5."""
    about, parts = found.audit.leaks, found.audit.parts
    return {
        "set": found.set,
        "step": found.step,
        "side": about.side,
        "pictures": found.audit.pictures,
        "pairs": about.pairs,
        "accepted": about.accepted,
        "rejected": about.rejected,
        "undecided": about.pairs - about.accepted - about.rejected,
        "samples": found.audit.samples,
        "duplicates": found.audit.duplicates,
        "full": parts.full,
        "dedup": parts.dedup,
        "dups": parts.dups,
        "delta": {key: leaks.delta(parts, key) for key in parts.full if key not in leaks.UNCHANGED},
        "lower_bound": parts.lower_bound,
    }


def as_text(found: RunAudit) -> str:
    """A table for the terminal."""
    about, parts = found.audit.leaks, found.audit.parts
    percent = 100 * found.audit.duplicates / max(1, found.audit.samples)
    lines = [
        f"{found.set}, step {found.step}: {found.audit.duplicates} of {found.audit.samples} samples "
        f"({percent:.2f} %) have near-duplicates in the training data",
        f"pairs: {about.pairs}, accepted {about.accepted}, rejected {about.rejected}, "
        f"undecided {about.pairs - about.accepted - about.rejected}",
        *([found.audit.remark] if found.audit.remark else []),
        "",
        _line("", "full", "dedup", "change", "dups"),
    ]
    for key in parts.full:
        lines.append(
            _line(key, parts.full[key], parts.dedup[key],
                  None if key in leaks.UNCHANGED else leaks.delta(parts, key), parts.dups[key])
        )  # fmt: skip
    for key, bound in parts.lower_bound.items():
        if bound is not None:
            lines.append(f"{key} is at least {bound:.4f} with every duplicate counted wrong")
    return "\n".join(lines)


def _line(label: str, *values: Any) -> str:
    change = 2  # the column whose numbers have a sign
    cells = [
        "-"
        if value is None
        else f"{value:{'+' * (place == change)}.4f}"
        if isinstance(value, float)
        else str(value)
        for place, value in enumerate(values)
    ]
    return f"{label:<22}" + "".join(f"{cell:>10}" for cell in cells)
