"""The vocabulary: which tag selects which class, and which class is whose parent. One JSON file.

Made by labels/build.py from a data set's tags; read by every run. The data set keeps its raw tags, so one
packed set serves any vocabulary. A class is a set of senses (wnids), or an entry of the user's own hierarchy;
it then has no senses.
"""

import json
import re
import unicodedata
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hpcscale.files import FileError, OutputError, read_bytes, replacing
from hpcscale.labels import hierarchy

FORMAT = "hpcscale vocabulary 1"
# Characters that are invisible alone and change no word: Unicode's Default_Ignorable_Code_Point (soft hyphen,
# joiners, marks of direction, variation selectors, fillers), tatweel, marks that strike out (combining class
# 1), and marks that enclose symbols.
LOOKS = re.compile(
    "[\u00ad\u034f\u0640\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
    "\u0334-\u0338\u0488\u0489\u1abe\u20d0-\u20ff\ua670-\ua672]"
)
DOTTED = re.compile("(?<=[iįj])\u0307+")  # casefolding a Turkish capital İ leaves this dot


class VocabularyError(FileError):
    """A vocabulary file that cannot be used or written; the message names file, place and value found."""


class Finished(VocabularyError, OutputError):
    """There is a finished file, with other contents."""


class Vocabulary(NamedTuple):
    classes: tuple[str, ...]  # readable names, unique
    parents: tuple[tuple[int, ...], ...]  # direct parents, class ids
    senses: tuple[tuple[str, ...], ...]  # wnids: several for an ambiguous word, none without WordNet
    tags: dict[str, int]  # raw or normalised tag -> class id
    # In how many samples of the data it was built on each class holds, by itself or by a descendant.
    counts: tuple[int, ...]
    samples: int  # of that data, all
    labelled: int  # samples with at least one class
    about: dict[str, str]  # how it was built, for people

    def hierarchy(self) -> hierarchy.Hierarchy:
        return hierarchy.build(self.classes, self.parents)


def normalise(tag: str) -> str:
    """One spelling for '#BrownBear', 'brown_bear' and 'Brown bear': 'brownbear'; '' if nothing is left.

    NFKC, casefold, then letters and digits only: Mahajan et al. 2018 merge hashtags, which have no
    separators. Marks stay with their letters, because in many scripts they are the vowels; marks of an emoji
    or of a space are removed with it. Removed is also what only changes the look of a letter: variation
    selectors and joiners, enclosing and striking marks, the Arabic tatweel. A second application changes
    nothing.
    """
    if tag.isascii():
        return "".join(filter(str.isalnum, tag.lower()))
    plain = LOOKS.sub("", unicodedata.normalize("NFKC", LOOKS.sub("", tag)))
    kept: list[str] = []
    lettered = False  # whether the last letter or mark was kept
    for c in plain:
        lettered = c.isalnum() or (lettered and unicodedata.category(c) in ("Mn", "Mc"))
        if lettered:
            kept.append(c)
    folded = DOTTED.sub("", "".join(kept).casefold())
    return unicodedata.normalize("NFKC", folded)


def number(tag: str) -> bool:
    """Whether a normalised tag is only a number, like an index of a class: no word says what it means."""
    return tag.isdecimal()


def tag_classes(vocabulary: Vocabulary, tags: Sequence[str]) -> NDArray[np.int32]:
    """Class of each tag as written, else as normalised; -1 where it selects none. (tags,)

    A number is looked up only as written, with or without a hash sign: 1.5, 1/5 and 15 are different tags.
    """
    known = vocabulary.tags

    def selected(tag: str) -> int:
        if tag in known:
            return known[tag]
        spelling = normalise(tag)
        return -1 if number(spelling) and spelling != tag.strip("# ") else known.get(spelling, -1)

    return np.fromiter(map(selected, tags), np.int32, len(tags))


def find(vocabulary: Vocabulary, name: str) -> int | None:
    """The class of this name; else that a tag selects; else with this wnid, if it is the only one."""
    return finder(vocabulary)(name)


def finder(vocabulary: Vocabulary) -> Callable[[str], int | None]:
    """`find` for many names."""
    numbers = {name: c for c, name in enumerate(vocabulary.classes)}
    holders: dict[str, list[int]] = {}
    for c, senses in enumerate(vocabulary.senses):
        for wnid in senses:
            holders.setdefault(wnid, []).append(c)

    def found(name: str) -> int | None:
        if name in numbers:
            return numbers[name]
        c = int(tag_classes(vocabulary, [name])[0])
        if c >= 0:
            return c
        held = holders.get(name, [])
        return held[0] if len(held) == 1 else None

    return found


