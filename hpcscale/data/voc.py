"""Annotations of PASCAL VOC: a folder of XML files to rows.

In: FOLDER/Annotations/*.xml, or FOLDER/*.xml. Out: one `Picture` a file, by name, with its objects.
"""

import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from hpcscale.files import FileError, read_bytes
from hpcscale.text import shown

CLASSES = ("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
           "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train",
           "tvmonitor")  # fmt: skip
CORNERS = ("xmin", "ymin", "xmax", "ymax")
MOST = 16 << 20  # bytes of a file


class VocError(FileError):
    """A file that is no annotation of PASCAL VOC; the message names file and key."""


class Object(NamedTuple):
    name: str  # of its class
    box: tuple[float, float, float, float]  # xmin, ymin, xmax, ymax; pixels from 1, the last is inside
    difficult: bool
    truncated: bool


class Picture(NamedTuple):
    name: str  # of the XML file, without .xml: VOC's id of the picture
    file: str  # of the picture, as the XML says; empty where it does not
    width: int
    height: int
    objects: tuple[Object, ...]


def find(folder: Path) -> list[Path]:
    """The XML files of a folder, by name. Raises VocError where there are none."""
    place = folder / "Annotations"
    found = sorted((place if place.is_dir() else folder).glob("*.xml"))
    if not found:
        raise VocError(f"{folder}: found no .xml file there or in Annotations; allowed: a folder of VOC")
    return found


def read_folder(folder: Path) -> Iterator[Picture]:
    """All pictures, by name. Raises VocError and OSError."""
    return map(read, find(folder))


def read(file: Path) -> Picture:
    """One picture. Missing `difficult` and `truncated` are 0. Boxes are given as they stand, also where they
    are empty (xmax < xmin), as in some published sets. Raises VocError and OSError."""
    try:
        root = parse(read_bytes(file, MOST))
    except ValueError as error:
        raise VocError(f"{file}: {error}") from None
    width, height = (int(_number(root, f"size/{side}", f"{file}")) for side in ("width", "height"))
    objects = tuple(_object(each, f"{file}, object {n}") for n, each in enumerate(root.iter("object")))
    return Picture(file.stem, (root.findtext("filename") or "").strip(), width, height, objects)


def parse(content: bytes) -> ElementTree.Element:
    """The root of an annotation. Raises ValueError where it is none."""
    if b"<!ENTITY" in content:  # a few bytes could become gigabytes
        raise ValueError("declares an entity, which no annotation of VOC does")
    try:
        root = ElementTree.fromstring(content)
    except (ElementTree.ParseError, LookupError) as error:
        raise ValueError(f"not XML: {error}") from None
    if root.tag != "annotation":
        raise ValueError(f"found <{shown(root.tag):.40}>; allowed: <annotation>")
    return root


def _object(element: ElementTree.Element, where: str) -> Object:
    name = (element.findtext("name") or "").strip()
    if not name:
        raise VocError(f"{where}: 'name' is missing or empty")
    xmin, ymin, xmax, ymax = (_number(element, f"bndbox/{key}", where) for key in CORNERS)
    difficult, truncated = (_flag(element, key, where) for key in ("difficult", "truncated"))
    return Object(name, (xmin, ymin, xmax, ymax), difficult, truncated)


def _number(element: ElementTree.Element, key: str, where: str) -> float:
    found = element.findtext(key)
    try:
        value = float(found or "")
    except ValueError:
        value = math.nan
    if not abs(value) < 1 << 31:
        raise VocError(f"{where}: '{key}': found {shown(found)!r:.60}; allowed: a number of pixels")
    return value


def _flag(element: ElementTree.Element, key: str, where: str) -> bool:
    found = (element.findtext(key) or "0").strip()
    if found not in ("0", "1"):
        raise VocError(f"{where}: '{key}': found {shown(found)!r:.60}; allowed: 0 or 1")
    return found == "1"
