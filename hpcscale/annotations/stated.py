"""What files state of annotated pictures, before anything of it is checked; the readers' common form.

In: nothing. Out: `Stated`, which coco.py and voc.py give, and how a picture finds its annotations.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from hpcscale.data.manifest import Category
from hpcscale.files import FileError

MOST = 16 << 30  # bytes of an annotation file
# Bits of an object's flags.
CROWD, DIFFICULT, TRUNCATED, IGNORE, CLIPPED = 1, 2, 4, 8, 16
FLAGS = {"crowd": CROWD, "difficult": DIFFICULT, "truncated": TRUNCATED, "ignore": IGNORE, "clipped": CLIPPED}

NO_PICTURE = "no such picture in the source"


class AnnotationError(FileError):
    """Annotations that cannot be used; the message names file and place."""


class StatedObject(NamedTuple):
    """One object as its file has it: any JSON values, or what an XML element says."""

    id: Any
    category: Any
    box: Any  # COCO: x, y, width, height; VOC: xmin, ymin, xmax, ymax
    flags: int = 0
    area: Any = None
    mask: Any = None  # COCO's `segmentation`
    keypoints: Any = None


class StatedPicture(NamedTuple):
    size: tuple[Any, Any] | None  # height and width, if the file states them
    objects: list[StatedObject]


class Stated(NamedTuple):
    """All objects of one file or folder."""

    kind: str  # coco or voc
    source: str  # name of the file or folder
    categories: list[Category]
    numbers: dict[Any, int]  # what a file calls a category -> its index
    pictures: dict[str, StatedPicture]  # by COCO's file_name, or by the stem
    lost: list[dict[str, Any]]  # what is of no picture: lines of the quarantine
    digest: bytes  # 16 bytes, of the file or files


def names_of(record: str, by_stem: bool) -> Iterator[str]:
    """By which names annotations may call a record: its path and every end of it that begins behind a slash;
    or its stem."""
    if by_stem:
        last = record.rpartition("/")[2]
        yield last.rpartition(".")[0] or last
        return
    while record:
        yield record
        record = record.partition("/")[2]


def find(record: str, pictures: Mapping[str, Any], by_stem: bool) -> str | None:
    """The name of a record among those that annotations give; None if it has none."""
    return next((name for name in names_of(record, by_stem) if name in pictures), None)


def line(name: str, source: str | Path, number: Any, reason: str, **more: Any) -> dict[str, Any]:
    """A line of the quarantine of annotations. name: of the picture; number: the source's id."""
    return {"name": name, "source": str(source), "id": number, "reason": reason, **more}


def shown(value: Any) -> str:
    """What was found, for the quarantine."""
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:97]}..."
