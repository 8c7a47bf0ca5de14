"""What does a data-set folder hold, and is that what was written? Checksums, offsets, tag ids and lists.

In: a data-set folder. Out: its figures, and a list of problems, each with its file and, where one sample is
concerned, that sample.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hpcscale.data.jpeg import BadPicture, dimensions
from hpcscale.data.manifest import (
    FAULTS,
    MOST,
    DataError,
    Entry,
    Plan,
    digest,
    join_chains,
    read_manifest,
    read_plan,
    read_tags,
)
from hpcscale.data.shard import Shard, open_shard
from hpcscale.files import FileError, open_regular, parse_json, read_bytes
from hpcscale.progress import Progress, none


class Problem(NamedTuple):
    file: str
    sample: int | None  # in the shard
    name: str  # source id of the sample
    problem: str

    def __str__(self) -> str:
        record = "" if self.sample is None else f" sample {self.sample} ({self.name}):"
        return f"{self.file}:{record} {self.problem}"


def info(folder: Path) -> dict[str, int | float | bool | str | None]:
    """Figures from plan and manifest. labels: tags in the tag table; bytes: of all shards; untagged: samples
    without a tag; pictures_digest: of the stored pictures and their order alone, None of format 1; finished:
    whether the ingest has ended. Raises DataError.
    """
    folder = Path(folder)
    plan, entries = read_plan(folder), read_manifest(folder)
    samples = sum(entry.samples for entry in entries)
    return {
        "samples": samples,
        "shards": len(entries),
        "bytes": sum(entry.bytes for entry in entries),
        "labels": plan.tags,
        "quarantined": sum(entry.quarantined for entry in entries),
        "records": plan.records,
        "untagged": sum(entry.untagged for entry in entries),
        "tags_per_sample": round(sum(entry.tags for entry in entries) / max(samples, 1), 4),
        "stored_size": plan.resize,
        "quality": plan.quality,
        "source": plan.source,
        "encoder": plan.encoder,
        "format": plan.format,
        "pictures_digest": join_chains((one.samples, one.pictures) for one in entries)
        if all(one.pictures for one in entries)
        else None,
        "finished": len(entries) == plan.shards and (folder / "quarantine.jsonl").exists(),
    }


def verify(folder: Path, progress: Progress = none) -> list[Problem]:
    """Read every byte of a data set. The checksum of a sample covers its picture, tags, name and source
    digest; the checksum of the file covers the rest. An unfinished ingest is a problem too. Memory: the index
    of one shard.
    """
    folder = Path(folder)
    try:
        plan = read_plan(folder)
        entries = read_manifest(folder)
    except DataError as error:
        return [Problem(str(folder), None, "", str(error))]
    problems = []
    try:
        read_tags(folder, plan)
    except DataError as error:
        problems.append(Problem("tags.jsonl", None, "", str(error)))
    quarantine, faults = hashlib.sha256(), bytearray()
    for index, entry in enumerate(entries):
        progress("verify", index, len(entries))
        file = folder / entry.file
        found: list[Problem] = []
        try:
            shard = open_shard(file, plan, index)
            found += check_shard(entry.file, shard, plan, index)
            if not found:
                found += check_entry(entry, entry_of(file, file, shard))
            quarantine.update(shard.quarantine.tobytes())
            if "faults" in shard.annotations:
                faults += shard.annotations["faults"][1].tobytes()
        except (DataError, OSError, FileError) as error:
            found.append(Problem(entry.file, None, "", str(error)))
        problems += found
    if len(entries) != plan.shards:
        problems.append(Problem("manifest.jsonl", None, "", f"lists {len(entries)} of {plan.shards} shards"))
    elif entries and not read_bytes(folder / "manifest.jsonl").endswith(b"\n"):
        problems.append(Problem("manifest.jsonl", None, "", "its last line is cut, and names no shard"))
    elif not problems:
        problems += _check_lists(folder, plan, quarantine.hexdigest(), bytes(faults))
    progress("verify", len(entries), len(entries))
    return problems


def _check_lists(folder: Path, plan: Plan, quarantine: str, faults: bytes) -> Iterator[Problem]:
    """Compare the files of quarantines with those of the shards. quarantine: their SHA-256; faults: the lines
    of the annotations', behind which the file has as many as the plan says, of no record."""
    table = plan.annotation_table
    for name in ("quarantine.jsonl", *([FAULTS] if table else [])):
        try:
            whole = True
            if name != FAULTS:
                whole = file_digest(folder / name) == quarantine
            elif table:
                content = read_bytes(folder / name, MOST)
                lost = content[len(faults) :]
                whole = content.startswith(faults) and digest(lost).hex() == table.lost_digest
            if not whole:
                yield Problem(name, None, "", "does not list what the shards' quarantines list")
        except FileNotFoundError:
            yield Problem(name, None, "", "is missing: the ingest has not ended")
        except (OSError, FileError) as error:
            yield Problem(name, None, "", f"cannot be read: {error}")


