"""Names of data sets, `role-source-I-L`: for what a set is used, where from, how many pictures and labels.

As in Mahajan et al. 2018, Table 1: "train-IG-940M-1.5k" is a set for training, from Instagram, with about 940
million pictures and about 1,500 labels. Role and number of pictures may be left out, as in "IN-1k"; the
number of labels too where that of the pictures can be told from one, as in "JFT-300M". In: a name. Out: its
parts, and back.
"""

import re
from typing import NamedTuple

from hpcscale.files import Usage

ROLES = ("train", "val", "test")
# Words for a source that mean another; any other word is the user's own source.
ALSO = {"Instagram": "IG", "ImageNet": "IN"}
IG_CLASSES = (1500, 1000)  # of Instagram, the same labels
UNITS = {"k": 10**3, "M": 10**6, "B": 10**9}
LARGE = 10**6  # alone, a number is of pictures from here on, and of labels below
MOST = 900 * 10**9  # of a name; so that it can be rounded to one digit
_SOURCE = r"[A-Za-z][A-Za-z0-9_]*"
_NUMBER = r"([1-9][0-9]{0,2})(?:\.([1-9]))?([kMB]?)"
HOW = "a name is role-source-I-L, as train-IG-940M-1.5k, with role train, val or test"


class BadName(Usage):
    """A name that is none; the message says why."""


class Name(NamedTuple):
    """Numbers are as written, so about right. None: the name leaves it out."""

    role: str | None  # one of ROLES
    source: str
    images: int | None
    classes: int | None


def parse(text: str) -> Name:
    """The parts of a name. Raises BadName, which says what is wrong and what is allowed."""
    rest = text.split("-")
    role = rest.pop(0) if rest[0] in ROLES else None
    if not rest or not re.fullmatch(_SOURCE, rest[0], re.ASCII):
        found = f"{rest[0]!r:.40} is no source (a word of letters, digits and _)" if rest else "no source"
        raise BadName(f"{text!r:.80}: {found}; {HOW}")
    source, *numbers = rest
    if not 1 <= len(numbers) <= 2:
        raise BadName(f"{text!r:.80}: {len(numbers)} numbers after the source {source!r:.40}; {HOW}")
    try:
        counts: list[int | None] = [read(number) for number in numbers]
    except BadName as error:
        raise BadName(f"{text!r:.80}: {error}; {HOW}") from None
    if len(counts) == 1:
        counts.insert(1 if (counts[0] or 0) >= LARGE else 0, None)
    if counts[1] is not None and counts[1] >= LARGE:
        raise BadName(f"{text!r:.80}: {numbers[-1]} labels; a name has fewer than {LARGE:,}")
    return Name(role, source, *counts)


def format(name: Name) -> str:
    """The text of a name, its numbers rounded; `parse` gives the same name back, so rounded.

    1.28 million pictures of ImageNet are written 1M, as in the paper, which writes 1.8M of Places. Raises
    BadName where the name could not be read back.
    """
    images = None if name.images is None else rounded(name.images)
    if (name.source, images) == ("IN", "1.3M"):
        images = "1M"
    classes = None if name.classes is None else rounded(name.classes)
    text = "-".join(filter(None, (name.role, name.source, images, classes)))
    back = parse(text)
    if [each is None for each in back] != [each is None for each in name]:
        what = "pictures" if back.images else "labels"
        raise BadName(f"{text!r}: alone, this number would be read as that of {what}")
    return text


def read(number: str) -> int:
    """The value of a number as a name writes it: 1.5k is 1500. Raises BadName, also for 1500 and 0.5M."""
    found = re.fullmatch(_NUMBER, number, re.ASCII)
    if found and not (found[2] and (len(found[1]) == 3 or not found[3])):
        value = (int(found[1]) * 10 + int(found[2] or 0)) * UNITS.get(found[3], 1) // 10
        if value <= MOST:
            return value
    raise BadName(f"{number!r:.40} is no number as 365, 50k, 1.5k, 940M or 3.5B{_instead(number)}")


def _instead(number: str) -> str:
    """How the number would be written, for numbers that are only written otherwise."""
    found = re.fullmatch(r"([0-9]{1,12})(?:\.([0-9]{1,6}))?([kKmMbBgG]?)", number, re.ASCII)
    if not found:
        return ""
    unit = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "g": 10**9}[found[3].lower()]
    value = int(found[1] + (found[2] or "")) * unit // 10 ** len(found[2] or "")
    return f"; write {rounded(value)}" if 1 <= value <= MOST else ""


def rounded(count: int, digits: int = 3) -> str:
    """A count as names write it: to `digits` (1 to 3) digits, at most one of them after the point.

    1,803,460 is 1.8M, 10,450,000 is 10.5M, 115,000 is 115k. Halves are rounded up.
    """
    if not 1 <= count <= MOST:
        raise BadName(f"{count:,}: a name has numbers from 1 to {MOST:,}")
    unit = next((unit for unit in ("B", "M", "k") if count >= UNITS[unit]), "")
    tenths = UNITS.get(unit, 1) // 10 or 1  # what the last digit that may be written stands for
    step = max(tenths, 10 ** (len(str(count)) - digits))
    value = (count + step // 2) // step * step
    if value >= 1000 * UNITS.get(unit, 1):  # 999,950 is 1M
        unit = {"": "k", "k": "M", "M": "B"}[unit]
    whole, tenth = divmod(value * 10 // UNITS.get(unit, 1), 10)
    return f"{whole}.{tenth}{unit}" if tenth else f"{whole}{unit}"


def fits(number: int, count: int) -> bool:
    """Whether `number`, as a name writes it, is `count` rounded to one, two or three digits: 1M and 1.3M both
    stand for 1,281,167."""
    return 1 <= count <= MOST and any(read(rounded(count, digits)) == number for digits in (1, 2, 3))


def alike(asked: Name, there: Name) -> bool:
    """Whether `there` is what is asked for: all that `asked` says is so.

    ImageNet and IN are the same source. 1k and 1.5k are the same labels of Instagram: the paper writes both
    for the hashtags of the 1,000 classes of ImageNet.
    """
    pairs = zip(_plain(asked), _plain(there), strict=True)
    return all(one is None or one == other for one, other in pairs)


def _plain(name: Name) -> Name:
    source = ALSO.get(name.source, name.source)
    classes = IG_CLASSES[0] if source == "IG" and name.classes in IG_CLASSES else name.classes
    images = 10**6 if (source, name.images) == ("IN", 1_300_000) else name.images
    return Name(name.role, source, images, classes)
