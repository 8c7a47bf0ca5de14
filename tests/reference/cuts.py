"""The slow way to a picture as a model sees it: Pillow's crop, resize and mirror, and torchvision's boxes."""

import math
from collections.abc import Iterator

import numpy as np
from PIL import Image


def seen(image: Image.Image, window, size, start, mirror: int, crop: int) -> np.ndarray:
    """The crop of an RGB picture  # (crop, crop, 3) uint8"""
    top, left, height, width = (int(each) for each in window)
    part = image.crop((left, top, left + width, top + height))
    part = part.resize((int(size[1]), int(size[0])), Image.Resampling.BILINEAR)
    top, left = (int(each) for each in start)
    part = part.crop((left, top, left + crop, top + crop))
    return np.asarray(part.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirror else part)


def box(height: int, width: int, numbers: Iterator[float], area, ratio) -> tuple[int, int, int, int] | None:
    """Height and width of a box, and the room for it, by ten attempts; None: none fits.

    numbers: uniform in [0, 1), an area and an aspect for each attempt.
    """
    for _ in range(10):
        target = height * width * (area[0] + (area[1] - area[0]) * next(numbers))
        low, high = math.log(ratio[0]), math.log(ratio[1])
        aspect = math.exp(low + (high - low) * next(numbers))
        w, h = round(math.sqrt(target * aspect)), round(math.sqrt(target / aspect))
        if 0 < w <= width and 0 < h <= height:
            return h, w, height - h + 1, width - w + 1
    return None


def middle(height: int, width: int, ratio) -> tuple[int, int, int, int]:
    """Top, left, height and width of the box where no attempt fits."""
    h, w = height, width
    if width / height < min(ratio):
        h = round(width / min(ratio))
    elif width / height > max(ratio):
        w = round(height * max(ratio))
    return (height - h) // 2, (width - w) // 2, h, w
