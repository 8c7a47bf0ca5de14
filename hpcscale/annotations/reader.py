"""What a data set has of the objects and class maps of its pictures, for training and for looking at it.

In: a DataSet that was packed with annotations, and sample ids. Out: `Objects` and arrays, in pixels of the
stored pictures or of the original ones.
"""

import numpy as np
from numpy.typing import NDArray

from hpcscale.annotations.maps import read_map
from hpcscale.annotations.masks import resize_nearest
from hpcscale.annotations.objects import Objects, decode, most_points, scale
from hpcscale.data.manifest import AnnotationTable
from hpcscale.data.store import DataError, DataSet


def table_of(data: DataSet) -> AnnotationTable:
    """Categories, key points and skeletons. Raises DataError where the data set has no annotations."""
    if data.plan.annotation_table is None:
        raise DataError(f"{data.folder}: has no annotations; `hpcscale data ingest --annotations` packs some")
    return data.plan.annotation_table


def objects(data: DataSet, samples: NDArray[np.int64], *, original: bool = False) -> list[Objects]:
    """The objects of each sample, in pixels of the stored picture, or of the `original` one. Raises
    DataError."""
    table = table_of(data)
    if not {"coco", "voc"} & set(table.sources):
        raise DataError(f"{data.folder}: has class maps, but no objects")
    points = most_points(table.categories)
    names = [name for name in data.plan.annotations if name not in ("class_map", "faults")]
    columns = {name: data.annotations(name, samples) for name in names}
    found = []
    for row, size in enumerate(data.sizes(samples).tolist()):
        mine = {name: values[offsets[row] : offsets[row + 1]] for name, (offsets, values) in columns.items()}
        one = decode(mine, points)
        found.append(one if original else scale(one, (size[0], size[1])))
    return found


def class_maps(
    data: DataSet, samples: NDArray[np.int64], *, original: bool = False
) -> list[NDArray[np.uint8] | None]:
    """The class map of each sample  # (height, width) of the stored picture, by the nearest value, or of the
    `original` one; None where it has none. 255: not said. Raises DataError."""
    if "maps" not in table_of(data).sources:
        raise DataError(f"{data.folder}: has objects, but no class maps")
    offsets, values = data.annotations("class_map", samples)
    found: list[NDArray[np.uint8] | None] = []
    for row, size in enumerate(data.sizes(samples).tolist()):
        png = values[offsets[row] : offsets[row + 1]].tobytes()
        pixels = read_map(png) if png else None
        found.append(pixels if pixels is None or original else resize_nearest(pixels, (size[0], size[1])))
    return found
