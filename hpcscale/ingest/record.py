"""One record of a source, and what the readers of all kinds of sources share."""

from io import BufferedReader
from pathlib import Path
from typing import NamedTuple

from hpcscale.files import FileError, open_regular

PICTURES = frozenset(  # endings of the names of pictures
    ("jpg", "jpeg", "jpe", "jfif", "png", "gif", "webp", "bmp", "tif", "tiff", "ppm", "pgm", "pbm", "pnm",
     "avif")
)  # fmt: skip


# Where a walk over a source may begin: for each kind of source two other numbers (sources.py).
Start = tuple[int, int]
BEGIN: Start = (0, 0)


class SourceError(FileError):
    """A source that cannot be packed; the message names file and line."""


class Record(NamedTuple):
    """One record of a source; its picture is the bytes [offset, offset + size) of `file`."""

    name: str  # source id: the path relative to the source, or tar/member
    tags: tuple[str, ...]
    file: str = ""
    offset: int = 0
    size: int = -1  # bytes; -1: the whole file
    problem: str = ""  # why there is no picture to read, if that is known already


def opened(file: Path) -> BufferedReader:
    """A regular file of a source. Raises SourceError for pipes, devices and folders, and OSError."""
    try:
        return open_regular(file)
    except FileError as error:
        raise SourceError(str(error)) from None
