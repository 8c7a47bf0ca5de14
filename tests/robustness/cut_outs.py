"""Objects and backgrounds that are made up, with attributions, and what they are composed to."""

import csv
from pathlib import Path

import numpy as np
from PIL import Image

OBJECTS = {"apple/red": (60, 40), "apple/green": (20, 50), "pear/one": (33, 33), "dog/one": (90, 31)}  # sizes
BACKGROUNDS = {"beach": (90, 60), "sky": (48, 80), "wood": (64, 64)}
MARGIN = 7  # fully transparent pixels around each object


def cut_out(size: tuple[int, int], colour: tuple[int, int, int], seed: int = 0) -> Image.Image:
    """An ellipse that touches the sides of `size`, with a soft edge; transparent pixels are black, and MARGIN
    more of them lie around. Its colours vary, unless it is white."""
    width, height = size
    y, x = np.mgrid[:height, :width]
    away = np.hypot((x + 0.5) / width * 2 - 1, (y + 0.5) / height * 2 - 1)
    alpha = np.clip((1.05 - away) * 8, 0, 1)
    noise = np.random.default_rng(seed).integers(-40, 41, (height, width, 3)) * (min(colour) < 255)
    pixels = np.zeros((height, width, 4), np.uint8)
    pixels[..., :3] = np.clip(np.array(colour) + noise, 0, 255) * (alpha > 0)[..., None]
    pixels[..., 3] = np.rint(255 * alpha)
    return Image.fromarray(np.pad(pixels, ((MARGIN, MARGIN), (MARGIN, MARGIN), (0, 0))))


def background(size: tuple[int, int], seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), np.uint8))


def make(folder: Path, backgrounds: dict[str, tuple[int, int]] = BACKGROUNDS) -> tuple[Path, Path]:
    """Write folder/objects and folder/backgrounds, without loss, with attributions."""
    objects, behind = folder / "objects", folder / "backgrounds"
    for number, (name, size) in enumerate(OBJECTS.items()):
        file = objects / f"{name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        cut_out(size, (200 - 40 * number, 60 + 30 * number, 90), number).save(file)
    behind.mkdir()
    for number, (name, size) in enumerate(backgrounds.items()):
        background(size, 100 + number).save(behind / f"{name}.png")
    attribute(objects, [f"{name}.png" for name in OBJECTS], "CC BY 2.0")
    attribute(behind, [f"{name}.png" for name in backgrounds], "CC0, public domain")
    return objects, behind


def attribute(folder: Path, names: list[str], licence: str) -> None:
    with (folder / "attributions.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["licence", "image", "author", "title", "source", "remark"])
        for name in names:
            writer.writerow(
                [licence, name, f"author of {name}", f"title, {name}", f"https://x.org/{name}", "-"]
            )


def content(folder: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name != ".lock"
    }
