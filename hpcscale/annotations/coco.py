"""COCO's JSON: boxes, polygons, RLE masks, key points, crowds.

In: a file with `images`, `annotations` and `categories`. Out: `Stated`, whose values nobody has checked yet.
The file is held in memory as Python objects: some 3 GB for the instances of COCO 2017.
"""

import json
from pathlib import Path
from typing import Any

from hpcscale.annotations.stated import (
    CROWD,
    IGNORE,
    MOST,
    AnnotationError,
    Stated,
    StatedObject,
    StatedPicture,
    line,
    shown,
)
from hpcscale.data.manifest import Category, digest
from hpcscale.files import FileError, read_bytes

NO_IMAGE = "no image has this image_id"


def read(file: Path) -> Stated:
    """Raises AnnotationError where the file cannot be read; where two annotations, two images or two
    categories have one id, and where two images have one file name or two categories one name: nobody could
    say which is right."""
    try:
        content = read_bytes(file, MOST)
        found = json.loads(content)  # NaN is let through, and goes to the quarantine
    except (OSError, FileError) as error:
        raise AnnotationError(f"{file}: cannot be read: {error}") from None
    except (ValueError, RecursionError) as error:
        raise AnnotationError(f"{file}: not JSON: {error}") from None
    images, annotations, kinds = (
        _entries(file, found, key) for key in ("images", "annotations", "categories")
    )
    categories, numbers = _categories(file, kinds)
    names = _images(file, images)
    pictures = {
        image["file_name"]: StatedPicture(
            (image["height"], image["width"]) if {"height", "width"} <= image.keys() else None, []
        )
        for image in images
    }
    lost, met = [], set[Any]()
    for one in annotations:
        number = one.get("id")
        if type(number) in (int, str) and number in met:
            raise AnnotationError(f"{file}: two annotations have the id {shown(number)}; each needs its own")
        met.add(number if type(number) in (int, str) else None)
        name = names.get(one.get("image_id")) if type(one.get("image_id")) in (int, str) else None
        if name is None:
            lost.append(line("", file.name, number, NO_IMAGE, found=shown(one.get("image_id"))))
            continue
        flags = CROWD * bool(one.get("iscrowd")) | IGNORE * bool(one.get("ignore"))
        pictures[name].objects.append(
            StatedObject(
                number,
                one.get("category_id"),
                one.get("bbox"),
                flags,
                one.get("area"),
                one.get("segmentation"),
                one.get("keypoints"),
            )
        )
    return Stated("coco", file.name, categories, numbers, pictures, lost, digest(content))


def _entries(file: Path, found: Any, key: str) -> list[dict[str, Any]]:
    entries = found.get(key) if isinstance(found, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise AnnotationError(f"{file}: not COCO: it needs a list of objects called {key!r}")
    return entries


def _images(file: Path, images: list[dict[str, Any]]) -> dict[Any, str]:
    """The file name of each image, by its id."""
    names: dict[Any, str] = {}
    for place, image in enumerate(images):
        number, name = image.get("id"), image.get("file_name")
        if type(number) not in (int, str) or not isinstance(name, str) or not name:
            raise AnnotationError(
                f"{file}: images[{place}] needs an id and a file_name, "
                f"found {shown(number)} and {shown(name)}"
            )
        if number in names:
            raise AnnotationError(f"{file}: two images have the id {shown(number)}; each needs its own")
        names[number] = name
    if len(set(names.values())) < len(names):
        twice = next(name for name in names.values() if list(names.values()).count(name) > 1)
        raise AnnotationError(f"{file}: two images have the file_name {twice!r}; each needs its own")
    return names


def _is_text(value: Any) -> bool:
    """Whether it is a string that UTF-8 can say: JSON can have half of a surrogate pair."""
    return isinstance(value, str) and value.encode(errors="replace").decode() == value


def _categories(file: Path, kinds: list[dict[str, Any]]) -> tuple[list[Category], dict[Any, int]]:
    """The table, in the order of the ids, and the index of each id."""
    for place, one in enumerate(kinds):
        if type(one.get("id")) is not int or not _is_text(one.get("name")):
            raise AnnotationError(
                f"{file}: categories[{place}] needs a whole number as id and a name, "
                f"found {shown(one.get('id'))} and {shown(one.get('name'))}"
            )
    ordered = sorted(kinds, key=lambda one: int(one["id"]))
    for key in ("id", "name"):
        values = [one[key] for one in ordered]
        if twice := [value for value in values if values.count(value) > 1]:
            raise AnnotationError(
                f"{file}: two categories have the {key} {shown(twice[0])}; each needs its own"
            )
    table = []
    for one in ordered:
        points, lines = one.get("keypoints") or [], one.get("skeleton") or []
        allowed = range(1, len(points) + 1)
        if not all(map(_is_text, points)) or not all(
            isinstance(pair, list)
            and len(pair) == 2
            and all(type(end) is int and end in allowed for end in pair)
            for pair in lines
        ):
            raise AnnotationError(
                f"{file}: category {one['id']}: keypoints must be names, and skeleton pairs of their "
                "numbers, from 1"
            )
        table.append(Category(name=one["name"], id=one["id"], keypoints=points, skeleton=lines))
    return table, {one["id"]: index for index, one in enumerate(ordered)}
