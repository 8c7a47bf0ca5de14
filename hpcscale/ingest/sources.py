"""Where pictures and tags come from: kinds of source, each a stream of records in one fixed order.

In: a folder (or one .tar file). Out: `Record`s, for ingest, which walks the stream twice. No picture is read
here. In memory are only the names of one folder (folders) or the headers of one sample (tars).

    manifest  A folder of pictures and a JSONL, CSV or TSV file: `manifest.jsonl`, `.csv` or `.tsv` in the
              folder, or a file that is named. Paths in it are relative to the folder of pictures.
              JSONL: {"image": "relative/path.jpg", "tags": ["tench", ...], "wnid": "n01440764"} on each line;
              `wnid` may be left out, other keys are ignored.
              CSV and TSV: a header line with the columns image, tags and perhaps wnid. The tags of a cell are
              separated by | or ; or are a JSON list.
    folders   One folder per class; its name is the tag (WordNet ids work). Every file below it that is not
              hidden is taken for a picture.
    tars      Of webdataset and img2dataset: *.tar, uncompressed; see tars.py.
    pictures  Instead of folders, if tags do not matter (`untagged`): every file of a folder, at any depth,
              that is not hidden and has a picture's ending.

A `wnid` becomes one more tag. Tags stay as they are, except that no sample has a tag twice. A manifest with
any malformed line raises SourceError; a missing picture goes to the quarantine.
"""

import ast
import csv
import io
import json
import logging
import os
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from hpcscale.ingest.record import PICTURES, Record, opened
from hpcscale.ingest.record import SourceError as SourceError
from hpcscale.ingest.tars import COMPRESSED, tar_records

MANIFESTS = {".jsonl": None, ".csv": ",", ".tsv": "\t"}
LINE_BYTES = 16 << 20  # most bytes of a manifest's line

_log = logging.getLogger(__name__)


class Source(NamedTuple):
    kind: str
    records: Callable[[], Iterator[Record]]  # every call walks the same records in the same order


def find_source(source: Path, manifest: Path | None = None, untagged: bool = False) -> Source:
    """Find out the kind of a source. Raises SourceError if it is of no kind, or of two."""
    found = [file for suffix in MANIFESTS if _there(file := source / f"manifest{suffix}")]
    tars = [source] if source.suffix == ".tar" and not source.is_dir() else sorted(source.glob("[!.]*.tar"))
    tars = [tar for tar in tars if not tar.is_dir()]
    if manifest is None:
        if len(found) > 1:
            raise SourceError(
                f"{source}: {' and '.join(file.name for file in found)}: choose one with --manifest"
            )
        if found and tars:
            raise SourceError(
                f"{source}: holds a manifest ({found[0].name}) and tars ({tars[0].name}): choose with "
                "--manifest, or give the tars a folder of their own"
            )
        manifest = found[0] if found else None
    if manifest is not None:
        if manifest.suffix not in MANIFESTS:
            raise SourceError(
                f"{manifest}: unknown kind '{manifest.suffix}', known are {', '.join(MANIFESTS)}"
            )
        if not source.is_dir():
            raise SourceError(f"{source}: not a folder; a manifest's paths are relative to SOURCE")
        return Source("manifest", lambda: manifest_records(source, manifest))
    packed = sorted(file.name for ending in COMPRESSED for file in source.glob(f"[!.]*{ending}"))
    compressed = (
        f"{len(packed)} compressed archives ({packed[0]}) are not read; unpack them" if packed else ""
    )
    if tars:
        if source.is_dir() and (stray := next(picture_records(source), None)) is not None:
            raise SourceError(
                f"{source}: holds tars ({tars[0].name}) and pictures ({stray.name}): give them folders of "
                "their own"
            )
        if compressed:
            _log.warning("%s: %s", source, compressed)
        repeated: dict[Path, frozenset[int]] = {}
        return Source("tars", lambda: tar_records(tars, repeated))
    if source.is_dir() and untagged:
        return Source("pictures", lambda: picture_records(source))
    if source.is_dir() and any(_is_dir(entry) for entry in _entries(source)):
        return Source("folders", lambda: folder_records(source))
    raise SourceError(
        f"{source}: nothing to pack; looked for manifest.jsonl, manifest.csv, manifest.tsv, *.tar "
        f"and one folder per class{'; ' * bool(compressed)}{compressed}"
    )


def _there(file: Path) -> bool:
    """Whether there is such a file, or something else in its place, which reading will refuse."""
    try:
        return not stat.S_ISDIR(os.stat(file).st_mode)
    except OSError:
        return file.is_symlink()


# manifest


