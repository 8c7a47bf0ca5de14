"""Class maps: a folder of PNGs whose 8-bit values are classes, 255 where nobody has said (`ignore`).

In: the folder, and then the size of each picture. Out: the files as they are, for the shards, if they are
what they should be. `classes.txt` in the folder, if there is one, names the values, a line each, from 0.
"""

import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hpcscale.annotations.checks import Fault
from hpcscale.annotations.stated import AnnotationError
from hpcscale.data.manifest import digest
from hpcscale.files import FileError, read_bytes, read_text

IGNORE_VALUE = 255
MAP_BYTES = 128 << 20
BIT_DEPTH = 24  # place in a PNG file
NAMES = "classes.txt"
CHANGED = "the annotations changed during the ingest"


class Maps(NamedTuple):
    folder: Path
    digests: dict[str, bytes]  # of each file, by its stem
    values: list[str]  # their names; empty: not known

    @property
    def digest(self) -> bytes:
        """Of all files, 16 bytes."""
        lines = (f"{name!r} {found.hex()}\n".encode() for name, found in self.digests.items())
        return digest(*lines, *(f"{name!r}\n".encode() for name in self.values))


def read(folder: Path) -> Maps:
    """Reads every file once, for its digest. Raises AnnotationError."""
    digests = {file.stem: digest(_content(file)) for file in sorted(folder.glob("[!.]*.png"))}
    values: list[str] = []
    if (folder / NAMES).exists():
        try:
            values = read_text(folder / NAMES).splitlines()
        except (OSError, FileError) as error:
            raise AnnotationError(f"{folder / NAMES}: cannot be read: {error}") from None
        if len(values) > IGNORE_VALUE:
            raise AnnotationError(
                f"{folder / NAMES}: names {len(values)} values, at most {IGNORE_VALUE} are allowed"
            )
    return Maps(folder, digests, values)


def check_map(maps: Maps, name: str, size: tuple[int, int]) -> bytes:
    """The file of the picture `name`, whose height and width are `size`. Raises Fault where it is no map of
    it, and AnnotationError where it is not the file that was read before."""
    file = maps.folder / f"{name}.png"
    content = _content(file)
    if digest(content) != maps.digests[name]:
        raise AnnotationError(f"{file}: {CHANGED}")
    try:
        values = read_map(content)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise Fault("the map is no PNG of 8-bit values", str(error).partition(" <")[0]) from None
    if values.shape != size:
        raise Fault("the map has another size than the picture", values.shape)
    if maps.values:
        unnamed = np.setdiff1d(values, [*range(len(maps.values)), IGNORE_VALUE])
        if len(unnamed):
            raise Fault(f"the map has a value that {NAMES} does not name", int(unnamed[0]))
    return content


def read_map(content: bytes) -> NDArray[np.uint8]:
    """The values of a PNG: indices of its palette, or grey as it is  # (height, width). Raises ValueError,
    OSError or SyntaxError where it is none of 8 bits or fewer."""
    with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
        if image.mode not in ("P", "L"):
            raise ValueError(f"its pixels are {image.mode}, not indices")
        if image.mode == "L" and content[BIT_DEPTH] != 8:  # Pillow stretches these to 0 to 255
            raise ValueError(f"its grey has {content[BIT_DEPTH]} bits")
        return np.array(image, np.uint8)


def _content(file: Path) -> bytes:
    try:
        return read_bytes(file, MAP_BYTES)
    except (OSError, FileError) as error:
        raise AnnotationError(f"{file}: cannot be read: {error}") from None
