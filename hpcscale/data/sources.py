"""Where pictures and tags come from: kinds of source, each a stream of records in one fixed order.

In: a folder (or one .tar file). Out: `Record`s, for ingest, which walks the stream twice. No picture is read
here, and nothing is kept in memory but the names of one folder (folders) or the headers of one sample (tars).

manifest  a folder of pictures and a JSONL, CSV or TSV file: `manifest.jsonl`, `.csv` or `.tsv` in the folder,
          or given. JSONL: {"image": "relative/path.jpg", "tags": ["tench", ...], "wnid": "n01440764"}, one a
          line; `wnid` may be left out, other keys are ignored. CSV and TSV: a header line with the columns
          image, tags and perhaps wnid; the tags of a cell are separated by | or ; , or are a JSON list. Paths
          are relative to the folder of pictures.
folders   one folder per class, the folder's name is the tag (WordNet ids work). Every file below it that is
          not hidden is taken for a picture.
tars      webdataset and img2dataset: *.tar, uncompressed. Members with the same path up to the first dot of
          the name are one sample. Tags come from the .json member: `tags` and `labels` (lists or one string),
          `label` and `wnid`; and from a .cls member. Captions (`caption`, .txt) are sentences, not tags, and
          are not taken.

pictures  where tags do not matter (`untagged`), instead of folders: every file of a folder, at any depth,
that is
          not hidden and has a picture's ending.

A `wnid` becomes one more tag, as it is. Tags are kept as they are, except that a sample has no tag twice.
A manifest that is malformed anywhere raises SourceError; a picture that is missing is a matter for the
quarantine.
"""

import ast
import csv
import json
import os
import re
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from hpcscale.files import FileError

MANIFESTS = {".jsonl": None, ".csv": ",", ".tsv": "\t"}
PICTURES = frozenset(
    [
        "jpg",
        "jpeg",
        "jpe",
        "jfif",
        "png",
        "gif",
        "webp",
        "bmp",
        "tif",
        "tiff",
        "ppm",
        "pgm",
        "pbm",
        "pnm",
        "avif",
    ]
)
META = frozenset(("json", "cls"))
META_BYTES = 16 << 20  # a .json member beyond this is not metadata


class SourceError(FileError):
    """A source that cannot be packed; the message names file and line."""


class Record(NamedTuple):
    """One record of a source; its picture is the bytes [offset, offset + size) of `file`."""

    name: str  # source id: the path relative to the source, or tar/member
    tags: tuple[str, ...]
    file: str = ""
    offset: int = 0
    size: int = -1  # bytes; -1: the whole file
    problem: str = ""  # why there is no picture to read, if that is known already


class Source(NamedTuple):
    kind: str
    records: Callable[[], Iterator[Record]]  # every call walks the same records in the same order


