"""Archives of webdataset and img2dataset -> records; no picture is read here.

In: .tar files, uncompressed. Out: `Record`s, in the order of the members. Neighbouring members with the same
path up to the first dot of the name (their key) are one sample. Tags come from the .json member (`tags` and
`labels`, lists or one string; `label` and `wnid`) and from a .cls member. Captions (`caption`, .txt) are
sentences, not tags, and are ignored.

Archives joined end to end (`cat`) are all read. A sample that hpcscale cannot read from an archive is never
skipped silently: it becomes a record whose problem begins with `LOST`. These are lost:

- links, sparse members and others that are not plain files;
- all members whose key comes more than once (an unsorted archive, or two samples of one name), because it is
  not known which of them belong together;
- everything after the place where an archive is cut.

Memory: 8 bytes per sample of one archive, and one header.
"""

import hashlib
import json
import os
import tarfile
from array import array
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from hpcscale.ingest.record import BEGIN, PICTURES, Record, Start, opened

LOST = "lost in its archive: "
META = frozenset(("json", "cls"))
META_BYTES = 16 << 20  # most bytes of a .json member or a header
COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst", ".tar.Z")
ZEROS = bytes(tarfile.BLOCKSIZE)
KINDS = {
    tarfile.LNKTYPE: "a hard link to {0.linkname}",
    tarfile.SYMTYPE: "a symbolic link to {0.linkname}",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a named pipe",
}


class Sample(NamedTuple):
    key: str
    members: dict[str, tarfile.TarInfo]  # by extension, in lower case; "": no extension


def tar_records(
    tars: list[Path], repeated: dict[Path, frozenset[int]], start: Start = BEGIN
) -> Iterator[tuple[Start, Record]]:
    """The samples of the tars, in the order of the files' names and then of the members; each with the number
    of its tar, and its own in this tar. From `start` on, which costs the headers before it in its tar.

    repeated: filled by the first walk and used again by the next; empty at first. Raises SourceError.
    """
    for index, tar in enumerate(tars[start[0] :], start[0]):
        with opened(tar) as stream:
            if tar not in repeated:
                repeated[tar] = _repeated(stream)
            for number, found in enumerate(_samples(stream)):
                if (index, number) >= start:
                    yield (index, number), _record_of(tar, stream, found, repeated[tar])


def _record_of(tar: Path, stream: BinaryIO, found: Sample | str, repeated: frozenset[int]) -> Record:
    if isinstance(found, str):
        return Record(tar.name, (), problem=LOST + found)
    if _number(found.key) in repeated:
        again = "its key comes more than once (the archive is not sorted, or two samples share it)"
        return Record(_name(tar, found), (), problem=LOST + again)
    return _record(tar, stream, found)


def _number(key: str) -> int:
    return int.from_bytes(hashlib.blake2b(os.fsencode(key), digest_size=8).digest())


def _repeated(stream: BinaryIO) -> frozenset[int]:
    """The keys, as numbers, that come more than once in a tar."""
    keys = array("Q", (_number(found.key) for found in _samples(stream) if isinstance(found, Sample)))
    numbers, counts = np.unique(np.frombuffer(keys, np.uint64), return_counts=True)
    return frozenset(numbers[counts > 1].tolist())


def _samples(stream: BinaryIO) -> Iterator[Sample | str]:
    """Neighbouring members of one key; an extension that comes again begins a new sample."""
    sample: Sample | None = None
    described = False  # whether samples have metadata
    for item in _members(stream):
        if isinstance(item, str):
            if sample is not None and (META & sample.members.keys() or not described):
                yield sample
            elif sample is not None:
                item += f" (the tags of {sample.key} among it)"
            yield item
            return
        _, _, extension = item.name.rpartition("/")[2].lstrip(".").partition(".")
        key = item.name[: len(item.name) - len(extension) - 1] if extension else item.name
        extension = extension.lower()
        if sample is None or key != sample.key or extension in sample.members:
            if sample is not None:
                yield sample
            sample = Sample(key, {})
        sample.members[extension] = item
        described |= extension in META
    if sample is not None:
        yield sample


class _Headers:
    """The stream of a tar for tarfile, which would otherwise read a header of any length into memory."""

    def __init__(self, stream: BinaryIO) -> None:
        self.seek, self.tell, self.stream = stream.seek, stream.tell, stream
        self.name, self.mode = "", "rb"

    def read(self, count: int) -> bytes:
        if count > META_BYTES:
            raise tarfile.ReadError(f"a header of {count:,} bytes")
        return self.stream.read(count)


