"""How many annotations a data set has, and what became of those that it has not.

In: a DataSet, also of an unfinished ingest. Out: counts, for `data info`. Of the shards, small columns are
read, and no picture.
"""

import json
from collections import Counter
from typing import Any

import numpy as np

from hpcscale.annotations.reader import table_of
from hpcscale.annotations.stated import FLAGS
from hpcscale.data.manifest import FAULTS
from hpcscale.data.shard import Shard
from hpcscale.data.store import DataSet
from hpcscale.files import open_regular


def count(data: DataSet) -> dict[str, Any]:
    """pictures_with: that have objects; pictures_without: that the source lists, but without objects;
    pictures_unlisted: of which it says nothing usable; maps: class maps; objects; each flag; polygons and
    rles: objects with such masks; classes: objects of each; lost_with_pictures: objects of pictures that are
    in the quarantine; quarantined: lines of the annotations' quarantine, of each reason. Raises DataError and
    OSError.
    """
    table = table_of(data)
    found: Counter[str] = Counter()
    classes = np.zeros(len(table.categories), np.int64)
    reasons: Counter[str] = Counter()
    for index in range(len(data.entries)):
        shard = data.shard(index)
        found.update(_pictures(shard))
        if "objects" in shard.annotations:
            rows = shard.annotations["objects"][1].reshape(-1, 3)
            classes += np.bincount(rows[:, 0], minlength=len(classes))
            found.update({name: int((rows[:, 1] & bit > 0).sum()) for name, bit in FLAGS.items()})
        if "mask_parts" in shard.annotations:
            found.update(_masks(shard))
        lines = shard.quarantine.tobytes().splitlines()
        found["lost_with_pictures"] += sum(json.loads(line).get("objects", 0) for line in lines)
        faults = shard.annotations["faults"][1].tobytes().splitlines()
        reasons.update(json.loads(line)["reason"] for line in faults)
    reasons.update(_lost(data, reasons.total()))
    return {
        **dict(found),
        "objects": int(classes.sum()),
        "classes": {
            category.name: int(n) for category, n in zip(table.categories, classes.tolist(), strict=True)
        },
        "quarantined": dict(reasons.most_common()),
    }


def _pictures(shard: Shard) -> dict[str, int]:
    count = len(shard.source_sizes)
    listed = shard.annotations["original"][1].reshape(count, 3)[:, 2] == 1
    found = {}
    if "objects" in shard.annotations:
        some = np.diff(shard.annotations["objects"][0]) > 0
        found = {"pictures_with": int(some.sum()), "pictures_without": int((listed & ~some).sum()),
                 "pictures_unlisted": int((~listed).sum())}  # fmt: skip
    if "class_map" in shard.annotations:
        found["maps"] = int((np.diff(shard.annotations["class_map"][0]) > 0).sum())
    return found


def _masks(shard: Shard) -> dict[str, int]:
    """Objects with polygons, and with an RLE."""
    offsets, values = shard.annotations["mask_parts"]
    parts = values.reshape(-1, 2).astype(np.int64)
    sample = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets) // 2)
    of_polygons = np.unique(np.stack([sample, parts[:, 0]])[:, parts[:, 1] > 0], axis=1)
    return {"polygons": of_polygons.shape[1], "rles": int((parts[:, 1] < 0).sum())}


def _lost(data: DataSet, before: int) -> Counter[str]:
    """Reasons of the lines that are of no record: those behind the samples' `before` lines."""
    file = data.folder / FAULTS
    if not file.exists():  # the ingest has not ended
        return Counter()
    with open_regular(file) as stream:
        lines = enumerate(stream)
        return Counter(json.loads(line)["reason"] for number, line in lines if number >= before)
