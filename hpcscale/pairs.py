r"""Files of near-duplicate pairs, and of the decisions of reviewers about them.

Both are plain text. No other file reads or writes them.

Pairs are TSV without a header: name in A, name in B, distance. A is usually the training data and B the test
set. In a name, backslash, tab, newline and carriage return are written \\, \t, \n and \r, and other control
characters (text.py) \uNNNN, so that it is safe to print a file; other bytes that are not UTF-8 stay as they
are. `dedup search` writes pairs, the gallery and the audit read them.

Decisions are JSONL, one a line: {"a": name, "b": name, "decision": "accept" or "reject", "reviewer": who,
"time": ISO 8601}; reviewer and time may be left out. Accept means that the two show the same picture. The
gallery saves decisions, `merge` joins those of several reviewers, the audit leaves rejected pairs out.
"""

import json
import os
import re
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from hpcscale.files import FileError, open_regular, parse_json, write_file
from hpcscale.text import CONTROLS, escaped

WRITER = {"writer": "hpcscale"}  # marks merged decisions; only these may be replaced
VERDICTS = ("accept", "reject")
ORIGINALS = {"\\\\": "\\", "\\t": "\t", "\\n": "\n", "\\r": "\r"}
ESCAPE = r"\\[\\tnr]|\\u[0-9a-f]{4}"
# The form of a distance; `float` would accept 1_0 and nan too.
NUMBER = r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?"


class PairsError(FileError):
    """A file of pairs or decisions that cannot be used; the message names file and line."""


class Pair(NamedTuple):
    a: str
    b: str
    distance: int | float


class Decision(NamedTuple):
    decision: str  # one of VERDICTS
    reviewer: str = ""
    time: str = ""  # ISO 8601; "" counts as the oldest


Decisions = dict[tuple[str, str], Decision]  # (name in A, name in B) -> what was decided
Key = TypeVar("Key", bound=Hashable)


def escape(name: str) -> str:
    """A name as it stands in a TSV file."""
    return re.sub(rf"[\\{CONTROLS}]", lambda found: "\\\\" if found[0] == "\\" else escaped(found[0]), name)


def read_pairs(file: Path) -> Iterator[Pair]:
    """The pairs of a file, one at a time. Raises PairsError, also for a distance that is not a number."""
    with open_regular(file) as stream:
        for number, line in enumerate(stream, 1):
            fields = os.fsdecode(line.removesuffix(b"\n")).split("\t")
            try:
                if len(fields) != 3:
                    raise ValueError(f"{len(fields)} columns; expected name in A, name in B, distance")
                yield Pair(unescape(fields[0]), unescape(fields[1]), _number(fields[2]))
            except ValueError as error:
                raise PairsError(f"{file}:{number}: {error}") from None


def is_pairs(file: Path) -> bool:
    """Whether a file begins like a pairs file."""
    try:
        next(iter(read_pairs(file)), None)
    except PairsError:
        return False
    return True


def read_decisions(file: Path) -> Decisions:
    """One decision for each pair; of several by one reviewer, the newest. Raises PairsError, also if
    reviewers disagree."""
    agreed, disputed = merge([file])
    for (a, b), views in disputed.items():
        said = ", ".join(f"{view.reviewer or '?'}: {view.decision}" for view in views)
        raise PairsError(f"{file}: {len(disputed)} pairs are disputed, first {a!r} and {b!r} ({said})")
    return agreed


def write_decisions(file: Path, decisions: Decisions) -> None:
    """Write aside and rename; lines sorted by names, each with our mark."""
    lines = [
        json.dumps({"a": a, "b": b, **decision._asdict(), **WRITER})
        for (a, b), decision in sorted(decisions.items())
    ]
    write_file(file, "".join(line + "\n" for line in lines).encode())


