"""PASCAL VOC's XML: boxes, with `difficult` and `truncated`.

In: a folder with an .xml file for each picture. Out: `Stated`, whose values nobody has checked yet.
"""

from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

from hpcscale.annotations.stated import (
    DIFFICULT,
    TRUNCATED,
    AnnotationError,
    Stated,
    StatedObject,
    StatedPicture,
    line,
    shown,
)
from hpcscale.data.manifest import Category, digest
from hpcscale.data.voc import MOST, parse
from hpcscale.files import FileError, read_bytes

NOT_XML = "not VOC's XML"


def read(folder: Path) -> Stated:
    """Pictures are named by the stem of the file. The classes are those that occur, in the order of the
    alphabet; the id of an object is its number in its file, from 0. A file that is no XML goes to the
    quarantine. Raises AnnotationError where a file cannot be opened."""
    pictures: dict[str, StatedPicture] = {}
    lost, content = [], []
    for file in sorted(folder.glob("[!.]*.xml")):
        try:
            text = read_bytes(file, MOST)
        except (OSError, FileError) as error:
            raise AnnotationError(f"{file}: cannot be read: {error}") from None
        content.append(f"{file.name!r} {digest(text).hex()}\n".encode())
        try:
            root = parse(text)
        except ValueError as error:
            lost.append(line(file.stem, folder.name, None, NOT_XML, found=shown(str(error))))
            continue
        pictures[file.stem] = StatedPicture(
            _size(root), [_object(number, one) for number, one in enumerate(root.findall("object"))]
        )
    names = sorted({one.category for picture in pictures.values() for one in picture.objects if one.category})
    numbers: dict[Any, int] = {name: index for index, name in enumerate(names)}
    table = [Category(name=name, id=None) for name in names]
    return Stated("voc", folder.name, table, numbers, pictures, lost, digest(*content))


def _size(root: Element) -> tuple[Any, Any] | None:
    """Height and width; some tools write 0 for what they do not know."""
    height, width = (_number(root.findtext(f"size/{key}")) for key in ("height", "width"))
    return (height, width) if height and width else None


def _object(number: int, element: Element) -> StatedObject:
    box = [_number(element.findtext(f"bndbox/{key}")) for key in ("xmin", "ymin", "xmax", "ymax")]
    flags = DIFFICULT * _is(element, "difficult") | TRUNCATED * _is(element, "truncated")
    return StatedObject(number, (element.findtext("name") or "").strip(), box, flags)


def _is(element: Element, key: str) -> bool:
    return (element.findtext(key) or "").strip() == "1"


def _number(text: str | None) -> Any:
    """A number, or the text that is none."""
    try:
        return float(text or "")
    except ValueError:
        return text
