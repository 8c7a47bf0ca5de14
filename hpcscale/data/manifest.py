"""The small files of a data-set folder: the plan, the tag table, the manifest.

In and out: the folder that store.py specifies.
"""

import hashlib
import json
import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from hpcscale.files import FileError, parse_json, read_bytes

FORMATS = (1, 2)  # that are read
FORMAT: Literal[2] = 2  # that is written
MOST = 16 << 30  # bytes of a tag table
PRIME, BASE = (1 << 127) - 1, 0x5851F42D4C957F2D14057B7EF767814F  # of `chain`
FAULTS = "quarantined-annotations.jsonl"
FILES = (
    r"plan\.json|tags\.jsonl|manifest\.jsonl|(quarantine|quarantined-annotations)\.jsonl|survey\.jsonl"
    r"|shard-\d{5,}\.(h5|json)"
)


Dtype = Literal["u1", "<i4", "<i8", "<f4", "<f8"]
AnnotationName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$")]


class DataError(FileError):
    """A data set that cannot be used; the message names the file."""


class Category(BaseModel):
    """A class of annotated objects; its index in the table is what shards hold."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: str
    id: int | None  # the source's; VOC has none
    keypoints: list[str] = []  # their names
    skeleton: list[list[int]] = []  # pairs of key points that a line joins, counted from 1 as in COCO


class AnnotationTable(BaseModel):
    """What the annotations of a data set need that is not of one picture (annotations/objects.py)."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    sources: list[Literal["coco", "voc", "maps"]]
    categories: list[Category]
    values: list[str]  # what the values of class maps are called, from 0; empty where nobody has said
    lost: int = Field(ge=0)  # lines of the annotations' quarantine that are of no record of the source
    lost_digest: str  # of these lines


class Plan(BaseModel):
    """What is packed and how; two equal plans over the same pictures give the same bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    format: Literal[1, 2] = FORMAT
    source: str  # kind of the source, see ingest/sources.py
    records: int = Field(ge=0)  # of the source, quarantined ones included
    source_digest: str  # of names, tags and places of all records, but not of the pictures
    tags: int = Field(ge=0)  # distinct tags
    tags_digest: str
    resize: int | None
    quality: int
    shard_samples: int = Field(ge=1)  # records of the source in one shard
    encoder: str  # versions of the libraries that turn pictures into JPEG bytes
    annotations: dict[AnnotationName, Dtype] = {}  # what else the shards hold of every sample
    annotation_digest: str = ""  # of the files that say it
    annotation_table: AnnotationTable | None = None

    @property
    def shards(self) -> int:
        return -(-self.records // self.shard_samples)

    @property
    def digest(self) -> str:
        """The same for every format, so that a data set stays the same data when it is upgraded."""
        return digest(self.model_copy(update={"format": 1}).json_text().encode()).hex()

    def json_text(self, indent: int | None = None) -> str:
        """Without annotations where there are none, as before there could be any."""
        absent = {
            key for key in ("annotations", "annotation_digest", "annotation_table") if not getattr(self, key)
        }
        return self.model_dump_json(indent=indent, exclude=absent or None)

    @model_validator(mode="after")
    def _check_annotations(self) -> "Plan":
        if self.format == 1 and self.annotations:
            raise ValueError("annotations need format 2")
        if wrong := [name for name in self.annotations if name.endswith("_offsets")]:
            raise ValueError(f"annotations: {wrong[0]!r} ends as the names of offsets do")
        return self


class Entry(BaseModel):
    """One line of manifest.jsonl: a finished shard."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    file: str
    samples: int = Field(ge=0)
    tags: int = Field(ge=0)  # tag occurrences over all samples
    untagged: int = Field(ge=0)  # samples without any tag
    quarantined: int = Field(ge=0)
    bytes: int = Field(ge=0)  # size of the file
    sha256: str  # of the file
    # Of the shard's `digests`, which cover its pictures, tags and names; older lines have none.
    digest: str = ""
    # `chain` of the shard's `jpeg_digests`; none of format 1.
    pictures: str = Field("", pattern=r"^([0-9a-f]{32})?$")


def digest(*parts: bytes | memoryview) -> bytes:
    """BLAKE2b of 16 bytes over the parts, end to end."""
    state = hashlib.blake2b(digest_size=16)
    for part in parts:
        state.update(part)
    return state.digest()


def chain(digests: NDArray[np.uint8]) -> str:
    """One number over digests (n, 16), in their order, as 32 hexadecimal digits: the polynomial of which they
    are the coefficients, at `BASE`, modulo `PRIME`.

    Chains of parts can be joined (`join_chains`), so it does not matter where a list was cut. It tells lists
    apart that differ by chance; who wants to could make two that do not.
    """
    value = 0
    content = digests.tobytes()
    for start in range(0, len(content), 16):
        value = (value * BASE + int.from_bytes(content[start : start + 16])) % PRIME
    return f"{value:032x}"