def did_you_mean(vocabulary: Vocabulary, name: str) -> str:
    """For the end of a message: names of classes and tags that are written nearly so, or nothing."""
    close = get_close_matches(name, [*vocabulary.classes, *vocabulary.tags], 5, 0.7)
    return f"; did you mean {', '.join(map(repr, dict.fromkeys(close)))}?" if close else ""


def save(vocabulary: Vocabulary, file: Path, force: bool = False) -> None:
    """Write aside, read back, rename. A finished file with other contents is replaced only with `force`."""
    text = dump(vocabulary)
    if file.exists() and not force and file.read_bytes() != text.encode():
        raise Finished(f"{file} exists and differs; choose another name, or replace it with --force")
    with replacing(file) as temporary:
        temporary.write_text(text, encoding="utf-8")
        if load(temporary) != vocabulary:
            raise VocabularyError(f"{file}: what was written does not read back the same")


def dump(vocabulary: Vocabulary) -> str:
    """The JSON text of a vocabulary: the same vocabulary gives the same bytes."""
    tags: list[list[str]] = [[] for _ in vocabulary.classes]
    for tag, c in vocabulary.tags.items():
        tags[c].append(tag)
    lines = [
        _json(
            name=name,
            parents=[vocabulary.classes[p] for p in parents],
            senses=senses,
            count=count,
            tags=sorted(tags),
        )
        for name, parents, senses, count, tags in zip(
            vocabulary.classes, vocabulary.parents, vocabulary.senses, vocabulary.counts, tags, strict=True
        )
    ]
    head = _json(
        format=FORMAT, about=vocabulary.about, samples=vocabulary.samples, labelled=vocabulary.labelled
    )
    return f'{head[:-1]}, "classes": [\n' + ",\n".join(lines) + "\n]}\n"


def load(file: Path) -> Vocabulary:
    """Read and check a vocabulary file. VocabularyError names the file, the place and what was found."""
    try:
        content = _File.model_validate_json(read_bytes(file))
    except (OSError, FileError) as error:
        raise VocabularyError(f"{file}: cannot be read: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the file"
        raise VocabularyError(
            f"{file}: {place}: {first['msg']}; found {str(first['input'])[:80]!r}"
        ) from None
    if content.format != FORMAT:
        raise VocabularyError(f"{file}: format is {content.format!r}, this version reads {FORMAT!r}")
    numbers: dict[str, int] = {}
    tags: dict[str, int] = {}
    for c, each in enumerate(content.classes):
        if numbers.setdefault(each.name, c) != c:
            raise VocabularyError(
                f"{file}: class {c} has the name {each.name!r} of class {numbers[each.name]}"
            )
        for tag in each.tags:
            if tags.setdefault(tag, c) != c:
                other = content.classes[tags[tag]].name
                raise VocabularyError(f"{file}: tag {tag!r} selects both {other!r} and {each.name!r}")
    if content.labelled > content.samples or any(each.count > content.samples for each in content.classes):
        raise VocabularyError(f"{file}: more samples have a class than the {content.samples} there are")
    for each in content.classes:
        if unknown := [parent for parent in each.parents if parent not in numbers]:
            raise VocabularyError(f"{file}: class {each.name!r} has the unknown parent {unknown[0]!r}")
    vocabulary = Vocabulary(
        classes=tuple(numbers),
        parents=tuple(tuple(numbers[p] for p in each.parents) for each in content.classes),
        senses=tuple(each.senses for each in content.classes),
        counts=tuple(each.count for each in content.classes),
        tags=tags,
        samples=content.samples,
        labelled=content.labelled,
        about=content.about,
    )
    try:
        vocabulary.hierarchy()
    except hierarchy.HierarchyError as error:
        raise VocabularyError(f"{file}: {error}") from None
    return vocabulary


Count = Annotated[int, Field(ge=0, le=1 << 53)]  # float64 counts so far exactly
Name = Annotated[str, Field(min_length=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Class(_Strict):
    name: Name
    parents: tuple[str, ...]
    senses: tuple[str, ...]
    count: Count
    tags: tuple[Name, ...]


class _File(_Strict):
    format: str
    about: dict[str, str]
    samples: Count
    labelled: Count
    classes: tuple[_Class, ...] = Field(min_length=1)


def _json(**values: Any) -> str:
    return json.dumps(values, ensure_ascii=False)
