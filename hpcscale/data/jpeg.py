"""JPEG files, marker by marker: what makes decoders fail is taken out or refused; the rest stays untouched.

In: the bytes of a JPEG file. Out: bytes that libjpeg decodes without a warning and that DALI accepts, or the
reason why not. Decoders disagree about damaged files: libjpeg warns and goes on, with grey where data is
missing; Pillow drops the warnings; DALI refuses some files that the others read. Here a warning is an error.

Nothing is decoded and encoded again. `tidy` repairs files that decoders refuse though no picture is damaged:

- bytes of the header that belong to no segment, and markers without content there, are left out;
- parameters that mean nothing in a sequential scan (some cameras write odd ones), and an unknown JFIF
  version, are set to what libjpeg expects.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import simplejpeg
from numpy.typing import NDArray

MAX_SCANS = 64  # progressive JPEGs have about 10
MAX_WORK = 1 << 30  # scans * pixels, since each scan may cover all pixels: 20 scans of 52 million
MAX_SEGMENTS = 4096  # 128 MiB of colour profile take 2048
EOI, SOS, APP0, APP1 = 0xD9, 0xDA, 0xE0, 0xE1
ALONE = frozenset((0x01, *range(0xD0, 0xD8)))  # TEM and RST have no content
FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOF; the three are tables
SEQUENTIAL, HUFFMAN = (0xC0, 0xC1), (0xC0, 0xC1, 0xC2)
MARKER = re.compile(rb"\xff+[^\x00\xff]", re.DOTALL)  # padding of 0xFF may come before it
IN_SCAN = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]", re.DOTALL)  # a marker that ends the data of a scan
COLOURS = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK"}  # Pillow's names -> simplejpeg's
SMALLEST = 16  # pixels of the longer side; of smaller pictures the size does not tell the scale of decoding


class BadPicture(ValueError):
    """A picture that cannot be used; the message is the reason."""


class Tidy(NamedTuple):
    jpeg: bytes  # the same object if nothing was changed
    huffman: bool  # baseline, extended or progressive: what all decoders know
    app1: bool  # whether there is metadata that may hold an orientation


def is_jpeg(picture: bytes) -> bool:
    return picture[:3] == b"\xff\xd8\xff"


def tidy(jpeg: bytes) -> Tidy:
    """The repaired file. Raises BadPicture if it has no end, or would cost too much to decode."""
    scans = pixels = frame = 0
    app1 = False
    upto = 2
    changes: list[tuple[int, int, bytes]] = []  # replace bytes [start, end) by these
    for number, (marker, start, body, end) in enumerate(_segments(jpeg)):
        if number == MAX_SEGMENTS:
            raise BadPicture(f"more than {MAX_SEGMENTS:,} segments")
        if not scans:
            alone = not body and marker != EOI
            if start > upto or alone:
                changes.append((upto, end if alone else start, b""))
            app1 |= marker == APP1
        upto = end
        if (
            marker == APP0
            and jpeg[body : body + 5] == b"JFIF\0"
            and jpeg[body + 5 : body + 6] not in (b"", b"\1")
        ):
            changes.append((body + 5, body + 6, b"\1"))
        elif marker in FRAMES:
            frame = marker
            pixels = int.from_bytes(jpeg[body + 1 : body + 3]) * int.from_bytes(jpeg[body + 3 : body + 5])
        elif marker == SOS:
            scans += 1
            if scans > MAX_SCANS or scans * pixels > MAX_WORK:
                most = min(MAX_SCANS, MAX_WORK // max(pixels, 1))
                raise BadPicture(f"more than the {most} scans that are allowed for {pixels:,} pixels")
            if frame in SEQUENTIAL and jpeg[end - 3 : end] != b"\0\x3f\0":
                changes.append((end - 3, end, b"\0\x3f\0"))
    return Tidy(_changed(jpeg, changes), frame in HUFFMAN, app1)


def dimensions(jpeg: bytes) -> tuple[int, int]:
    """Height and width in pixels, of the header alone. Raises BadPicture."""
    for marker, _, body, _ in _segments(jpeg):
        if marker in FRAMES and body:
            height, width = (int.from_bytes(jpeg[at : at + 2]) for at in (body + 1, body + 3))
            if height and width:
                return height, width
        if marker in FRAMES or marker == SOS:
            break
    raise BadPicture("its header states no size")


def _segments(jpeg: bytes) -> Iterator[tuple[int, int, int, int]]:
    """All segments up to the end marker: marker, its offset, offset of its content (0: none), and end."""
    at, pattern = 2, MARKER
    while (found := pattern.search(jpeg, at)) is not None:
        marker, at = jpeg[found.end() - 1], found.end()
        if marker in ALONE or marker == EOI:
            yield marker, found.start(), 0, at
        else:
            length = int.from_bytes(jpeg[at : at + 2])
            yield marker, found.start(), at + 2 if length >= 2 else 0, at + max(2, length)
            at += max(2, length)
        if marker == EOI:
            return
        if marker == SOS:
            pattern = IN_SCAN
            if jpeg.find(b"\xff\xda", at) < 0 <= (ends := jpeg.rfind(b"\xff\xd9", at)):
                yield EOI, ends, 0, ends + 2  # the only scan, as in most files: ten times as fast
                return
    if pattern is MARKER:
        raise BadPicture("not a picture, or cut within its header")
    raise BadPicture("truncated: there is no end marker")


def _changed(jpeg: bytes, changes: list[tuple[int, int, bytes]]) -> bytes:
    if not changes:
        return jpeg
    parts, upto = [], 0
    for start, end, content in changes:
        parts += [jpeg[upto:start], content]
        upto = end
    return b"".join([*parts, jpeg[upto:]])


def decode(jpeg: bytes, mode: str, size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """Pixels (height, width, channels) of a tidy file, of Pillow's mode L, RGB or CMYK.

    size: (width, height) after decoding at 1/2, 1/4 or 1/8; pixels equal those of Pillow's `draft`. Raises
    BadPicture with libjpeg's words if it warns.
    """
    least = {} if size is None else {"min_width": size[0], "min_height": size[1]}
    try:
        return np.asarray(simplejpeg.decode_jpeg(jpeg, COLOURS[mode], **least))
    except ValueError as error:
        raise BadPicture(f"cannot be decoded: {error}") from None