def check_entry(stated: Entry, found: Entry) -> Iterator[Problem]:
    """Compare a line of the manifest with what was found in an undamaged shard."""
    for key in ("samples", "tags", "untagged", "quarantined", "bytes"):
        if getattr(found, key) != getattr(stated, key):
            differs = f"{key}: {getattr(found, key)}, not {getattr(stated, key)} as manifest.jsonl says"
            yield Problem(stated.file, None, "", differs)
    if stated.digest and found.digest != stated.digest:
        yield Problem(stated.file, None, "", "has other samples than manifest.jsonl says")
    elif found.pictures != stated.pictures:
        yield Problem(stated.file, None, "", "its stored pictures have another digest in manifest.jsonl")
    elif found.sha256 != stated.sha256:
        problem = "the samples are whole, but the file's SHA-256 is not the manifest's"
        yield Problem(stated.file, None, "", problem)


def check_shard(file: str, shard: Shard, plan: Plan, index: int) -> Iterator[Problem]:
    """All checks that need only the shard and its plan."""
    records = min(plan.shard_samples, plan.records - index * plan.shard_samples)
    lines = shard.quarantine.tobytes().split(b"\n")[:-1]
    if len(shard.source_sizes) + len(lines) != records:
        found = f"{len(shard.source_sizes)} samples and {len(lines)} quarantined"
        yield Problem(file, None, "", f"{found}, the plan has {records} records here")
    try:
        for line in lines:
            parse_json(line, file)
    except FileError:
        yield Problem(file, None, "", "its quarantine is not JSON lines")
    for name, offsets, _ in shard.rows():
        falling = np.flatnonzero(np.diff(offsets) < 0)
        if len(falling):
            yield Problem(file, int(falling[0]), "?", f"{name} fall here")
            return  # without these offsets, samples cannot be told apart
    for row in range(len(shard.source_sizes)):
        for problem in _check_sample(shard, plan, row):
            yield Problem(file, row, shard.name_of(row), problem)


def _check_sample(shard: Shard, plan: Plan, row: int) -> Iterator[str]:
    jpeg, tag_ids = shard.jpeg_of(row).tobytes(), shard.tags_of(row)
    if len(tag_ids) and (tag_ids.min() < 0 or tag_ids.max() >= plan.tags):
        yield f"has a tag id outside [0, {plan.tags})"
    jpeg_digest = digest(jpeg)
    if shard.expected_digest(row, jpeg_digest) != shard.digests[row].tobytes():
        covered = "tags, name or annotations" if plan.annotations else "tags or name"
        yield f"its checksum does not fit its picture, {covered}"
    elif shard.sizes is not None and shard.jpeg_digests is not None:
        if shard.jpeg_digests[row].tobytes() != jpeg_digest:
            yield "the digest that is stored of its picture is another's"
        try:
            size = dimensions(jpeg)
        except BadPicture as error:
            yield f"the size of its picture cannot be read: {error}"
        else:
            if tuple(shard.sizes[row].tolist()) != size:
                yield f"its height and width are {list(size)}, stored are {shard.sizes[row].tolist()}"


def checked_shard(file: Path, plan: Plan, index: int) -> Shard:
    """Open a shard and check all of it. Raises DataError with the first problem."""
    shard = open_shard(file, plan, index)
    for problem in check_shard(file.name, shard, plan, index):
        raise DataError(f"{file.parent / str(problem)}")
    return shard


def file_digest(file: Path) -> str:
    """SHA-256, as sha256sum prints it."""
    with open_regular(file) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def entry_of(file: Path, written: Path, shard: Shard) -> Entry:
    """The manifest line of a shard that lies at `written` and will be renamed to `file`."""
    return Entry(
        file=file.name,
        samples=len(shard.source_sizes),
        tags=len(shard.tag_ids),
        untagged=int((np.diff(shard.tag_offsets) == 0).sum()),
        quarantined=shard.quarantine.tobytes().count(b"\n"),
        bytes=written.stat().st_size,
        sha256=file_digest(written),
        digest=shard.digest(),
        pictures=shard.pictures(),
    )