def _aside(name: str) -> bool:
    """Whether a member is not the user's data: of macOS, or hidden and neither picture nor metadata."""
    file = PurePosixPath(name).name
    ending = file.rpartition(".")[2].lower()
    return file.startswith("._") or (file.startswith(".") and ending not in PICTURES | META)


def _members(stream: BinaryIO) -> Iterator[tarfile.TarInfo | str]:
    """All members but folders and files of the operating system, also of archives joined to the first; at the
    end, a text that says what is wrong, if anything is."""
    start: int | None = 0
    while start is not None:
        stream.seek(start)
        try:
            archive = tarfile.TarFile(fileobj=_Headers(stream), encoding="utf-8")  # type: ignore[arg-type]
            while (member := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]  # else it keeps every header
                if archive.offset <= member.offset:
                    raise tarfile.ReadError(f"a member of {member.size} bytes")
                if not member.isdir() and not _aside(member.name):
                    yield member
        except (tarfile.TarError, EOFError, ValueError, OverflowError, RecursionError) as error:
            yield f"an unknown number of samples; it cannot be read on at byte {stream.tell()}: {error}"
            return
        stream.seek(archive.offset)
        if stream.read(len(ZEROS)) != ZEROS:
            yield f"an unknown number of samples; it is cut or damaged at byte {archive.offset}"
            return
        start = _next_archive(stream)


def _next_archive(stream: BinaryIO) -> int | None:
    """Where the next of several joined archives begins, behind the zeros that end this one, if any."""
    while piece := stream.read(1 << 20):
        if rest := piece.lstrip(b"\0"):
            at = stream.tell() - len(rest)
            return at - at % len(ZEROS)
    return None


def _record(tar: Path, stream: BinaryIO, sample: Sample) -> Record:
    """One sample whose key comes only once."""
    pictures = [extension for extension in sample.members if extension in PICTURES]
    name = _name(tar, sample)
    for extension in (*pictures, *META):
        if problem := _problem(sample.members.get(extension)):
            return Record(name, (), problem=f"{LOST}its .{extension} is {problem}")
    try:
        tags = _tags(stream, sample.members)
    except (ValueError, RecursionError) as error:
        return Record(name, (), problem=f"its metadata: {error}")
    if len(pictures) != 1:
        found = ", ".join(sorted(f".{extension}" for extension in sample.members))
        count = f"{len(pictures) or 'no'} picture{'s' * (len(pictures) > 1)}"
        return Record(name, tags, problem=f"{count} among {found}")
    picture = sample.members[pictures[0]]
    return Record(name, tags, os.fspath(tar), picture.offset_data, picture.size)


def _name(tar: Path, sample: Sample) -> str:
    names = [member.name for extension, member in sample.members.items() if extension in PICTURES]
    return f"{tar.name}/{names[0] if names else sample.key}"


def _problem(member: tarfile.TarInfo | None) -> str:
    """Why the bytes in the archive are not the content of the file, if so."""
    if member is None:
        return ""
    if member.issparse():
        return "sparse (pack it without --sparse)"
    if member.isreg():
        return ""
    return KINDS.get(member.type, "of the unknown kind {0.type!r}").format(member)


def _tags(stream: BinaryIO, members: dict[str, tarfile.TarInfo]) -> tuple[str, ...]:
    """The tags of one sample's .json and .cls members. Raises ValueError."""
    tags: list[str] = []
    values: Any = {}
    if text := _text(stream, members, "json"):
        values = json.loads(text.decode("utf-8-sig"))  # img2dataset writes NaN
    if not isinstance(values, dict):
        raise ValueError(f".json must be an object, found {type(values).__name__}")
    for key in ("tags", "labels", "label", "wnid"):
        value = values.get(key)
        for tag in value if isinstance(value, list) else [] if value is None else [value]:
            if not isinstance(tag, str | int):
                raise ValueError(f"'{key}' must hold strings or numbers, found {tag!r:.80}")
            tags.append(str(tag))
    if cls := _text(stream, members, "cls").decode().strip():
        tags.append(cls)
    return tuple(dict.fromkeys(tags))


def _text(stream: BinaryIO, members: dict[str, tarfile.TarInfo], extension: str) -> bytes:
    """The content of a member, or nothing. Raises ValueError for one that is too large."""
    member = members.get(extension)
    if member is None:
        return b""
    if member.size > META_BYTES:
        raise ValueError(f".{extension} has {member.size:,} bytes, allowed are {META_BYTES:,}")
    stream.seek(member.offset_data)
    return stream.read(member.size)
