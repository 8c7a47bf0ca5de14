"""Boxes, masks, skeletons and class maps drawn over pictures, for `data show`.

In: `Objects` and class maps in pixels of a picture. Out: the picture with these, and words for below it.
"""

from collections import Counter

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from hpcscale.annotations.maps import IGNORE_VALUE
from hpcscale.annotations.masks import draw_masks, resize_nearest
from hpcscale.annotations.objects import Objects, scale
from hpcscale.annotations.reader import class_maps, objects, table_of
from hpcscale.annotations.stated import CROWD, DIFFICULT, IGNORE
from hpcscale.data.manifest import AnnotationTable
from hpcscale.data.store import DataSet

MASK, MAP = 0.4, 0.6  # how much of their colours is seen
UNSURE = CROWD | DIFFICULT | IGNORE  # boxes of these are thin
SHOWN = 4  # values of a class map that are named


class Drawer:
    """Draws what a data set has of some samples."""

    def __init__(self, data: DataSet, samples: NDArray[np.int64]) -> None:
        """Raises DataError where there are no annotations."""
        self.table = table_of(data)
        count = len(samples)
        named = set(self.table.sources) & {"coco", "voc"}
        self.objects: list[Objects | None] = [*objects(data, samples)] if named else [None] * count
        self.maps = class_maps(data, samples) if "maps" in self.table.sources else [None] * count

    def draw(self, picture: Image.Image, number: int) -> Image.Image:
        """An RGB picture of any size with what the sample, the `number`-th, has."""
        values, found = self.maps[number], self.objects[number]
        pixels = np.array(picture.convert("RGB"))
        if values is not None:
            draw_map(pixels, values)
        if found is None:
            return Image.fromarray(pixels)
        return draw_objects(pixels, scale(found, pixels.shape[:2]), self.table)

    def words(self, number: int) -> str:
        """How many objects of which class, and which values of a class map."""
        values, found = self.maps[number], self.objects[number]
        words = []
        if found is not None:
            classes = Counter(found.classes.tolist()).most_common()
            words = [f"{n} {self.table.categories[one].name}" for one, n in classes]
            words = words or ["no objects" if found.listed else "objects not stated"]
        if values is not None:
            names = self.table.values
            met: list[int] = np.unique(values[values != IGNORE_VALUE]).tolist()
            shown = [names[one] if one < len(names) else str(one) for one in met]
            words.append(f"map: {' '.join(shown[:SHOWN])}{' ...' * (len(shown) > SHOWN)}")
        return ", ".join(words)


def colour(number: int) -> tuple[int, int, int]:
    """A colour of a class: PASCAL VOC's, whose bits come from the number's, three by three."""
    red = green = blue = 0
    for place in range(8):
        bits = number >> 3 * place
        red |= (bits & 1) << 7 - place
        green |= (bits >> 1 & 1) << 7 - place
        blue |= (bits >> 2 & 1) << 7 - place
    return red, green, blue


def draw_map(pixels: NDArray[np.uint8], values: NDArray[np.uint8]) -> None:
    """Values of a class map over pixels (h, w, 3), in place. Background (0) stays as it is; 255 is white."""
    values = resize_nearest(values, (pixels.shape[0], pixels.shape[1]))
    palette = np.array([*map(colour, range(IGNORE_VALUE)), (255, 255, 255)])
    pixels[values > 0] = ((1 - MAP) * pixels + MAP * palette[values])[values > 0]


def draw_objects(pixels: NDArray[np.uint8], found: Objects, table: AnnotationTable) -> Image.Image:
    """Objects over pixels (h, w, 3) of the same size, which are written over."""
    colours = [colour(1 + one) for one in found.classes.tolist()]
    for mask, shade in zip(draw_masks(found), colours, strict=True):
        inside = mask > 0
        pixels[inside] = (1 - MASK) * pixels[inside] + MASK * np.array(shade)
    picture = Image.fromarray(pixels)
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(10)
    rows = zip(found.boxes.tolist(), found.classes.tolist(), found.flags.tolist(), colours, strict=True)
    for number, (box, kind, flags, shade) in enumerate(rows):
        category = table.categories[kind]
        draw.rectangle(box, outline=shade, width=1 if flags & UNSURE else 2)
        points = found.keypoints[number]
        for begin, end in category.skeleton:
            ends = points[[begin - 1, end - 1]]
            if (ends[:, 2] > 0).all():
                draw.line([*map(tuple, ends[:, :2].tolist())], fill="yellow", width=1)
        for x, y, visible in points.tolist():
            if visible > 0:
                draw.ellipse((x - 1, y - 1, x + 1, y + 1), fill="red" if visible > 1 else "white")
        name = category.name[:40].encode("ascii", "replace").decode()
        draw.text(
            (box[0] + 3, box[1] + 1), name, fill="white", font=font, stroke_width=1, stroke_fill="black"
        )
    return picture