def join_chains(parts: Iterable[tuple[int, str]]) -> str:
    """The `chain` of lists one behind the other, of their lengths and chains."""
    value = 0
    for length, part in parts:
        value = (value * pow(BASE, length, PRIME) + int(part, 16)) % PRIME
    return f"{value:032x}"


def shard_name(index: int) -> str:
    return f"shard-{index:05d}.h5"


def entry_name(index: int) -> str:
    """Where an array task, or an upgrade, leaves the line of a shard until the manifest lists it."""
    return f"shard-{index:05d}.json"


def is_leftover(file: Path) -> bool:
    """Whether a killed call has left this file in a data-set folder: it has a name as `files.aside` gives, or
    is the lock of a task, which is empty.
    """
    if re.fullmatch(r"\.lock-\d+-\d+", file.name):
        try:
            return file.stat().st_size == 0
        except FileNotFoundError:  # its task has ended
            return True
    return re.fullmatch(rf"({FILES})\..+-[0-9a-f]{{8}}\.tmp", file.name) is not None


def remove_leftovers(folder: Path) -> None:
    """Remove what killed calls left. No other call is at work now, and the folder is known to be ours."""
    for name in os.listdir(folder):
        if is_leftover(folder / name):
            (folder / name).unlink(missing_ok=True)


def read_plan(folder: Path) -> Plan:
    file = folder / "plan.json"
    try:
        content = read_bytes(file)
    except OSError as error:
        raise DataError(f"{folder}: not a data-set folder: {file.name}: {error.strerror}") from None
    except FileError as error:
        raise DataError(str(error)) from None
    try:
        found = parse_json(content, file)
        if isinstance(found, dict) and found.get("format") not in FORMATS:
            known = " and ".join(map(str, FORMATS))
            raise DataError(f"{file}: format {found.get('format')!r}, this version reads {known}")
        return Plan.model_validate(found)
    except ValidationError as error:
        problem = error.errors()[0]
        raise DataError(f"{file}: {'.'.join(map(str, problem['loc']))}: {problem['msg']}") from None
    except FileError as error:
        raise DataError(str(error)) from None


def tag_lines(tags: tuple[str, ...]) -> bytes:
    """The content of tags.jsonl; its `digest` is the digest of the tag table."""
    return "".join(json.dumps(tag) + "\n" for tag in tags).encode()


def read_tags(folder: Path, plan: Plan) -> tuple[str, ...]:
    file = folder / "tags.jsonl"
    try:
        content = read_bytes(file, MOST)
    except OSError as error:
        raise DataError(f"{file}: {error.strerror}") from None
    except FileError as error:
        raise DataError(str(error)) from None
    if digest(content).hex() != plan.tags_digest:
        raise DataError(f"{file}: does not have the digest that plan.json states")
    return tuple(json.loads(line) for line in content.split(b"\n")[:-1])


def read_manifest(folder: Path) -> list[Entry]:
    """The finished shards. A last line that a kill cut off does not count. Raises DataError."""
    return [entry for entry, _ in read_sizes(folder)]


def read_sizes(folder: Path) -> list[tuple[Entry, int | None]]:
    """As `read_manifest`; and the bytes of each shard's file, None where there is none. Asks the file system
    once for each.

    While a folder is upgraded, the new line of a shard lies beside it. Of the two lines, the one that states
    the size of the file counts.
    """
    file = folder / "manifest.jsonl"
    try:
        content = read_bytes(file)
    except FileNotFoundError:
        content = b""
    except (OSError, FileError) as error:
        raise DataError(str(error)) from None
    entries: list[tuple[Entry, int | None]] = []
    for number, line in enumerate(content.split(b"\n")[:-1]):
        try:
            entry = Entry.model_validate_json(line)
        except ValidationError as error:
            problem = error.errors()[0]
            key = "".join(f"{part}: " for part in problem["loc"])
            raise DataError(f"{file}:{number + 1}: {key}{problem['msg']}") from None
        if entry.file != shard_name(number):
            raise DataError(f"{file}:{number + 1}: names {entry.file}, expected {shard_name(number)}")
        size = file_size(folder / entry.file)
        if size != entry.bytes:
            other = line_beside(folder, number)
            if other is not None and size == other.bytes:
                entry = other
            elif read_bytes(file) != content:  # an upgrade has ended meanwhile
                return read_sizes(folder)
        entries.append((entry, size))
    return entries


def line_beside(folder: Path, index: int) -> Entry | None:
    """The line of a shard that lies beside it, if there is one."""
    try:
        entry = Entry.model_validate_json(read_bytes(folder / entry_name(index)))
    except (FileNotFoundError, FileError, ValidationError):
        return None
    return entry if entry.file == shard_name(index) else None


def file_size(file: Path) -> int | None:
    """Bytes of a regular file; None where there is none."""
    try:
        found = os.stat(file)
    except OSError:
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) else None


def manifest_lines(entries: Iterable[Entry]) -> bytes:
    return b"".join(entry.model_dump_json().encode() + b"\n" for entry in entries)
