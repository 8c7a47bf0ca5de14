"""One shard while ingest fills it: stored pictures in, columns out, as shard.py specifies them."""

import json
import os
import tempfile
from array import array
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpcscale.annotations.sources import Annotations
from hpcscale.data.shard import DTYPES, WIDTHS, annotation, record_digest
from hpcscale.ingest.record import Record, SourceError
from hpcscale.ingest.transcode import Stored


class Columns:
    """One shard while it is filled: JPEG bytes in a nameless file, the rest in memory (175 B a sample, and
    the annotations)."""

    def __init__(self, folder: Path, annotations: Annotations | None = None) -> None:
        self.spool = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        self.jpeg_offsets = array("q", [0])
        self.tag_ids = array("i")
        self.tag_offsets = array("q", [0])
        self.names = bytearray()
        self.name_offsets = array("q", [0])
        self.source_sizes = array("q")
        self.source_digests = bytearray()
        self.digests = bytearray()
        self.quarantine = bytearray()
        self.sizes = array("i")
        self.jpeg_digests = bytearray()
        self.annotations = annotations
        names: Iterable[str] = annotations.columns if annotations else ()
        self.annotated = {name: (array("q", [0]), bytearray()) for name in names}  # offsets, values

    def add(self, number: int, record: Record, stored: Stored, tag_ids: dict[str, int]) -> None:
        if stored.reason:
            line = {"record": number, "name": record.name, "reason": stored.reason}
            if self.annotations and (objects := self.annotations.count(record.name)):
                line |= {"objects": objects}
            self.quarantine += json.dumps(line).encode() + b"\n"
            return
        name = os.fsencode(record.name)
        try:
            ids = array("i", [tag_ids[tag] for tag in record.tags])
        except KeyError as error:
            raise SourceError(f"{record.name}: changed during the ingest: has the new tag {error}") from None
        self.spool.write(stored.jpeg)
        self.jpeg_offsets.append(self.jpeg_offsets[-1] + len(stored.jpeg))
        self.tag_ids += ids
        self.tag_offsets.append(len(self.tag_ids))
        self.names += name
        self.name_offsets.append(len(self.names))
        self.source_sizes.append(stored.source_size)
        self.source_digests += stored.source_digest
        self.sizes.extend(stored.size)
        self.jpeg_digests += stored.jpeg_digest
        numbers = np.frombuffer(ids, np.int32)
        original = stored.source_size, stored.source_digest
        rows = self.annotations.rows(number, record.name, stored.original) if self.annotations else []
        for (offsets, values), row in zip(self.annotated.values(), rows, strict=True):
            offsets.append(offsets[-1] + len(row))
            values += row.tobytes()
        self.digests += record_digest(stored.jpeg_digest, numbers, *original, name, rows)

    def columns(self) -> dict[str, NDArray[Any]]:
        columns: dict[str, NDArray[Any]] = {}
        for name, dtype in DTYPES.items():
            if name != "jpeg":
                columns[name] = np.frombuffer(getattr(self, name), dtype)
        for name, width in WIDTHS.items():
            columns[name] = columns[name].reshape(-1, width)
        for name, dtype in self.annotations.columns.items() if self.annotations else ():
            offsets, values = self.annotated[name]
            columns[annotation(name)] = np.frombuffer(values, dtype)
            columns[f"{annotation(name)}_offsets"] = np.frombuffer(offsets, "<i8")
        return columns
