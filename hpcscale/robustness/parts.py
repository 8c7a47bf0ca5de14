"""The pictures that others are composed of: objects cut out of their pictures, and backgrounds.

In: a folder with one folder a class, or with a manifest, as `data ingest` reads them (ingest/sources.py);
backgrounds need no class. Out: `Part`s in the order of the source, each looked at once, so that nothing
unreadable is met later.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from hpcscale.data.jpeg import BadPicture
from hpcscale.data.manifest import digest
from hpcscale.files import FileError, read_bytes
from hpcscale.ingest.record import Record
from hpcscale.ingest.sources import Source, find_source
from hpcscale.ingest.transcode import MAX_BYTES, cut_out, upright
from hpcscale.progress import Progress

KINDS = ("manifest", "folders", "pictures")


class Part(NamedTuple):
    name: str  # relative to its folder
    of: str  # class of a foreground; "" of a background
    digest: str  # BLAKE2b-128 of the file, hexadecimal
    size: tuple[int, int]  # width and height of the object or of the upright background, pixels
    file: str


def find_foregrounds(folder: Path, progress: Progress) -> list[Part]:
    """The objects. Raises FileError where a picture has no transparency, nothing in it, or not one class."""

    def class_of(record: Record) -> str:
        if len(record.tags) != 1:
            raise FileError(
                f"{folder}: {record.name}: needs one tag, its class, found {list(record.tags)!r:.80}"
            )
        return record.tags[0]

    return _find(folder, find_source(folder), class_of, lambda content: object_in(content).size, progress)


def find_backgrounds(folder: Path, progress: Progress) -> list[Part]:
    """The backgrounds; tags are of no matter. Raises FileError where a picture cannot be read."""
    source = find_source(folder, untagged=True)
    return _find(folder, source, lambda record: "", lambda content: upright(content).size, progress)


def object_in(content: bytes) -> Image.Image:
    """The object of a picture file with transparency, RGBA, without the fully transparent margin around it.
    Raises BadPicture."""
    picture = cut_out(content)
    box = picture.getchannel("A").getbbox()
    if box is None:
        raise BadPicture("is transparent everywhere: there is no object")
    return picture.crop(box)


def read_part(part: Part) -> bytes:
    """The file of a part. Raises FileError where it is another than was looked at."""
    content = read_bytes(Path(part.file), MAX_BYTES)
    if digest(content).hex() != part.digest:
        raise FileError(f"{part.file}: has changed since it was looked at; start again")
    return content


def _find(
    folder: Path,
    source: Source,
    class_of: Callable[[Record], str],
    size_of: Callable[[bytes], tuple[int, int]],
    progress: Progress,
) -> list[Part]:
    if source.kind not in KINDS:
        raise FileError(f"{folder}: holds {source.kind}; needed are pictures, which attributions name")
    parts = []
    for record in source.records():
        if record.problem:
            raise FileError(f"{folder}: {record.name}: {record.problem}")
        for text in (record.name, of := class_of(record)):
            if not text.isascii() and any("\ud800" <= c <= "\udfff" for c in text):
                raise FileError(f"{folder}: {record.name}: {text!r:.80} is not UTF-8; rename it")
        content = read_bytes(Path(record.file), MAX_BYTES)
        try:
            size = size_of(content)
        except BadPicture as error:
            raise FileError(f"{record.file}: {error}") from None
        parts.append(Part(record.name, of, digest(content).hex(), size, record.file))
        progress(f"read {folder.name}", len(parts), None)
    if not parts:
        raise FileError(f"{folder}: holds no picture")
    return parts
