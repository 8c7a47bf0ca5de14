"""The small files of a data-set folder: the plan, the tag table, the manifest.

In and out: the folder that store.py specifies.
"""

import hashlib
import json
import re
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hpcscale.files import FileError, parse_json, read_bytes

FORMAT = 1
MOST = 16 << 30  # bytes of a tag table
FILES = r"plan\.json|tags\.jsonl|manifest\.jsonl|quarantine\.jsonl|shard-\d{5,}\.(h5|json)"


class DataError(FileError):
    """A data set that cannot be used; the message names the file."""


class Plan(BaseModel):
    """What is packed and how; two equal plans over the same pictures give the same bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    format: Literal[1] = 1
    source: str  # kind of the source, see ingest/sources.py
    records: int = Field(ge=0)  # of the source, quarantined ones included
    source_digest: str  # of names, tags and places of all records, but not of the pictures
    tags: int = Field(ge=0)  # distinct tags
    tags_digest: str
    resize: int | None
    quality: int
    shard_samples: int = Field(ge=1)  # records of the source in one shard
    encoder: str  # versions of the libraries that turn pictures into JPEG bytes

    @property
    def shards(self) -> int:
        return -(-self.records // self.shard_samples)

    @property
    def digest(self) -> str:
        return digest(self.model_dump_json().encode()).hex()


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


def digest(*parts: bytes | memoryview) -> bytes:
    """BLAKE2b of 16 bytes over the parts, end to end."""
    state = hashlib.blake2b(digest_size=16)
    for part in parts:
        state.update(part)
    return state.digest()


def shard_name(index: int) -> str:
    return f"shard-{index:05d}.h5"


def entry_name(index: int) -> str:
    """Where an array task leaves the manifest line of a shard, until the joining call lists it."""
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
        if isinstance(found, dict) and found.get("format") != FORMAT:
            raise DataError(f"{file}: format {found.get('format')!r}, this version reads {FORMAT}")
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
    """The finished shards. A last line that a kill cut off does not count."""
    file = folder / "manifest.jsonl"
    try:
        lines = read_bytes(file).split(b"\n")[:-1]
    except FileNotFoundError:
        lines = []
    except (OSError, FileError) as error:
        raise DataError(str(error)) from None
    entries: list[Entry] = []
    for number, line in enumerate(lines):
        try:
            entries.append(Entry.model_validate_json(line))
        except ValidationError as error:
            problem = error.errors()[0]
            key = "".join(f"{part}: " for part in problem["loc"])
            raise DataError(f"{file}:{number + 1}: {key}{problem['msg']}") from None
        if entries[-1].file != shard_name(number):
            raise DataError(f"{file}:{number + 1}: names {entries[-1].file}, expected {shard_name(number)}")
    return entries
