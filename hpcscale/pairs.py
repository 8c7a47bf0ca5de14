r"""Files of near-duplicate pairs, and of what reviewers decided about them. Plain text, read and written here
alone.

Pairs, TSV without a header: name in A, name in B, distance. A is usually the training data and B the test
set. In a name, backslash, tab, newline and carriage return are written \\, \t, \n and \r; bytes that are not
UTF-8 stay as they are. `dedup search` writes them, the gallery and the audit read them.

Decisions, JSONL: {"a": name, "b": name, "decision": "accept" or "reject", "reviewer": who, "time": ISO 8601}
a line; the last two may be left out. Accept: the two show the same picture. The gallery saves them, `merge`
joins those of several reviewers, the audit leaves rejected pairs out.
"""

import json
import math
import os
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

VERDICTS = ("accept", "reject")
ESCAPES = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"}
ORIGINALS = {escaped: plain for plain, escaped in ESCAPES.items()}


class PairsError(ValueError):
    """A file that is not what it should be; the message names file and line."""


class Pair(NamedTuple):
    a: str
    b: str
    distance: int | float


class Decision(NamedTuple):
    decision: str  # one of VERDICTS
    reviewer: str = ""
    time: str = ""  # ISO 8601; "" is older than any


Decisions = dict[tuple[str, str], Decision]  # (name in A, name in B) -> what was decided


def escape(name: str) -> str:
    """A name as it stands in a TSV file."""
    return re.sub(r"[\\\t\n\r]", lambda found: ESCAPES[found[0]], name)


def read_pairs(file: Path) -> Iterator[Pair]:
    """The pairs of a file, one at a time. Raises PairsError, also for a distance that is not a number."""
    with file.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            fields = os.fsdecode(line.removesuffix(b"\n")).split("\t")
            try:
                if len(fields) != 3:
                    raise ValueError(f"{len(fields)} columns; expected name in A, name in B, distance")
                yield Pair(unescape(fields[0]), unescape(fields[1]), _number(fields[2]))
            except ValueError as error:
                raise PairsError(f"{file}:{number}: {error}") from None


def read_decisions(file: Path) -> Decisions:
    """One decision a pair: of several by one reviewer the newest. Raises PairsError, also where reviewers
    disagree."""
    agreed, disputed = merge([file])
    for (a, b), views in disputed.items():
        said = ", ".join(f"{view.reviewer or '?'}: {view.decision}" for view in views)
        raise PairsError(f"{file}: {len(disputed)} pairs are disputed, first {a!r} and {b!r} ({said})")
    return agreed


def write_decisions(file: Path, decisions: Decisions) -> None:
    """Write aside and rename; lines sorted by names."""
    aside = file.with_name(f".{file.name}.part")
    with aside.open("w") as stream:
        for (a, b), decision in sorted(decisions.items()):
            stream.write(json.dumps({"a": a, "b": b, **decision._asdict()}) + "\n")
        stream.flush()
        os.fsync(stream.fileno())
    aside.rename(file)


def merge(files: Iterable[Path]) -> tuple[Decisions, dict[tuple[str, str], list[Decision]]]:
    """Join the decisions of reviewers: what is agreed, and the views on each pair that is not.

    Of several decisions of one reviewer on one pair the newest counts, of equally old ones the last. A
    reviewer without a name goes by the path of the file. An agreed decision names all who made it, and the
    newest time. Raises PairsError.
    """
    views: dict[tuple[str, str], dict[str, Decision]] = {}
    for file in files:
        for pair, found in _lines(file):
            own = found._replace(reviewer=found.reviewer or str(file))
            before = views.setdefault(pair, {}).get(own.reviewer)
            if before is None or moment(before.time) <= moment(own.time):
                views[pair][own.reviewer] = own
    agreed: Decisions = {}
    disputed = {}
    for pair, by in views.items():
        said = list(by.values())
        if len({view.decision for view in said}) > 1:
            disputed[pair] = said
        else:
            who = ", ".join(sorted({name for view in said for name in view.reviewer.split(", ")}))
            agreed[pair] = Decision(
                said[0].decision, who, max((view.time for view in said), key=moment, default="")
            )
    return agreed, disputed


def moment(time: str) -> datetime:
    """A decision's time; without a zone it is UTC. Raises ValueError."""
    if not time:
        return datetime.min.replace(tzinfo=UTC)
    found = datetime.fromisoformat(time)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _lines(file: Path) -> Iterator[tuple[tuple[str, str], Decision]]:
    with file.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            if not line.strip():
                continue
            try:
                values = json.loads(line)
                if not isinstance(values, dict):
                    raise ValueError(f"expected an object, found {type(values).__name__}")
                a, b, decision = (_text(values, key) for key in ("a", "b", "decision"))
                if decision not in VERDICTS:
                    raise ValueError(f"'decision' is {decision!r}, allowed: {', '.join(VERDICTS)}")
                found = Decision(decision, _text(values, "reviewer", ""), _text(values, "time", ""))
                moment(found.time)
            except (ValueError, RecursionError) as error:
                raise PairsError(f"{file}:{number}: {error}") from None
            yield (a, b), found


def _text(values: dict[str, Any], key: str, default: str | None = None) -> str:
    value = values.get(key, default)
    if not isinstance(value, str):
        raise ValueError(f"'{key}' must be a string, found {value!r:.80}")
    return value


def unescape(text: str) -> str:
    """The name that stands in a TSV file or a drop list. Raises ValueError."""
    if "\\" not in text:
        return text
    wrong = re.sub(r"\\[\\tnr]", "", text)
    if "\\" in wrong:
        raise ValueError(f"a backslash that starts no escape in {text!r:.80}; allowed: \\\\ \\t \\n \\r")
    return re.sub(r"\\[\\tnr]", lambda found: ORIGINALS[found[0]], text)


def _number(text: str) -> int | float:
    """A decimal number; Python's own rules would take 1_000 and nan too."""
    if not re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?|[+-]?(nan|inf)", text):
        raise ValueError(f"distance {text!r:.40} is not a number")
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"distance {text!r:.40} is not finite")
    return int(text) if re.fullmatch("[0-9]{1,15}", text) else value
