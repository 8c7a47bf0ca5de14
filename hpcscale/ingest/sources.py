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

A walk may begin at any record. Its `Start` is, of a manifest, the byte and the number of its line; of tars
and folders, the number of the tar or class folder, and the number of the record in it.
"""

import json
import logging
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from hpcscale.data.manifest import digest
from hpcscale.ingest.manifests import MANIFESTS, manifest_records
from hpcscale.ingest.record import BEGIN, PICTURES, Record, Start
from hpcscale.ingest.record import SourceError as SourceError
from hpcscale.ingest.tars import COMPRESSED, tar_records

_log = logging.getLogger(__name__)

Walk = Callable[[Start], Iterator[tuple[Start, Record]]]


class Source(NamedTuple):
    kind: str
    walk: Walk  # always the same records in the same order
    stamp: Callable[[], str]  # of times and sizes of files: another one when the source was changed

    def records(self, start: Start = BEGIN) -> Iterator[Record]:
        """The records, from one on."""
        return (record for _, record in self.walk(start))


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
        walk: Walk = partial(manifest_records, source, manifest)
        return Source("manifest", walk, lambda: _stamp([manifest]))
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
        return Source("tars", partial(tar_records, tars, repeated), lambda: _stamp(tars))
    if source.is_dir() and untagged:
        return Source("pictures", partial(_numbered, source), lambda: _stamp(_entries(source)))
    if source.is_dir() and any(_is_dir(entry) for entry in _entries(source)):
        return Source("folders", partial(folder_records, source), lambda: _stamp(_entries(source)))
    raise SourceError(
        f"{source}: nothing to pack; looked for manifest.jsonl, manifest.csv, manifest.tsv, *.tar "
        f"and one folder per class{'; ' * bool(compressed)}{compressed}"
    )


def noted(source: Source, note: Callable[[str], None]) -> Source:
    """The same source; `note` is told the name of each record as it passes."""

    def walk(start: Start) -> Iterator[tuple[Start, Record]]:
        for place, record in source.walk(start):
            note(record.name)
            yield place, record

    return source._replace(walk=walk)


def without_folders(source: Path) -> bool:
    """Whether pictures lie directly in a folder, and so in no folder of a class."""
    return source.is_dir() and any(
        entry.name.rpartition(".")[2].lower() in PICTURES and not _is_dir(entry) for entry in _entries(source)
    )


def _stamp(files: Iterable[Path | os.DirEntry[str]]) -> str:
    """Of names, sizes and times. Of folders it tells only what was changed in themselves, not below."""
    values = []
    for file in files:
        try:
            found = file.stat()
            size = found.st_size if stat.S_ISREG(found.st_mode) else 0
            values.append([file.name, size, found.st_mtime_ns])
        except OSError:  # a link that leads nowhere
            values.append([file.name])
    return digest(json.dumps(values).encode()).hex()


def _there(file: Path) -> bool:
    """Whether there is such a file, or something else in its place, which reading will refuse."""
    try:
        return not stat.S_ISDIR(os.stat(file).st_mode)
    except OSError:
        return file.is_symlink()


# one folder per class


def folder_records(source: Path, start: Start = BEGIN) -> Iterator[tuple[Start, Record]]:
    """Each record with the number of its class folder, and its own in that folder; from `start` on."""
    for index, entry in enumerate(_entries(source)[start[0] :], start[0]):
        if _is_dir(entry):
            for number, path in enumerate(_files(entry.path)):
                if (index, number) >= start:
                    yield (index, number), Record(os.path.relpath(path, source), (entry.name,), path)
        elif entry.name.rpartition(".")[2].lower() in PICTURES:
            yield (index, 0), Record(entry.name, (), problem="lies in no class folder")


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


def _numbered(source: Path, start: Start) -> Iterator[tuple[Start, Record]]:
    return (((0, n), record) for n, record in enumerate(picture_records(source)) if n >= start[1])


def picture_records(source: Path) -> Iterator[Record]:
    for path in _files(os.fspath(source)):
        if path.rpartition(".")[2].lower() in PICTURES:
            yield Record(os.path.relpath(path, source), (), path)
