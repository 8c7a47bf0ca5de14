"""What an evaluator of dense tasks gives back, and which pictures are left out of it.

In: a drop list, as `dedup drop` writes it. Out: the pictures of an evaluation that it names.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, TypeVar

from hpcscale.files import FileError, read_text
from hpcscale.pairs import unescape

T = TypeVar("T")


class ResultsError(FileError):
    """Annotations or results that cannot be evaluated; the message names file and record."""


class Measured(NamedTuple):
    """The numbers of one evaluation; None where nothing in the truth defines one."""

    pictures: int
    metrics: dict[str, float | None]
    classes: dict[str, float | None]  # class -> its average precision, or its intersection over union


def read_drop(file: Path, pictures: Mapping[str, T]) -> set[T]:
    """The pictures that a drop list names, one a line. pictures: name -> picture. Where a name is none,
    endings are not compared: results are of 1.png, say, and near-duplicates of 1.jpg. Raises ResultsError
    for a name that is still none, and OSError."""
    bare = {_bare(name): picture for name, picture in pictures.items()}
    found = set()
    for number, line in enumerate(read_text(file).splitlines(), 1):
        if not line.strip():
            continue
        try:
            name = unescape(line)
        except ValueError as error:
            raise ResultsError(f"{file}, line {number}: {error}") from None
        for names, key in ((pictures, name), (bare, name), (bare, _bare(name))):
            if key in names:
                found.add(names[key])
                break
        else:
            raise ResultsError(f"{file}, line {number}: {name!r:.80} is no picture of the annotations")
    return found


def _bare(name: str) -> str:
    """A name without its ending."""
    return name.rpartition(".")[0] or name
