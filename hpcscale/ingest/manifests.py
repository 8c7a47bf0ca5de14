"""Manifests -> records: JSONL, CSV and TSV files that list pictures and tags, as sources.py specifies them.

In: the folder of pictures and the file. Out: `Record`s in the order of the lines; from any line on.
"""

import ast
import codecs
import csv
import io
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hpcscale.ingest.record import BEGIN, Record, SourceError, Start, opened

MANIFESTS = {".jsonl": None, ".csv": ",", ".tsv": "\t"}
LINE_BYTES = 16 << 20  # most bytes of a manifest's line
BOM = codecs.BOM_UTF8


def manifest_records(source: Path, manifest: Path, start: Start = BEGIN) -> Iterator[tuple[Start, Record]]:
    """Each record with the byte at which its line begins, and how many lines come before; from `start` on."""
    delimiter = MANIFESTS[manifest.suffix]
    rows = _json_lines(manifest, start) if delimiter is None else _table_rows(manifest, delimiter, start)
    folder = os.path.join(source, "")
    for place, number, values in rows:
        try:
            image = _relative(values.get("image"))
            tags = _manifest_tags(values)
        except ValueError as error:
            raise SourceError(f"{manifest}:{number}: {error}") from None
        yield place, Record(image, tags, folder + image)


def _json_lines(manifest: Path, start: Start) -> Iterator[tuple[Start, int, dict[str, Any]]]:
    with opened(manifest) as stream:
        at, before = start
        stream.seek(at)
        for number, line in enumerate(iter(lambda: stream.readline(LINE_BYTES + 1), b""), before + 1):
            if len(line) > LINE_BYTES:
                raise SourceError(f"{manifest}:{number}: more than the {LINE_BYTES:,} bytes of a line")
            place, at = (at, number - 1), at + len(line)
            if not line.strip():
                continue
            try:
                values = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
            except (ValueError, RecursionError) as error:
                raise SourceError(f"{manifest}:{number}: not JSON: {error}") from None
            if not isinstance(values, dict):
                raise SourceError(f"{manifest}:{number}: expected an object, found {type(values).__name__}")
            yield place, number, values


def _table_rows(manifest: Path, delimiter: str, start: Start) -> Iterator[tuple[Start, int, dict[str, Any]]]:
    columns: list[str] = []
    for place, number, row in _csv_rows(manifest, delimiter, start):
        if not columns:
            columns = [column.strip() for column in row]
            if not {"image", "tags"} <= set(columns):
                raise SourceError(
                    f"{manifest}:{number}: the header must name image and tags, not {', '.join(columns)}"
                )
            twice = [column for column in columns if columns.count(column) > 1]
            if twice:
                raise SourceError(f"{manifest}:{number}: the header names {twice[0]!r} more than once")
            continue
        if len(row) != len(columns):
            raise SourceError(f"{manifest}:{number}: {len(row)} cells, the header has {len(columns)}")
        values: dict[str, Any] = dict(zip(columns, row, strict=True))
        try:
            tags = _cell_tags(values["tags"])
        except ValueError as error:
            raise SourceError(f"{manifest}:{number}: {error}") from None
        yield place, number, values | {"tags": tags, "wnid": values.get("wnid") or None}


def _csv_rows(manifest: Path, delimiter: str, start: Start) -> Iterator[tuple[Start, int, list[str]]]:
    """The first row, which is the header, and the rows from `start` on: place, line, cells."""
    with opened(manifest) as raw, io.TextIOWrapper(raw, encoding="utf-8-sig", newline="") as stream:
        at, before = len(BOM) if raw.peek(len(BOM)).startswith(BOM) else 0, 0

        def line() -> str:
            nonlocal at
            text = stream.readline(LINE_BYTES + 1)
            at += len(text) if text.isascii() else len(text.encode())
            return text

        rows, header = csv.reader(iter(line, ""), delimiter=delimiter, strict=True), True
        # It refuses cells of more than 131,072 letters.
        while True:
            place = at, before + rows.line_num
            number = place[1] + 1  # where the row begins; a quoted cell may go over several lines
            try:
                row = next(rows)
            except StopIteration:
                return
            except (csv.Error, UnicodeDecodeError) as error:
                raise SourceError(f"{manifest}:{number}: {error}") from None
            if row:
                yield place, number, row
            if row and header and start > place:
                at, before = start
                stream.seek(at)
                rows = csv.reader(iter(line, ""), delimiter=delimiter, strict=True)
            header = header and not row


def _cell_tags(cell: str) -> Any:
    """The tags of a CSV cell: separated by | or ; or written as a list of JSON or Python."""
    if not cell.lstrip().startswith("["):
        return [tag.strip() for tag in re.split("[|;]", cell) if tag.strip()]
    try:
        return json.loads(cell)
    except ValueError:
        try:
            return ast.literal_eval(cell.strip())
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            raise ValueError(f"tags start with [ but are not a list: {cell!r:.80}") from None


def _relative(image: Any) -> str:
    if not isinstance(image, str) or not image:
        raise ValueError(f"'image' must be a path, found {image!r:.80}")
    if image[0] == "/" or (".." in image and ".." in image.split("/")) or "\0" in image:
        raise ValueError(f"'image' must stay inside the source folder, found {image!r:.80}")
    try:
        if not image.isascii():
            os.fsencode(image)
    except UnicodeEncodeError:
        raise ValueError(f"'image' is not valid Unicode: {image!r:.80}") from None
    return image


def _manifest_tags(values: dict[str, Any]) -> tuple[str, ...]:
    tags, wnid = values.get("tags"), values.get("wnid")
    if not isinstance(tags, list) or not {str}.issuperset(map(type, tags)):
        raise ValueError(f"'tags' must be a list of strings, found {tags!r:.80}")
    if wnid is not None and not isinstance(wnid, str):
        raise ValueError(f"'wnid' must be a string, found {wnid!r:.80}")
    return tuple(dict.fromkeys(tags if wnid is None else [*tags, wnid]))
