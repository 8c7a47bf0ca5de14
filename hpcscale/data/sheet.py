"""A contact sheet: pictures of a data set in a grid, each over its tags.

In: a DataSet and sample ids. Out: a picture, for `data show`.
"""

import io
import textwrap
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from hpcscale.data.jpeg import tidy
from hpcscale.data.store import DataSet
from hpcscale.files import write_file
from hpcscale.text import shown as shown_name

TILE, GAP, LINES, LINE = 160, 8, 3, 13  # pixels; lines of text under a picture; pixels
LETTERS = 200  # shown of the tags
COLUMNS = 8


class Drawer(Protocol):
    """What draws more into the tiles (annotations/drawing.py)."""

    def draw(self, picture: Image.Image, number: int) -> Image.Image:
        """The RGB picture of the `number`-th sample with what is to be seen in it."""

    def words(self, number: int) -> str:
        """What stands before its tags."""


class Shown(NamedTuple):
    sample: int
    name: str  # source id
    tags: list[str]
    width: int
    height: int
    bytes: int  # stored


def spread(samples: int, count: int) -> NDArray[np.int64]:
    """`count` sample ids, or all, evenly over the data set."""
    count = min(count, samples)
    return np.arange(count, dtype=np.int64) * samples // max(count, 1)


def contact_sheet(
    data: DataSet, samples: NDArray[np.int64], tile: int = TILE, drawer: Drawer | None = None
) -> tuple[Image.Image, list[Shown]]:
    """The sheet (RGB) and what is on it, row by row. A picture that does not decode is an empty tile.

    tile: pixels of a tile's sides."""
    offsets, ids = data.tag_rows(samples)
    columns = max(1, min(COLUMNS * TILE // tile, len(samples)))
    rows = -(-len(samples) // columns)
    height = tile + LINES * LINE + GAP
    sheet = Image.new("RGB", (GAP + columns * (tile + GAP), GAP + max(1, rows) * height), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(11)
    shown = []
    for position, (jpeg, name) in enumerate(zip(data.jpegs(samples), data.names(samples), strict=True)):
        tags = [data.tags[tag] for tag in ids[offsets[position] : offsets[position + 1]]]
        left, top = GAP + position % columns * (tile + GAP), GAP + position // columns * height
        picture, size = _thumbnail(jpeg, tile)
        sheet.paste("lightgrey", (left, top, left + tile, top + tile))
        if picture is not None:
            picture = drawer.draw(picture, position) if drawer else picture
            place = (left + (tile - picture.width) // 2, top + (tile - picture.height) // 2)
            sheet.paste(picture, place)
        words = [drawer.words(position)] if drawer else []
        text = shown_name(start([*words, *tags])) or "(no tag)"
        lines = textwrap.wrap(text, 27 * tile // TILE)[:LINES]
        draw.multiline_text((left, top + tile + 1), "\n".join(lines), fill="black", font=font, spacing=1)
        shown.append(Shown(int(samples[position]), name, tags, *size, len(jpeg)))
    return sheet, shown


def save(sheet: Image.Image, file: Path) -> None:
    """Write the sheet as PNG, with our mark in it."""
    mark = PngInfo()
    mark.add_text("Software", "hpcscale")
    content = io.BytesIO()
    sheet.save(content, "PNG", pnginfo=mark)
    write_file(file, content.getvalue())


def _thumbnail(jpeg: NDArray[np.uint8], tile: int) -> tuple[Image.Image | None, tuple[int, int]]:
    """A picture (RGB) that fits into a tile, its aspect ratio kept, and its own width and height; None and 0
    where it does not decode."""
    try:
        with Image.open(io.BytesIO(tidy(jpeg.tobytes()).jpeg), formats=["JPEG"]) as picture:
            size = picture.size
            picture.thumbnail((tile, tile))
            return picture.convert("RGB"), size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None, (0, 0)


def start(tags: list[str]) -> str:
    """The tags as one line, cut off: a tag may have millions of letters, and a picture millions of tags."""
    line = ", ".join(tag[: LETTERS + 1] for tag in tags[: LETTERS + 1])
    return line if len(line) <= LETTERS else f"{line[: LETTERS - 3]}..."
