"""Pictures like those of dSprites, drawn here: one white shape on black, of which every factor is known.

In: numbers of pictures. Out: PNG files of 64 x 64 pixels, and a manifest with the labels of dSpr-loc and
dSpr-ori. For whoever has not the original, and for tests: position and orientation can be measured again.

Factors are those that dSprites states (Matthey et al. 2017), in its order, the last one fastest: 3 shapes, 6
scales from 0.5 to 1, 40 orientations, 32 x and 32 y positions from 0 to 1; 737,280 pictures. Orientation k is
2 pi k / 39, so that the last is the first again (from memory of its tables; its page says "in [0, 2 pi]"); it
turns from x to y, and y points down. Sizes, margins and the curve of the heart are ours. A pixel is the share
of it that the shape covers, counted on 4 x 4 points. The mean of a shape's area lies at its position.
"""

import io
import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hpcscale.data.order import permute
from hpcscale.files import aside, check_output, compared, read_bytes, refuse_other, write_new
from hpcscale.progress import Progress, none
from hpcscale.transfer.vtab import splits
from hpcscale.transfer.vtab.bins import dsprites_location, dsprites_orientation

SHAPES = ("square", "ellipse", "heart")
SCALES, ORIENTATIONS, PLACES = 6, 40, 32
TOTAL = len(SHAPES) * SCALES * ORIENTATIONS * PLACES * PLACES
SIDE, FINE = 64, 4  # pixels of a picture; points of a pixel, each way
LARGEST = 10.0  # pixels from its middle to the edge of the largest square
MARGIN = 16.0  # pixels between the edge of a picture and the first position: no shape is cut
AXES = (1.2, 0.6)  # of the ellipse, in sides of the square
HEART = 0.293481  # how far the heart's mean lies above the origin of its curve, in units of the curve


class Factors(NamedTuple):
    """Of one picture; indices, as in dSprites."""

    shape: int  # in SHAPES
    scale: int  # 0 to 5
    orientation: int  # 0 to 39
    x: int  # 0 to 31, from the left
    y: int  # 0 to 31, from the top

    @property
    def radians(self) -> float:
        return 2 * math.pi * self.orientation / (ORIENTATIONS - 1)

    @property
    def centre(self) -> tuple[float, float]:
        """Where the mean of the shape lies, x and y in pixels from the upper left corner."""
        room = SIDE - 2 * MARGIN
        return MARGIN + room * self.x / (PLACES - 1), MARGIN + room * self.y / (PLACES - 1)


def factors(number: int) -> Factors:
    """The factors of a picture, by its number in [0, TOTAL). Raises ValueError."""
    if not 0 <= number < TOTAL:
        raise ValueError(f"{number} is not in [0, {TOTAL})")
    found = []
    for values in (PLACES, PLACES, ORIENTATIONS, SCALES, len(SHAPES)):
        number, value = divmod(number, values)
        found.append(value)
    return Factors(*reversed(found))


def draw(of: Factors) -> NDArray[np.uint8]:
    """The picture  # (64, 64) uint8, 255 where the shape covers a pixel whole"""
    at = (np.arange(SIDE * FINE) + 0.5) / FINE
    x, y = at[None, :] - of.centre[0], at[:, None] - of.centre[1]
    cos, sin = math.cos(of.radians), math.sin(of.radians)
    size = LARGEST * (0.5 + 0.5 * of.scale / (SCALES - 1))
    u, v = (cos * x + sin * y) / size, (cos * y - sin * x) / size
    inside = _inside(SHAPES[of.shape], u, v).reshape(SIDE, FINE, SIDE, FINE)
    covered: NDArray[np.float64] = inside.mean(axis=(1, 3))
    return np.rint(255 * covered).astype(np.uint8)


def _inside(shape: str, u: NDArray[np.float64], v: NDArray[np.float64]) -> NDArray[Any]:
    """Whether points, in units of half the square's side, lie in the shape."""
    if shape == "square":
        return (np.abs(u) <= 1) & (np.abs(v) <= 1)
    if shape == "ellipse":
        return (u / AXES[0]) ** 2 + (v / AXES[1]) ** 2 <= 1
    v = HEART - v  # its tip points down where it is not turned
    return (u * u + v * v - 1) ** 3 <= u * u * v**3


def numbers(count: int, seed: int) -> NDArray[np.int64]:
    """Numbers of `count` different pictures: the first ones of a permutation keyed by the seed  # (count,)"""
    if not 1 <= count <= TOTAL:
        raise ValueError(f"{count} pictures; there are 1 to {TOTAL:,}")
    return permute(np.arange(count, dtype=np.int64), TOTAL, seed)


def write(folder: Path, count: int, seed: int, progress: Progress = none) -> Path:
    """Draw pictures into a folder, and write its manifest last; returns it. The same call writes the same.

    A line has the tags "x-07" and "orientation-03", which are classes of dSpr-loc and dSpr-ori, and the
    factors. dSpr-loc.tsv and dSpr-ori.tsv list the classes, for `labels build --parents`. Raises OutputError
    where another manifest is, before anything is drawn.
    """
    manifest, lines = folder / "manifest.jsonl", []
    chosen = {number: factors(number) for number in sorted(numbers(count, seed).tolist())}
    for number, of in chosen.items():
        tags = [f"x-{dsprites_location(of.x):02d}", f"orientation-{dsprites_orientation(of.orientation):02d}"]
        lines.append(json.dumps({"image": _name(number), "tags": tags} | of._asdict()) + "\n")
    content = "".join(lines).encode()
    check_output(manifest, ours=lambda file: read_bytes(file) == content)
    classes = {
        f"{task}.tsv": "".join(f"{tag}-{k:02d}\n" for k in range(16))
        for task, tag in (("dSpr-loc", "x"), ("dSpr-ori", "orientation"))
    }
    splits.write(folder, classes, ())
    for done, (number, of) in enumerate(chosen.items(), 1):
        _write_picture(folder / _name(number), draw(of))
        progress("pictures", done, count)
    write_new(manifest, content)
    return manifest


def _name(number: int) -> str:
    return f"{number:06d}.png"


def _write_picture(file: Path, pixels: NDArray[np.uint8]) -> None:
    """Not synced, which would take most of the time. Raises OutputError where another file has its name."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    check_output(file, ours=compared)
    temporary = aside(file)
    try:
        temporary.write_bytes(stream.getvalue())
        refuse_other(temporary, file)
        temporary.rename(file)
    finally:
        temporary.unlink(missing_ok=True)
