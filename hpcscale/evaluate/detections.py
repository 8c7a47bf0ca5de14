"""Results in the format of COCO's server, or for VOC, read and checked before an evaluator sees them.

In: a JSON file, or its list of records with the keys of `KEYS`. Out: columns. What can be checked of a whole
column at once is; records are looked at one by one only to name the first bad one, because a loop over them
would take longer than the evaluation.
"""

import gc
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic_core import from_json  # half the time of the standard library's, which counts here

from hpcscale.annotations import rle
from hpcscale.evaluate.measured import ResultsError
from hpcscale.files import read_bytes
from hpcscale.text import shown

POINTS = 17  # of a person in COCO
MOST = 4 << 30  # bytes of a file
CHUNK = 1000  # records whose columns are made together, so that they stay in the caches
NUMBER = frozenset((int, float))
Size = tuple[int, int]  # height, width


class Key(NamedTuple):
    types: frozenset[type]  # of its value, or of each number of its list; numbers must be finite
    length: int  # of its list of numbers; 0: it is none
    allowed: str  # as messages say it


SCORE = Key(NUMBER, 0, "a finite number")
COCO = {
    "image_id": Key(frozenset({int}), 0, "the id of an image of the annotations"),
    "category_id": Key(frozenset({int}), 0, "the id of a category of the annotations"),
    "score": SCORE,
}
MASK = "a run-length code {size, counts} of the picture, or polygons of 3 points"
# Keys of a record by kind; others are not looked at.
KEYS: dict[str, dict[str, Key]] = {
    "boxes": COCO | {"bbox": Key(NUMBER, 4, "[x, y, width, height], finite, no size below 0")},
    "masks": COCO | {"segmentation": Key(frozenset((dict, list)), 0, MASK)},
    "keypoints": COCO | {"keypoints": Key(NUMBER, 3 * POINTS, "17 times x, y, visibility, finite")},
    "voc": {
        "image": Key(frozenset({str}), 0, "the name of an XML file of the annotations"),
        "class": Key(frozenset({str}), 0, "a class of the annotations, or of VOC"),
        "bbox": Key(NUMBER, 4, "[xmin, ymin, xmax, ymax], finite, no maximum below its minimum"),
        "score": SCORE,
    },
}


class Records(NamedTuple):
    """Records by column: (n,) or (n, length) float64 of numbers, else lists of n."""

    columns: Mapping[str, Any]
    where: str  # they are from, for messages
    kind: str  # of KEYS
    first: int = 0  # number of the first one

    def error(self, number: int, key: str, found: object) -> ResultsError:
        """What a message says of a record, counted from 0."""
        record = f"{self.where}, record {self.first + number}"
        return ResultsError(f"{record}: '{key}': found {found}; allowed: {KEYS[self.kind][key].allowed}")


def read(results: Path | list[dict[str, Any]], kind: str) -> Records:
    """Records of a kind. Raises ResultsError, which names the first bad record, and OSError."""
    where = str(results) if isinstance(results, Path) else "results"
    with uncollected():
        rows = _parse(results) if isinstance(results, Path) else results
        if type(rows) is not list:
            raise ResultsError(f"{where}: found {kind_of(rows)}; allowed: a list of records")
        parts = [rows[begin : begin + CHUNK] for begin in range(0, len(rows) or 1, CHUNK)]
        columns: dict[str, list[Any]] = {key: [] for key in KEYS[kind]}
        for part in parts:
            for key, of in KEYS[kind].items():
                columns[key].append(_column(part, key, of))
        if any(each is None for column in columns.values() for each in column):
            raise _first_error(rows, Records({}, where, kind))
    joined = {
        key: np.concatenate(column) if KEYS[kind][key].types == NUMBER else list(chain.from_iterable(column))
        for key, column in columns.items()
    }
    return Records(joined, where, kind)


def _parse(file: Path) -> Any:
    content = read_bytes(file, MOST)
    try:
        return from_json(content)
    except ValueError as error:
        raise ResultsError(f"{file}: not JSON: {error}") from None


