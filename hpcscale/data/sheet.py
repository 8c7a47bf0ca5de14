"""A contact sheet: pictures of a data set in a grid, each over its tags.

In: a DataSet and sample ids. Out: a picture, for `data show`.
"""

import io
import textwrap
from pathlib import Path
from typing import NamedTuple

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


def contact_sheet(data: DataSet, samples: NDArray[np.int64]) -> tuple[Image.Image, list[Shown]]:
    """The sheet (RGB) and what is on it, row by row. A picture that does not decode is an empty tile."""
    offsets, ids = data.tag_rows(samples)
    columns = max(1, min(COLUMNS, len(samples)))
    rows = -(-len(samples) // columns)
    height = TILE + LINES * LINE + GAP
    sheet = Image.new("RGB", (GAP + columns * (TILE + GAP), GAP + max(1, rows) * height), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(11)
    shown = []
    for position, (jpeg, name) in enumerate(zip(data.jpegs(samples), data.names(samples), strict=True)):
        tags = [data.tags[tag] for tag in ids[offsets[position] : offsets[position + 1]]]
        left, top = GAP + position % columns * (TILE + GAP), GAP + position // columns * height
        size = _paste(sheet, jpeg, left, top)
        lines = textwrap.wrap(shown_name(start(tags)) or "(no tag)", 27)[:LINES]
        draw.multiline_text((left, top + TILE + 1), "\n".join(lines), fill="black", font=font, spacing=1)
        shown.append(Shown(int(samples[position]), name, tags, *size, len(jpeg)))
    return sheet, shown


def save(sheet: Image.Image, file: Path) -> None:
    """Write the sheet as PNG, with our mark in it."""
    mark = PngInfo()
    mark.add_text("Software", "hpcscale")
    content = io.BytesIO()
    sheet.save(content, "PNG", pnginfo=mark)
    write_file(file, content.getvalue())


def _paste(sheet: Image.Image, jpeg: NDArray[np.uint8], left: int, top: int) -> tuple[int, int]:
    """Put a picture into a tile, keeping its aspect ratio. Returns the picture's size in pixels."""
    sheet.paste("lightgrey", (left, top, left + TILE, top + TILE))
    try:
        with Image.open(io.BytesIO(tidy(jpeg.tobytes()).jpeg), formats=["JPEG"]) as picture:
            size = picture.size
            picture.thumbnail((TILE, TILE))
            sheet.paste(
                picture.convert("RGB"),
                (left + (TILE - picture.width) // 2, top + (TILE - picture.height) // 2),
            )
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return 0, 0
    return size


def start(tags: list[str]) -> str:
    """The tags as one line, cut off: a tag may have millions of letters, and a picture millions of tags."""
    line = ", ".join(tag[: LETTERS + 1] for tag in tags[: LETTERS + 1])
    return line if len(line) <= LETTERS else f"{line[: LETTERS - 3]}..."