def find_source(source: Path, manifest: Path | None = None, untagged: bool = False) -> Source:
    """Tell the kind of a source. Raises SourceError, saying what was looked for, if it is none."""
    if manifest is None:
        found = [
            source / f"manifest{suffix}" for suffix in MANIFESTS if (source / f"manifest{suffix}").is_file()
        ]
        if len(found) > 1:
            raise SourceError(
                f"{source}: {' and '.join(file.name for file in found)}: choose one with --manifest"
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
    tars = [source] if source.suffix == ".tar" and source.is_file() else sorted(source.glob("*.tar"))
    if tars:
        return Source("tars", lambda: tar_records(tars))
    if source.is_dir() and untagged:
        return Source("pictures", lambda: picture_records(source))
    if source.is_dir() and any(entry.is_dir() for entry in _entries(source)):
        return Source("folders", lambda: folder_records(source))
    raise SourceError(
        f"{source}: nothing to pack; looked for manifest.jsonl, manifest.csv, manifest.tsv, *.tar "
        "and one folder per class"
    )


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
    with manifest.open("rb") as stream:
        for number, line in enumerate(stream, 1):
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
    with manifest.open(encoding="utf-8-sig", newline="") as stream:
        rows = csv.reader(stream, delimiter=delimiter, strict=True)
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
    """The tags of a CSV cell: separated by | or ;, or a list as JSON or Python writes it."""
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
        if entry.is_dir():
            for path in _files(entry.path):
                yield Record(os.path.relpath(path, source), (entry.name,), path)
        elif entry.name.rpartition(".")[2].lower() in PICTURES:
            yield Record(entry.name, (), problem="lies in no class folder")


def _files(folder: str) -> Iterator[str]:
    for entry in _entries(folder):
        if entry.is_dir():
            yield from _files(entry.path)
        else:
            yield entry.path


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


# webdataset and img2dataset


def tar_records(tars: list[Path]) -> Iterator[Record]:
    """The samples of the tars, in the order of the files' names and then of the members."""
    for tar in tars:
        key: str | None = None
        members: dict[str, tarfile.TarInfo] = {}
        texts: dict[str, bytes] = {}
        with tar.open("rb") as stream:
            for item in _members(stream):
                if isinstance(item, str):
                    if key is not None:
                        yield _sample(tar, key, members, texts)
                    key = None
                    yield Record(tar.name, (), problem=item)
                    break
                found, _, extension = item.name.rpartition("/")[2].partition(".")
                found = item.name[: len(item.name) - len(extension) - 1] if extension else item.name
                if found != key:
                    if key is not None:
                        yield _sample(tar, key, members, texts)
                    key, members, texts = found, {}, {}
                extension = extension.lower()
                if extension in META and item.size <= META_BYTES:
                    stream.seek(item.offset_data)
                    texts[extension] = stream.read(item.size)
                members[extension] = item
        if key is not None:
            yield _sample(tar, key, members, texts)


def _members(stream: Any) -> Iterator[tarfile.TarInfo | str]:
    """The regular members of a tar; last, what is wrong with it (tarfile takes damage for the end)."""
    try:
        archive = tarfile.TarFile(fileobj=stream, errorlevel=2)
        while (member := archive.next()) is not None:
            archive.members.clear()  # type: ignore[attr-defined]  # or it remembers every header
            if member.isreg() and not PurePosixPath(member.name).name.startswith("."):
                yield member
    except (tarfile.TarError, EOFError, ValueError) as error:
        yield f"the tar cannot be read on: {error}"
        return
    stream.seek(archive.offset)
    if stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        yield f"the tar is cut or damaged at byte {archive.offset}; what follows is lost"


def _sample(tar: Path, key: str, members: dict[str, tarfile.TarInfo], texts: dict[str, bytes]) -> Record:
    pictures = [member for extension, member in members.items() if extension in PICTURES]
    name = f"{tar.name}/{pictures[0].name if pictures else key}"
    try:
        tags = _tar_tags(texts)
    except (ValueError, RecursionError) as error:
        return Record(name, (), problem=f"its metadata: {error}")
    if len(pictures) != 1:
        found = ", ".join(sorted(f".{extension}" for extension in members))
        return Record(
            name, tags, problem=f"{len(pictures) or 'no'} picture{'s' * (len(pictures) > 1)} among {found}"
        )
    return Record(name, tags, os.fspath(tar), pictures[0].offset_data, pictures[0].size)


def _tar_tags(texts: dict[str, bytes]) -> tuple[str, ...]:
    """The tags of one sample's .json and .cls members. Raises ValueError."""
    tags: list[str] = []
    values = json.loads(texts["json"].decode("utf-8-sig")) if "json" in texts else {}
    if not isinstance(values, dict):
        raise ValueError(f".json must be an object, found {type(values).__name__}")
    for key in ("tags", "labels", "label", "wnid"):
        value = values.get(key)
        for tag in value if isinstance(value, list) else [] if value is None else [value]:
            if not isinstance(tag, str | int):
                raise ValueError(f"'{key}' must hold strings or numbers, found {tag!r:.80}")
            tags.append(str(tag))
    if "cls" in texts and (text := texts["cls"].decode().strip()):
        tags.append(text)
    return tuple(dict.fromkeys(tags))