def _column(rows: list[Any], key: str, of: Key) -> Any:
    """A key of some records, or None where a value is not what it must be."""
    try:
        column = list(map(itemgetter(key), rows))
        if of.length:
            if set(map(type, column)) - {list} or set(map(len, column)) - {of.length}:
                return None
            column = list(chain.from_iterable(column))
        if set(map(type, column)) - of.types:
            return None
        if of.types != NUMBER:
            return column
        values = np.array(column, np.float64)
    except (KeyError, IndexError, TypeError, OverflowError):  # a whole number beyond float64 among them
        return None
    if not np.isfinite(values).all():
        return None
    return values.reshape(-1, of.length) if of.length else values


def _first_error(rows: list[Any], records: Records) -> ResultsError:
    for number, row in enumerate(rows):
        if type(row) is not dict:
            return ResultsError(f"{records.where}, record {number}: found {kind_of(row)}; allowed: an object")
        for key, of in KEYS[records.kind].items():
            if key not in row:
                return records.error(number, key, "nothing")
            values = row[key] if of.length else [row[key]]
            if type(values) is not list or (of.length and len(values) != of.length):
                return records.error(number, key, kind_of(row[key]))
            for value in values:
                if type(value) not in of.types or (type(value) is float and not math.isfinite(value)):
                    return records.error(number, key, kind_of(value))
                if of.types == NUMBER and abs(value) > sys.float_info.max:
                    return records.error(number, key, kind_of(value))
    raise AssertionError(records.where)  # a column was refused, and so is one of its records


def kind_of(value: object) -> str:
    """A value as a message shows it."""
    return f"{type(value).__name__} {shown(value):.60}"


@contextmanager
def uncollected() -> Iterator[None]:
    """Without garbage collection, which would look through a growing heap of records again and again."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def known(records: Records, key: str, ids: Mapping[int, Any]) -> NDArray[np.int64]:
    """(n,) ids, each of which is in `ids`."""
    found = records.columns[key]
    if others := set(found) - ids.keys():
        number = next(number for number, id in enumerate(found) if id in others)
        raise records.error(number, key, found[number])
    return np.array(found, np.int64)


def boxes(records: Records) -> NDArray[np.float64]:
    """(n, 4) x, y, width, height."""
    found: NDArray[np.float64] = records.columns["bbox"]
    for number in np.flatnonzero((found[:, 2:] < 0).any(axis=1))[:1]:
        raise records.error(number, "bbox", found[number].tolist())
    return found


def masks(records: Records, sizes: Sequence[Size]) -> list[Any]:
    """(n) masks of pictures of these sizes: polygons, or codes {"size", "counts": str, bytes or list}."""
    found: list[Any] = records.columns["segmentation"]
    texts, places = [], []
    for number, (mask, size) in enumerate(zip(found, sizes, strict=True)):
        wrong = _polygons(mask) if isinstance(mask, list) else _code(mask, size)
        if wrong:
            raise records.error(number, "segmentation", wrong)
        if isinstance(mask, dict) and not isinstance(mask["counts"], list):
            text = mask["counts"]
            texts.append(text.encode(errors="surrogatepass") if isinstance(text, str) else text)
            places.append(number)
    pixels = np.array([math.prod(sizes[place]) for place in places], np.int64)
    for index in np.flatnonzero(rle.totals(texts) != pixels)[:1]:
        wrong = f"a code that does not add up to the {pixels[index]} pixels of its picture"
        raise records.error(places[index], "segmentation", wrong)
    return found


def _code(mask: Any, size: Size) -> str:
    """What is wrong with a run-length code, but for the sum of its text."""
    if not isinstance(mask, dict):
        return kind_of(mask)
    if mask.get("size") not in (list(size), size):
        return f"size {shown(mask.get('size')):.60}, of a picture of {list(size)}"
    counts = mask.get("counts")
    if isinstance(counts, list):
        right = all(type(run) is int and run >= 0 for run in counts) and sum(counts) == math.prod(size)
        return "" if right else f"runs that do not add up to the {math.prod(size)} pixels of the picture"
    return "" if isinstance(counts, str | bytes) else f"counts {kind_of(counts)}"


def _polygons(polygons: list[Any]) -> str:
    """What is wrong with a mask of polygons."""
    for polygon in polygons:
        if not isinstance(polygon, list):
            return f"{kind_of(polygon)} in place of a polygon [x, y, x, y, ...]"
        if len(polygon) < 6 or len(polygon) % 2:
            return f"a polygon of {len(polygon)} numbers"
        if not all(type(value) in (int, float) and math.isfinite(value) for value in polygon):
            return "a polygon with a value that is no finite number"
    return "" if polygons else "no polygon"
