"""The files that `data ingest --annotations` names, read; and what a shard stores of each picture.

In: files and folders: a COCO .json, a folder of VOC's .xml files, a folder of class maps (.png); one of
objects at most, and one of maps. Out: `Annotations`, for ingest: its columns, its table, and the rows of each
record.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpcscale.annotations import coco, maps, voc
from hpcscale.annotations.checks import Fault, check
from hpcscale.annotations.objects import columns_of, encode, most_points, no_objects
from hpcscale.annotations.stated import NO_PICTURE, AnnotationError, Stated, find, line
from hpcscale.data.manifest import AnnotationTable, Category, Dtype, digest


class Annotations:
    """What some files say of pictures.

    columns: `Plan.annotations`; digest: of all the files' contents.
    """

    def __init__(self, paths: tuple[Path, ...]) -> None:
        """Raises AnnotationError where a path is no annotations, or two are of the same."""
        self.stated: Stated | None = None
        self.maps: maps.Maps | None = None
        for path in map(Path, paths):
            if (kind := _kind(path)) == "maps":
                if self.maps is not None:
                    raise AnnotationError(f"{path}: {self.maps.folder} has class maps too; give one of them")
                self.maps = maps.read(path)
            elif self.stated is not None:
                raise AnnotationError(f"{path}: {self.stated.source} has objects too; give one of them")
            else:
                self.stated = coco.read(path) if kind == "coco" else voc.read(path)
        self.kinds = [self.stated.kind] if self.stated else []
        self.kinds += ["maps"] if self.maps else []
        parts = [self.stated.digest if self.stated else b"", self.maps.digest if self.maps else b""]
        self.digest = digest(*parts).hex()
        self.points = most_points(self.categories)
        self.columns: dict[str, Dtype] = columns_of(self.kinds, self.points)

    @property
    def categories(self) -> list[Category]:
        return self.stated.categories if self.stated else []

    def table(self, met: "Met") -> AnnotationTable:
        """What the plan says of the annotations, once all records of the source were met. Raises
        AnnotationError where no record has any."""
        if not met.objects and not met.maps:
            names = [
                *(self.stated.pictures if self.stated else ()),
                *(self.maps.digests if self.maps else ()),
            ]
            example = f", which begin with {names[0]!r}" if names else ""
            raise AnnotationError(
                f"no picture of the source has one of the {len(names)} annotated names{example}"
            )
        lost = self.lost(met)
        return AnnotationTable.model_validate({
            "sources": self.kinds,
            "categories": self.categories,
            "values": self.maps.values if self.maps else [],
            "lost": lost.count(b"\n"),
            "lost_digest": digest(lost).hex(),
        })  # fmt: skip

    def lost(self, met: "Met") -> bytes:
        """Lines of the quarantine: what is of no record of the source."""
        lines = list(self.stated.lost) if self.stated else []
        if self.stated:
            lines += [
                line(name, self.stated.source, None, NO_PICTURE, objects=len(picture.objects))
                for name, picture in self.stated.pictures.items()
                if name not in met.objects
            ]
        if self.maps:
            lines += [
                line(name, self.maps.folder.name, None, NO_PICTURE)
                for name in self.maps.digests
                if name not in met.maps
            ]
        return b"".join(json.dumps(each).encode() + b"\n" for each in lines)

    def find(self, record: str) -> tuple[str | None, str | None]:
        """What the objects and the maps call a record; None where they do not know it."""
        objects = self.stated and find(record, self.stated.pictures, self.stated.kind == "voc")
        return objects, self.maps and find(record, self.maps.digests, True)

    def count(self, record: str) -> int:
        """How many objects are stated of a record."""
        name, _ = self.find(record)
        return len(self.stated.pictures[name].objects) if self.stated and name is not None else 0

    def rows(self, number: int, record: str, size: tuple[int, int]) -> list[NDArray[Any]]:
        """What a record has of each column. number: its number in the source; size: height and width of its
        picture, upright. Raises AnnotationError."""
        name, of_map = self.find(record)
        objects = no_objects(size, self.points, listed=False)
        faults: list[dict[str, Any]] = []
        if self.stated and name is not None:
            objects, faults = check(self.stated, name, size, self.points)
        columns = encode(objects)
        png = b""
        if self.maps and of_map is not None:
            try:
                png = maps.check_map(self.maps, of_map, size)
            except Fault as fault:
                found = str(fault.found)
                faults.append(line(of_map, self.maps.folder.name, None, fault.reason, found=found))
        text = b"".join(
            json.dumps({"record": number} | each | {"name": record}).encode() + b"\n" for each in faults
        )
        columns |= {"class_map": np.frombuffer(png, np.uint8), "faults": np.frombuffer(text, np.uint8)}
        return [columns[column] for column in self.columns]


class Met:
    """Which annotated names the records of a source have, as these pass."""

    def __init__(self, annotations: Annotations) -> None:
        self.annotations = annotations
        self.objects: dict[str, str] = {}  # name -> the record that has it
        self.maps: dict[str, str] = {}

    def add(self, record: str) -> None:
        """Raises AnnotationError where another record has the same annotations."""
        for met, name in zip((self.objects, self.maps), self.annotations.find(record), strict=True):
            if name is not None and met.setdefault(name, record) != record:
                raise AnnotationError(
                    f"the annotations of {name!r} fit two pictures: {met[name]} and {record}; give SOURCE a "
                    "folder in which each name is there once"
                )


def _kind(path: Path) -> str:
    """coco, voc or maps. Raises AnnotationError."""
    if not path.is_dir():
        if path.suffix != ".json":
            raise AnnotationError(f"{path}: unknown kind of annotations; known are COCO's .json and folders")
        return "coco"
    found = [kind for kind, ending in (("voc", "xml"), ("maps", "png")) if any(path.glob(f"[!.]*.{ending}"))]
    if len(found) != 1:
        what = "both .xml and .png files" if found else "neither .xml nor .png files"
        raise AnnotationError(f"{path}: holds {what}; expected VOC's Annotations, or class maps")
    return found[0]