def merge(files: Iterable[Path]) -> tuple[Decisions, dict[tuple[str, str], list[Decision]]]:
    """Join the decisions of reviewers. Returns those on which all agree, and for every other pair the views.

    A decision on which all agree names all reviewers who made it, and has the newest time. Raises PairsError.
    """
    agreed: Decisions = {}
    disputed = {}
    for pair, by in views(files, _names, VERDICTS).items():
        said = list(by.values())
        if len({view.decision for view in said}) > 1:
            disputed[pair] = said
        else:
            who = ", ".join(sorted({name for view in said for name in view.reviewer.split(", ")}))
            agreed[pair] = Decision(
                said[0].decision, who, max((view.time for view in said), key=moment, default="")
            )
    return agreed, disputed


def views(
    files: Iterable[Path], key: Callable[[dict[str, Any]], Key], verdicts: Sequence[str]
) -> dict[Key, dict[str, Decision]]:
    """What each reviewer says about each thing that was decided on.

    key: takes from a line what it is about; raises ValueError. Of several decisions of one reviewer on one
    thing, the newest counts; of equally old ones, the last. A reviewer without a name is known by the path of
    the file. Raises PairsError.
    """
    found: dict[Key, dict[str, Decision]] = {}
    for file in files:
        for thing, decision in _lines(file, key, verdicts):
            own = decision._replace(reviewer=decision.reviewer or str(file))
            before = found.setdefault(thing, {}).get(own.reviewer)
            if before is None or moment(before.time) <= moment(own.time):
                found[thing][own.reviewer] = own
    return found


def moment(time: str) -> datetime:
    """A decision's time; without a zone it is UTC. Raises ValueError."""
    if not time:
        return datetime.min.replace(tzinfo=UTC)
    found = datetime.fromisoformat(time)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _lines(
    file: Path, key: Callable[[dict[str, Any]], Key], verdicts: Sequence[str]
) -> Iterator[tuple[Key, Decision]]:
    with open_regular(file) as stream:
        for number, line in enumerate(stream, 1):
            if not line.strip():
                continue
            try:
                values = parse_json(line, "the line")
                if not isinstance(values, dict):
                    raise ValueError(f"expected an object, found {type(values).__name__}")
                thing, decision = key(values), string(values, "decision")
                if decision not in verdicts:
                    raise ValueError(f"'decision' is {decision!r:.80}, allowed: {', '.join(verdicts)}")
                found = Decision(decision, string(values, "reviewer", ""), string(values, "time", ""))
                moment(found.time)
            except (ValueError, OverflowError) as error:
                raise PairsError(f"{file}:{number}: {error}") from None
            yield thing, found


def _names(values: dict[str, Any]) -> tuple[str, str]:
    return string(values, "a"), string(values, "b")


def string(values: dict[str, Any], key: str, default: str | None = None) -> str:
    """The string under a key; without a default, it must be there. Raises ValueError."""
    value = values.get(key, default)
    if not isinstance(value, str):
        raise ValueError(f"'{key}' must be a string, found {value!r:.80}")
    try:
        os.fsencode(value)
    except UnicodeEncodeError:
        raise ValueError(f"'{key}' holds half a character (a surrogate): {value!r:.80}") from None
    return value


def unescape(text: str) -> str:
    """The name that `escape` has written, in a TSV file or a drop list. Raises ValueError."""
    if "\\" not in text:
        return text
    wrong = re.sub(ESCAPE, "", text)
    if "\\" in wrong:
        allowed = "\\\\ \\t \\n \\r \\uNNNN"
        raise ValueError(f"a backslash that starts no escape in {text!r:.80}; allowed: {allowed}")
    return re.sub(ESCAPE, _original, text)


def _original(found: re.Match[str]) -> str:
    character = ORIGINALS.get(found[0]) or chr(int(found[0][2:], 16))
    if escape(character) == character:
        raise ValueError(f"{found[0]} stands for a character that is written as it is")
    return character


def _number(text: str) -> int | float:
    text = text.strip(" \r")
    if not re.fullmatch(NUMBER, text):
        raise ValueError(f"distance {text!r:.40} is not a number")
    value = float(text)
    if not abs(value) <= 1 << 53:  # real ones are at most 256 bits, or 1 - cosine
        raise ValueError(f"distance {text!r:.40} is too large")
    return int(text) if text.isdecimal() else value
