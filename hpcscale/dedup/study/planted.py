"""Known changes made to one picture, and the perceptual hashes of all results.

The worker processes of calibrate.py do this. Imports neither h5py nor torch, so that workers start fast.

In: bytes of a picture file. Out: hashes of the picture and of each of its `TRANSFORMATIONS`, and, if asked
for, small squares of all of them for a network. Random choices (such as where a crop lies) depend on the
picture and the seed alone, so the order and number of workers do not matter.

Unlike `dedup hash`, which reads JPEGs straight to grey, all pictures are hashed from Pillow's RGB, because
most of the changed copies never were JPEG files.
"""

import hashlib
import io
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont, ImageOps

from hpcscale import ops
from hpcscale.data.jpeg import BadPicture
from hpcscale.ingest.transcode import read_picture, upright

Change = Callable[[Image.Image, np.random.Generator], Image.Image]
WORDS = {"pdq": 4, "phash": 1, "dhash": 1}


class Planted(NamedTuple):
    """Results of one picture; `reason` says why there are none. Row 0 is the unchanged picture."""

    reason: str
    digest: bytes = b""  # of the pixels: equal for exact duplicates
    codes: tuple[bytes, ...] = ()  # (1 + transformations, words) uint64 of each of `WORDS`
    dihedral: bytes = b""  # (8, 4) uint64, PDQ of the picture turned and mirrored
    quality: bytes = b""  # (1 + transformations,) uint8 of PDQ
    squares: bytes = b""  # (1 + transformations, crop, crop, 3) uint8


def plant(file: str, offset: int, size: int, seed: int, resize: int, crop: int) -> Planted:
    """Do one picture. resize, crop: sides of the squares; crop 0: no squares. After OSError, try again."""
    try:
        image = upright(read_picture(file, offset, size)).convert("RGB")
    except BadPicture as error:
        return Planted(str(error))
    pixels = np.asarray(image)
    digest = hashlib.blake2b(repr(pixels.shape).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(pixels).data)
    draw = np.random.default_rng([seed, *digest.digest()])
    variants = [image, *(change(image, draw) for change in TRANSFORMATIONS.values())]
    codes: dict[str, list[NDArray[np.uint64]]] = {method: [] for method in WORDS}
    quality = []
    for variant in variants:
        code, measure = ops.pdq(np.ascontiguousarray(variant.convert("RGB")))
        codes["pdq"].append(code)
        quality.append(measure)
        grey = np.ascontiguousarray(variant.convert("L"))
        codes["phash"].append(np.array([ops.phash(grey)], np.uint64))
        codes["dhash"].append(np.array([ops.dhash(grey)], np.uint64))
    squares = b"".join(square(variant, resize, crop).tobytes() for variant in variants) if crop else b""
    return Planted(
        "",
        digest.digest(),
        tuple(np.stack(rows).tobytes() for rows in codes.values()),
        ops.pdq_dihedral(np.ascontiguousarray(image))[0].tobytes(),
        bytes(quality),
        squares,
    )


def square(image: Image.Image, resize: int, crop: int) -> NDArray[np.uint8]:
    """The centre (crop, crop, 3) of the picture squeezed to resize x resize: as evaluation crops it, but with
    Pillow's resampling instead of DALI's."""
    small = image.convert("RGB").resize((resize, resize), Image.Resampling.BILINEAR)
    start = round((resize - crop) / 2)
    return np.asarray(small.crop((start, start, start + crop, start + crop)))


def _jpeg(quality: int) -> Change:
    def change(image: Image.Image, draw: np.random.Generator) -> Image.Image:
        out = io.BytesIO()
        image.save(out, "JPEG", quality=quality)
        return Image.open(out).convert("RGB")

    return change


def _resize(factor: float) -> Change:
    def change(image: Image.Image, draw: np.random.Generator) -> Image.Image:
        size = max(1, round(image.width * factor)), max(1, round(image.height * factor))
        return image.resize(size, Image.Resampling.BICUBIC)

    return change


def _crop(fraction: float) -> Change:
    """Cuts off `fraction` of the width and of the height; what stays lies at a random place."""

    def change(image: Image.Image, draw: np.random.Generator) -> Image.Image:
        width, height = (max(1, round(side * (1 - fraction))) for side in image.size)
        left = int(draw.integers(0, image.width - width + 1))
        top = int(draw.integers(0, image.height - height + 1))
        return image.crop((left, top, left + width, top + height))

    return change


def _border(fraction: float, colour: str) -> Change:
    """A border on all sides, `fraction` of the shorter side wide."""
    return lambda image, draw: ImageOps.expand(image, max(1, round(min(image.size) * fraction)), colour)


def _enhance(kind: type[ImageEnhance.Brightness | ImageEnhance.Contrast], factor: float) -> Change:
    return lambda image, draw: kind(image).enhance(factor)


def _blur(radius: int) -> Change:
    return lambda image, draw: image.filter(ImageFilter.GaussianBlur(radius))


def _gamma(exponent: float) -> Change:
    table = [round(255 * (value / 255) ** exponent) for value in range(256)] * 3
    return lambda image, draw: image.point(table)


def _text(image: Image.Image, draw: np.random.Generator) -> Image.Image:
    """White letters with a black edge, a tenth of the height, over the lower part."""
    changed = image.copy()
    size = max(6, image.height // 10)
    place = image.width // 2, image.height - size
    font = ImageFont.load_default(size)
    ImageDraw.Draw(changed).text(
        place, "when you see it", "white", font, anchor="mm", stroke_width=max(1, size // 12),
        stroke_fill="black",
    )  # fmt: skip
    return changed


TRANSFORMATIONS: dict[str, Change] = {
    **{f"JPEG quality {quality}": _jpeg(quality) for quality in (75, 50, 25)},
    **{f"resize x {factor}": _resize(factor) for factor in (0.75, 0.5, 0.25, 1.5)},
    "grey": lambda image, draw: image.convert("L").convert("RGB"),
    **{f"brightness x {factor}": _enhance(ImageEnhance.Brightness, factor) for factor in (0.7, 1.3)},
    **{f"contrast x {factor}": _enhance(ImageEnhance.Contrast, factor) for factor in (0.7, 1.3)},
    **{f"gamma {exponent}": _gamma(exponent) for exponent in (0.7, 1.5)},
    **{f"blur, radius {radius}": _blur(radius) for radius in (1, 2)},
    "text": _text,
    "border 5 % black": _border(0.05, "black"),
    "border 5 % white": _border(0.05, "white"),
    **{f"crop {percent} %": _crop(percent / 100) for percent in (5, 10, 20)},
    "flip": lambda image, draw: ImageOps.mirror(image),
    "rotate by 90": lambda image, draw: image.transpose(Image.Transpose.ROTATE_90),
}
