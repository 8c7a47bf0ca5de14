"""Pictures -> a hash file, in parallel, resumable at any moment.

In: a data-set folder, a folder of pictures (with a manifest or without), or tars. Out: a hash file
(data/codes.py) of all of them in the source's order. Pictures that cannot be read are in its quarantine.

The source's pictures, in order, are cut into at most `MAX_PARTS` parts of at least `PART_ROWS`. A finished
part is a hash file in the folder OUT.parts; `merge` joins the parts and removes them. So the file is a pure
function of the source and the method, whatever the number of workers, of kills, and of array tasks that share
the parts: task I of N (from 0) does the parts [I * parts // N, (I + 1) * parts // N).

Earlier work is used only if it is of the same pictures. For a data set, its digest says so. For folders and
tars, the hash file keeps a digest of each original picture, and all pictures that an earlier call hashed are
read once more and compared, in a fraction of the time of hashing. Their place and time stamps do not matter.
For very many pictures and array tasks, `data ingest` first: it saves that reading.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hpcscale.data.codes import WORDS, Codes, merge_codes, read_codes, write_codes
from hpcscale.data.manifest import DataError
from hpcscale.data.parts import Part, check_part, locked, part_of, parts_folder, remove_parts
from hpcscale.data.store import DataSet, open_data
from hpcscale.dedup.perceptual import VERSIONS, Hashed, decoder, hash_stored
from hpcscale.files import Usage, check_output, compared
from hpcscale.ingest.exchanged import FEWER, first_exchanged
from hpcscale.ingest.record import Record, SourceError
from hpcscale.ingest.sources import find_source
from hpcscale.ingest.transcode import digest_stored
from hpcscale.ingest.workers import answers
from hpcscale.progress import Progress, none

PART_ROWS, MAX_PARTS = 4096, 4096


class OptionError(Usage):
    """Options that do not fit each other, or do not fit what an earlier call has begun."""


class Pictures(NamedTuple):
    """The pictures of a source."""

    total: int
    digest: str  # of their names and places; of a data set `DataSet.digest`, which covers the pictures
    records: Callable[[int, int], Iterator[Record]]  # those in [start, stop), in order
    data: DataSet | None  # where they are in one


def hash_source(
    source: Path,
    out: Path,
    method: str = "pdq",
    workers: int | None = None,
    part: Part | None = None,
    progress: Progress = none,
) -> Codes | None:
    """Hash every picture of `source` into the file `out`. What an interrupted call has done is kept.

    workers: processes; None takes every core this process may use. part: (I, N) does only the share of task I
    of N and returns None; a call without it, when the tasks have ended, does what they left and merges.
    Raises SourceError and DataError if something is wrong with the source (a damaged shard is refused), and
    OptionError, also if `out` or its parts hold other pictures. After WorkerDied and OSError the same call
    can be made again.
    """
    source, out = Path(source), Path(out)
    if method not in WORDS:
        raise OptionError(f"method must be one of {', '.join(WORDS)}, found {method!r}")
    try:
        check_part(part)
    except ValueError as error:
        raise OptionError(str(error)) from None
    check_output(out, [source], compared)
    pictures = find_pictures(source, progress)
    head = Codes((), np.empty((0, WORDS[method]), np.uint64), np.empty(0, np.uint8), method,
                 VERSIONS[method], pictures.digest, decoder())  # fmt: skip
    workers = workers or len(os.sched_getaffinity(0))
    if out.exists():
        advice = "choose another file, or remove this one"
        found = agreeing(out, head, advice)
        if part is None:  # there is nothing left for tasks to do
            _compare(pictures, {out: (0, len(found.digests))}, workers, progress, advice)
        remove_parts(out)  # killed between the merge and this
        return found
    folder = parts_folder(out)
    rows = max(PART_ROWS, -(-pictures.total // MAX_PARTS))
    parts = -(-pictures.total // rows)
    with locked(folder, part):
        # A part says what it is a part of, so that parts of another source or method are not mixed in.
        heads = [head._replace(source=f"{head.source} {number}/{parts}") for number in range(parts)]
        missing, there = [], {}
        for number in part_of(parts, part):
            file = part_file(folder, number)
            if file.exists():
                there[file] = number * rows, len(agreeing(file, heads[number], f"remove {folder}").digests)
            else:
                missing.append(number)
        _compare(pictures, there, workers, progress, f"remove {folder}")
        _hash(pictures, folder, heads, missing, rows, workers, progress)
        if missing and pictures.data is None and find_pictures(source).digest != pictures.digest:
            for number in missing:
                part_file(folder, number).unlink(missing_ok=True)
            raise SourceError(f"{source}: changed while it was read; run the same command again")
        if part is not None:
            return None
        files = [part_file(folder, number) for number in range(parts)]
        merge_codes(out, files, head.source)
    remove_parts(out)
    return read_codes(out)


def find_pictures(source: Path, progress: Progress = none) -> Pictures:
    """Walk the source once; a data set need not be walked. Raises SourceError and DataError."""
    if (source / "plan.json").exists():
        data = open_data(source)
        if not data.samples:
            raise SourceError(f"{source}: holds no pictures")
        return Pictures(data.samples, data.digest, lambda start, stop: _stored(data, start, stop), data)
    found = find_source(source, untagged=True)
    state = hashlib.blake2b(digest_size=16)
    count = 0
    for count, record in enumerate(found.records(), 1):
        state.update(json.dumps([record.name, record.offset, record.size, record.problem]).encode())
        if count % 1000 == 0:
            progress("survey", count, None)
    if not count:
        raise SourceError(f"{source}: holds no pictures")
    return Pictures(count, state.hexdigest(), lambda start, stop: islice(found.records(), start, stop), None)


def _stored(data: DataSet, start: int, stop: int) -> Iterator[Record]:
    """The pictures of a data set, as places in its shards."""
    first = int(np.searchsorted(data.starts, start, side="right")) - 1
    for index in range(first, len(data.entries)):
        begin, end = max(start - int(data.starts[index]), 0), stop - int(data.starts[index])
        if end <= 0:
            return
        shard, (file, where) = data.shard(index), data.jpeg_bytes(index)
        for row in range(begin, min(end, len(shard.source_sizes))):
            at, after = shard.jpeg_offsets[row : row + 2].tolist()
            yield Record(shard.name_of(row), (), str(file), where + at, after - at)


def _hash(
    pictures: Pictures, folder: Path, heads: list[Codes], missing: list[int], rows: int, workers: int,
    progress: Progress,
) -> None:  # fmt: skip
    """Write the missing parts."""
    if not missing:
        return
    spans = [(number * rows, min((number + 1) * rows, pictures.total)) for number in missing]
    total = sum(stop - start for start, stop in spans)
    records = (record for start, stop in _joined(spans) for record in pictures.records(start, stop))
    done = 0
    method = heads[0].method
    with closing(answers(records, workers, hash_stored, method)) as results:
        for number, (start, stop) in zip(missing, spans, strict=True):
            names, codes, qualities, quarantine = [], bytearray(), bytearray(), bytearray()
            digests = bytearray()
            for row, (record, answer) in enumerate(islice(results, stop - start), start):
                hashed = answer or Hashed(record.problem)
                if pictures.data is not None:
                    digests += _original(pictures.data, row, hashed)
                else:
                    digests += hashed.digest
                if hashed.reason:
                    line = {"name": record.name, "reason": hashed.reason, "row": row}
                    quarantine += json.dumps(line).encode() + b"\n"
                else:
                    names.append(record.name)
                    codes += hashed.code
                    qualities.append(hashed.quality)
                done += 1
                if done % 10 == 0:
                    progress("hash", done, total)
            if len(names) + quarantine.count(b"\n") != stop - start:
                raise SourceError(FEWER)
            words = np.frombuffer(codes, "<u8").reshape(-1, WORDS[method])
            write_codes(part_file(folder, number), heads[number]._replace(
                names=names, codes=words, quality=np.frombuffer(qualities, np.uint8),
                quarantine=np.frombuffer(quarantine, np.uint8),
                digests=np.frombuffer(digests, np.uint8).reshape(-1, 16),
            ))  # fmt: skip
    progress("hash", done, total)


def _compare(
    pictures: Pictures,
    hashed: dict[Path, tuple[int, int]],
    workers: int,
    progress: Progress,
    advice: str,
) -> None:
    """Refuse hash files whose pictures were replaced by others of the same names. Raises OptionError.

    hashed: of each file, in order, the number of its first picture, and of how many it has digests. Reads
    every picture, but none of a data set, whose digest has been compared already; maps one file at a time.
    """
    if pictures.data is not None or not hashed:
        return
    spans = [(start, start + count) for start, count in hashed.values()]
    total = sum(stop - start for start, stop in spans)
    records = (record for start, stop in _joined(spans) for record in pictures.records(start, stop))
    known = ((row.tobytes(), file) for file in hashed for row in read_codes(file).digests)
    hashed_then = ((record, *one) for record, one in zip(records, known, strict=False))
    if (other := first_exchanged(hashed_then, total, workers, progress, digest_stored)) is not None:
        record, file = other
        raise OptionError(
            f"{file}: {record.name} is another picture now than the one that was hashed; {advice}"
        )


def _original(data: DataSet, sample: int, hashed: Hashed) -> bytes:
    """The digest of a sample's original picture. Raises DataError if the picture in the shard is damaged."""
    index = int(np.searchsorted(data.starts, sample, side="right")) - 1
    row, shard = sample - int(data.starts[index]), data.shard(index)
    if shard.expected_digest(row, hashed.digest) != shard.digests[row].tobytes():
        raise DataError(
            f"{data.folder / data.entries[index].file}: sample {row} ({shard.name_of(row)}): its checksum "
            "does not fit; the shard is damaged, see `hpcscale data verify`"
        )
    original: bytes = shard.source_digests[row].tobytes()
    return original


def _joined(spans: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Neighbouring spans as one, so that a source is walked once."""
    begin, end = spans[0]
    for start, stop in spans[1:]:
        if start != end:
            yield begin, end
            begin = start
        end = stop
    yield begin, end


def part_file(folder: Path, number: int) -> Path:
    return folder / f"{number:05d}.h5"


def agreeing(file: Path, head: Codes, advice: str) -> Codes:
    """The hash or embedding file. Raises OptionError unless it holds what was asked for."""
    found = read_codes(file)
    for key in ("method", "version", "source", "decoder", "checkpoint"):
        if getattr(found, key) != getattr(head, key):
            was, now = getattr(found, key), getattr(head, key)
            meaning = " (other pictures, names or order)" if key == "source" else ""
            raise OptionError(f"{file}: {key} was {was}, now is {now}{meaning}; {advice}")
    return found
