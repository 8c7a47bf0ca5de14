"""Sources of annotated pictures: small JPEGs, a COCO file, VOC's XML and class maps that fit them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 30, 40  # pixels
CATEGORIES = [
    {"id": 7, "name": "dog"},
    {"id": 3, "name": "person", "keypoints": ["head", "hand", "foot"], "skeleton": [[1, 2], [1, 3]]},
]
SQUARE = [2.0, 2.0, 12.0, 2.0, 12.0, 8.0, 2.0, 8.0]  # 10 x 6 pixels
RLE = {"size": [HEIGHT, WIDTH], "counts": [600, 30, 570]}  # the column 20


def make_pictures(folder: Path, count: int = 6) -> Path:
    """0.jpg, 1.jpg, ..., no two alike."""
    folder.mkdir()
    for number in range(count):
        pixels = np.random.default_rng(number).integers(0, 255, (6, 8, 3), np.uint8)
        Image.fromarray(pixels).resize((WIDTH, HEIGHT)).save(folder / f"{number}.jpg")
    return folder


def instance(number: Any, image: Any, **change: Any) -> dict[str, Any]:
    """An annotation of a dog, as COCO has it."""
    return {"id": number, "image_id": image, "category_id": 7, "bbox": [2, 2, 10, 6], "area": 60.5,
            "iscrowd": 0, "segmentation": [SQUARE]} | change  # fmt: skip


def write_coco(file: Path, annotations: list[Any], count: int = 6, **change: Any) -> Path:
    images = [
        {"id": 100 + n, "file_name": f"{n}.jpg", "height": HEIGHT, "width": WIDTH} for n in range(count)
    ]
    file.write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": CATEGORIES} | change)
    )
    return file


def voc_object(name: str, box: tuple[Any, ...], difficult: int = 0, truncated: int = 0) -> str:
    corners = "".join(
        f"<{key}>{value}</{key}>" for key, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    )
    return (
        f"<object><name>{name}</name><truncated>{truncated}</truncated><difficult>{difficult}</difficult>"
        f"<bndbox>{corners}</bndbox></object>"
    )


def write_voc(folder: Path, pictures: dict[str, list[str]], size: tuple[int, int] = (HEIGHT, WIDTH)) -> Path:
    folder.mkdir(exist_ok=True)
    for stem, objects in pictures.items():
        height, width = size
        text = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
        (folder / f"{stem}.xml").write_text(f"<annotation>{text}{''.join(objects)}</annotation>")
    return folder


def write_map(folder: Path, stem: str, values: np.ndarray) -> np.ndarray:
    """Values (h, w) as a PNG with a palette."""
    folder.mkdir(exist_ok=True)
    image = Image.fromarray(values.astype(np.uint8))
    image.putpalette([channel for value in range(256) for channel in (value, 255 - value, 7)])
    image.save(folder / f"{stem}.png")
    return values


def some_coco(file: Path) -> Path:
    """Of pictures 0 to 5: polygons, a crowd, key points; 4 has none, and 5 is not listed."""
    annotations = [
        instance(11, 100),
        instance(12, 100, category_id=3, bbox=[30.5, 20.25, 8, 9], num_keypoints=2,
                 segmentation=[SQUARE, [20, 20, 30, 20, 30, 29.5]],
                 keypoints=[5, 6, 2, 7, 8, 1, 0, 0, 0]),
        instance(13, 101, iscrowd=1, segmentation=RLE),
        instance(14, 102, segmentation=[], ignore=1),
        instance(15, 103, bbox=[-3, 25, 10, 10], area=None),
    ]  # fmt: skip
    return write_coco(file, annotations, 5)