def manifest_records(source: Path, manifest: Path) -> Iterator[Record]:
    delimiter = MANIFESTS[manifest.suffix]
    lines = _json_lines(manifest) if delimiter is None else _table_rows(manifest, delimiter)
    for number, values in lines:
        try:
            image = _relative(values.get("image"))
            tags = _manifest_tags(values)
        except ValueError as error:
            raise SourceError(f"{manifest}:{number}: {error}") from None
        yield Record(image, tags, os.path.join(source, image))


def _json_lines(manifest: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with opened(manifest) as stream:
        for number, line in enumerate(iter(lambda: stream.readline(LINE_BYTES + 1), b""), 1):
            if len(line) > LINE_BYTES:
                raise SourceError(f"{manifest}:{number}: more than the {LINE_BYTES:,} bytes of a line")
            if not line.strip():
                continue
            try:
                values = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
            except (ValueError, RecursionError) as error:
                raise SourceError(f"{manifest}:{number}: not JSON: {error}") from None
            if not isinstance(values, dict):
                raise SourceError(f"{manifest}:{number}: expected an object, found {type(values).__name__}")
            yield number, values


def _table_rows(manifest: Path, delimiter: str) -> Iterator[tuple[int, dict[str, Any]]]:
    with io.TextIOWrapper(opened(manifest), encoding="utf-8-sig", newline="") as stream:
        lines = iter(lambda: stream.readline(LINE_BYTES + 1), "")
        # It refuses cells of more than 131,072 letters.
        rows = csv.reader(lines, delimiter=delimiter, strict=True)
        columns: list[str] = []
        while True:
            number = rows.line_num + 1  # where the row begins; a quoted cell may go over several lines
            try:
                row = next(rows)
            except StopIteration:
                return
            except (csv.Error, UnicodeDecodeError) as error:
                raise SourceError(f"{manifest}:{number}: {error}") from None
            if not row:
                continue
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
                yield (
                    rows.line_num,
                    values | {"tags": _cell_tags(values["tags"]), "wnid": values.get("wnid") or None},
                )
            except ValueError as error:
                raise SourceError(f"{manifest}:{number}: {error}") from None


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
    if image.startswith("/") or ".." in image.split("/") or "\0" in image:
        raise ValueError(f"'image' must stay inside the source folder, found {image!r:.80}")
    try:
        os.fsencode(image)
    except UnicodeEncodeError:
        raise ValueError(f"'image' is not valid Unicode: {image!r:.80}") from None
    return image


def _manifest_tags(values: dict[str, Any]) -> tuple[str, ...]:
    tags, wnid = values.get("tags"), values.get("wnid")
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise ValueError(f"'tags' must be a list of strings, found {tags!r:.80}")
    if wnid is not None and not isinstance(wnid, str):
        raise ValueError(f"'wnid' must be a string, found {wnid!r:.80}")
    return tuple(dict.fromkeys(tags if wnid is None else [*tags, wnid]))


# one folder per class


def folder_records(source: Path) -> Iterator[Record]:
    for entry in _entries(source):
        if _is_dir(entry):
            for path in _files(entry.path):
                yield Record(os.path.relpath(path, source), (entry.name,), path)
        elif entry.name.rpartition(".")[2].lower() in PICTURES:
            yield Record(entry.name, (), problem="lies in no class folder")


def _files(folder: str) -> Iterator[str]:
    """The files at any depth, folder by folder. Raises SourceError where a link leads back up: a loop."""
    open_folders = [(_identity(folder), iter(_entries(folder)))]
    while open_folders:
        entry = next(open_folders[-1][1], None)
        if entry is None:
            open_folders.pop()
        elif not _is_dir(entry):
            yield entry.path
        else:
            identity = _identity(entry.path)
            if any(identity == above for above, _ in open_folders):
                raise SourceError(
                    f"{entry.path}: a link back to a folder that it lies in: a loop without end"
                )
            open_folders.append((identity, iter(_entries(entry.path))))


def _identity(folder: str) -> tuple[int, int]:
    found = os.stat(folder)
    return found.st_dev, found.st_ino


def _is_dir(entry: os.DirEntry[str]) -> bool:
    """A link that leads nowhere, or to itself, counts as a file: reading it then fails with a message."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _entries(folder: Path | str) -> list[os.DirEntry[str]]:
    """What is in a folder, without hidden files, in the order of the names' bytes on every machine."""
    try:
        with os.scandir(folder) as entries:
            visible = [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise SourceError(f"{folder}: {error.strerror}") from None
    return sorted(visible, key=lambda entry: os.fsencode(entry.name))


# pictures without tags


def picture_records(source: Path) -> Iterator[Record]:
    for path in _files(os.fspath(source)):
        if path.rpartition(".")[2].lower() in PICTURES:
            yield Record(os.path.relpath(path, source), (), path)
