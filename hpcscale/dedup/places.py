"""Pictures of a source by name, for code that shows or re-reads a few of many.

In: a data-set folder, a folder of pictures, a .tar file or a folder of them, and names as hash files and
pairs files have them. Out: where each picture lies, and a small JPEG of it.
"""

import os
from collections.abc import Set
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hpcscale.data.jpeg import BadPicture
from hpcscale.data.store import open_data
from hpcscale.ingest import transcode
from hpcscale.ingest.sources import find_source
from hpcscale.ingest.transcode import read_picture

NAMES = 1 << 16  # of a data set, looked through at a time


class Place(NamedTuple):
    """The bytes [offset, offset + size) of a file; size -1: all of it."""

    file: str
    offset: int = 0
    size: int = -1


def find_pictures(source: Path, names: Set[str]) -> dict[str, Place]:
    """Where the pictures of these names lie; names that the source does not have are left out.

    Data sets and tars are searched from the start; in a folder, each name is looked up. Raises DataError or
    SourceError.
    """
    if (source / "plan.json").exists():
        return _in_data_set(source, names)
    if source.is_file() or any(source.glob("*.tar")):
        records = find_source(source).records()
        return {r.name: Place(r.file, r.offset, r.size) for r in records if r.name in names and not r.problem}
    return {name: Place(os.path.join(source, name)) for name in names if _inside(source, name)}


def thumbnail(place: Place, side: int, quality: int) -> bytes:
    """A JPEG of at most side x side pixels, or b"" if the picture cannot be decoded."""
    try:
        return transcode.thumbnail(read_picture(*place), side, quality)
    except BadPicture:
        return b""


def _in_data_set(folder: Path, names: Set[str]) -> dict[str, Place]:
    data = open_data(folder)
    found = {}
    for begin in range(0, data.samples, NAMES):
        samples = np.arange(begin, min(begin + NAMES, data.samples), dtype=np.int64)
        for sample, name in zip(samples.tolist(), data.names(samples), strict=True):
            if name in names:
                index = int(np.searchsorted(data.starts, sample, side="right")) - 1
                file, first = data.jpeg_bytes(index)
                begins, ends = data.shard(index).jpeg_offsets[sample - data.starts[index] :][:2].tolist()
                found[name] = Place(os.fspath(file), first + begins, ends - begins)
    return found


def _inside(source: Path, name: str) -> bool:
    """Whether the folder has a file of this name; a name that leads out of the folder does not count."""
    if name.startswith("/") or ".." in name.split("/") or "\0" in name:
        return False
    return os.path.isfile(os.path.join(source, name))
