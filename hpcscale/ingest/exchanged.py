"""Are the pictures of a source still those that an earlier call read? Compares their bytes, or their sizes.

In: records, and what is known of the bytes that they had. Out: the first picture that has changed. Names,
places and times do not matter: a copy elsewhere counts as the same. Used by ingest and the hashes, which go
on with what an earlier call has finished.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple, TypeVar

from hpcscale.data.manifest import DataError, Plan, shard_name
from hpcscale.data.shard import open_shard
from hpcscale.files import FileError, parse_json
from hpcscale.ingest.record import Record, SourceError
from hpcscale.ingest.sources import Source
from hpcscale.ingest.survey import Survey, records_of
from hpcscale.ingest.transcode import digest_stored, why_not
from hpcscale.ingest.workers import answers
from hpcscale.progress import Progress

FEWER = "the source changed: it has fewer pictures than a moment ago"
CHANGED = "the source changed during the ingest"
READ = 100_000  # pictures, at most, that are read of the shards that other tasks have packed

Known = TypeVar("Known")


class Packed(NamedTuple):
    """What a shard says of one record of the source."""

    file: Path  # the shard
    size: int  # bytes of its picture
    digest: bytes
    reason: str  # in the quarantine: why it has no picture


def first_exchanged(
    pictures: Iterable[tuple[Record, Known, Path]],
    total: int,
    workers: int,
    progress: Progress,
    function: Callable[..., Known],
    *options: int | None,
) -> tuple[Record, Path] | None:
    """The first picture for which the workers' `function` now returns something else, and its file.

    pictures: each record, what `function` returned for it then, and the file that holds that. Raises
    SourceError if there are not `total` of them, and what `answers` raises.
    """
    expected: deque[tuple[Known, Path]] = deque()

    def records() -> Iterator[Record]:
        for record, known, file in pictures:
            expected.append((known, file))
            yield record

    if not total:
        return None
    done = 0
    with closing(answers(records(), workers, function, *options)) as results:
        for done, (record, found) in enumerate(results, 1):
            known, file = expected.popleft()
            if not record.problem and found != known:
                return record, file
            if done % 100 == 0:
                progress("compare", done, total)
    if done != total:
        raise SourceError(FEWER)
    progress("compare", done, total)
    return None


def exchanged_since(  # arguments: the share of one ingest, whose `Work` is above this file
    source: Source,
    survey: Survey,
    out: Path,
    plan: Plan,
    shards: set[int],
    left: set[int],
    workers: int,
    progress: Progress,
) -> tuple[Record, Path] | None:
    """The first picture that has changed since one of `shards` was packed, and that shard.

    Sizes are compared first, which finds most changes at once, and the records with the survey. left: of
    these shards, at most `READ` pictures, evenly spread, are read. For a picture in the quarantine, the
    reason is determined again. Raises DataError, SourceError, and what `answers` raises.
    """
    if not shards:
        return None
    reached: dict[int, bytes] = {}
    every = -(-sum(len(_numbers(plan, index)) for index in left) // READ) or 1

    def packed() -> Iterator[tuple[Record, Packed, bool]]:
        """Every record, what its shard says of it, and whether to read it."""
        known: Iterator[Packed] = iter(())
        for number, record in records_of(source, survey, sorted(shards), reached):
            index, row = divmod(number, plan.shard_samples)
            if row == 0:
                known = _packed(out / shard_name(index), plan, index)
            yield record, next(known), index not in left or number % every == 0

    total = sum(len(_numbers(plan, index)) for index in shards)
    done = stored = failed = 0
    for done, (record, known, read) in enumerate(packed(), 1):
        if not known.reason and _size(record) != known.size:
            return record, known.file
        stored += read and not known.reason
        failed += read and bool(known.reason)
        if done % 1000 == 0:
            progress("compare sizes", done, total)
    if done != total:
        raise SourceError(FEWER)
    if any(found != survey.digests[index] for index, found in reached.items()):
        raise SourceError(f"{CHANGED}: not the same records as when it was surveyed")
    digests = (
        (record, known.digest, known.file) for record, known, read in packed() if read and not known.reason
    )
    reasons = (
        (record, known.reason, known.file) for record, known, read in packed() if read and known.reason
    )
    return first_exchanged(digests, stored, workers, progress, digest_stored) or first_exchanged(
        reasons, failed, workers, progress, why_not, plan.resize, plan.quality
    )


def _numbers(plan: Plan, index: int) -> range:
    """The numbers of the records that belong to a shard."""
    return range(index * plan.shard_samples, min((index + 1) * plan.shard_samples, plan.records))


def _packed(file: Path, plan: Plan, index: int) -> Iterator[Packed]:
    """What a shard says of each of its records. Raises DataError."""
    shard = open_shard(file, plan, index)
    numbers = _numbers(plan, index)
    try:
        lines = [parse_json(line, file) for line in shard.quarantine.tobytes().splitlines()]
        reasons = {int(line["record"]): str(line["reason"]) for line in lines}
    except (FileError, ValueError, TypeError, KeyError):
        reasons = {-1: ""}
    stored = [number for number in numbers if number not in reasons]
    if len(stored) != len(shard.source_sizes) or len(stored) + len(reasons) != len(numbers):
        raise DataError(f"{file}: its quarantine does not fit its samples; `hpcscale data verify` tells more")
    rows = zip(shard.source_sizes.tolist(), shard.source_digests, strict=True)
    for number in numbers:
        if number in reasons:
            yield Packed(file, 0, b"", reasons[number])
        else:
            size, digest = next(rows)
            yield Packed(file, size, digest.tobytes(), "")


def _size(record: Record) -> int:
    """Bytes of a picture; -1 where there is none."""
    if record.size >= 0 or record.problem:
        return record.size
    try:
        return os.stat(record.file).st_size
    except (FileNotFoundError, NotADirectoryError):
        return -1
