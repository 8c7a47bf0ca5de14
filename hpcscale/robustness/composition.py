"""A folder of composed pictures, as compose.py writes it: `manifest.jsonl`, a line a picture.

image        the file, relative to the folder
tags         the class of the object, alone
foreground   the name of the object's picture; background: of what it was pasted on
side         of the picture, pixels
box          of the object: left, top, width, height, pixels
digest       BLAKE2b-128 of the file, in hexadecimal
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hpcscale.files import FileError, read_text

MANIFEST, PICTURES = "manifest.jsonl", "pictures"


class Picture(NamedTuple):
    image: str
    of: str  # class of the object
    foreground: str
    background: str
    side: int
    box: tuple[int, ...]
    digest: str


class _Line(BaseModel):
    model_config = ConfigDict(extra="ignore")

    image: str = Field(min_length=1)
    tags: tuple[str] = Field(min_length=1)
    foreground: str
    background: str
    side: int = Field(ge=1)
    box: tuple[int, int, int, int]
    digest: str = Field(pattern="^[0-9a-f]{32}$")


def write_lines(pictures: Sequence[Picture]) -> bytes:
    """The content of a manifest."""
    lines = (
        {
            "image": one.image,
            "tags": [one.of],
            "foreground": one.foreground,
            "background": one.background,
            "side": one.side,
            "box": one.box,
            "digest": one.digest,
        }
        for one in pictures
    )
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


def read(folder: Path) -> list[Picture]:
    """The pictures of a folder. Raises FileError, naming the line, and OSError."""
    file = folder / MANIFEST
    if not file.exists():
        raise FileError(
            f"{folder}: has no {MANIFEST}; `hpcscale robustness compose` writes it when it has ended"
        )
    found: dict[str, Picture] = {}
    for number, text in enumerate(read_text(file).splitlines(), 1):
        try:
            line = _Line.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"])) or "the line"
            raise FileError(f"{file}:{number}: {place}: {first['msg']}; found {text!r:.80}") from None
        if line.image in found:
            raise FileError(f"{file}:{number}: {line.image!r:.80} stands there twice")
        found[line.image] = Picture(
            line.image, line.tags[0], line.foreground, line.background, line.side, line.box, line.digest
        )
    if not found:
        raise FileError(f"{file}: names no picture")
    return list(found.values())
