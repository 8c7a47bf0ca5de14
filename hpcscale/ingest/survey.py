"""The first walk over a source: all its tags, digests of its records, and where each shard's records begin.

In: a source (sources.py). Out: a `Survey`, for ingest, in memory or as survey.jsonl in the folder that is
packed. Records have a digest in blocks of `UNIT`, and the digest of a shard is that of its blocks'. So a
later walk can begin at any shard and show by itself whether it sees the same; and how many records go into a
shard can be chosen after the walk, from what pictures were met.

survey.jsonl, written by `data survey` and removed when the ingest ends: a head with the plan's digest, the
stamp of the source and the digest of what follows; then, for each shard, its digest and the `Start` of its
first record.
"""

import hashlib
import json
import logging
from array import array
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hpcscale.data.manifest import MOST, DataError, Plan, digest, read_plan, read_tags, tag_lines
from hpcscale.files import FileError, parse_json, read_bytes, write_file
from hpcscale.ingest.record import BEGIN, Record, SourceError, Start
from hpcscale.ingest.sources import Source
from hpcscale.progress import Progress

UNIT = 500  # records that have a digest together
SAMPLE = 200  # records, at least and evenly spread, from which the size of shards is chosen
LISTED = 20_000_000  # records of a manifest among which those are found that are listed twice
FILE = "survey.jsonl"

_text = json.encoder.encode_basestring_ascii
_log = logging.getLogger(__name__)


class Survey(NamedTuple):
    tags: tuple[str, ...]
    facts: dict[str, Any]  # what the plan says of the source
    shard_samples: int
    digests: list[bytes]  # of the records of each shard
    starts: list[Start]  # of the first record of each shard


class Blocks:
    """Digests of records, in blocks of `UNIT` from where it began."""

    def __init__(self) -> None:
        self.digests = bytearray()
        self._texts: list[str] = []

    def add(self, record: Record) -> bytes:
        """What goes into digests, of the block, where this is its last record; else nothing."""
        name, tags, _, offset, size, problem = record
        # As json.dumps writes them, in a fourth of the time.
        tag_list = ", ".join(map(_text, tags))
        self._texts.append(f"[{_text(name)}, [{tag_list}], {offset}, {size}, {_text(problem)}]")
        return self.close() if len(self._texts) == UNIT else b""

    def close(self) -> bytes:
        """End a block early, as at the end of a shard."""
        content = "".join(self._texts).encode()
        if self._texts:
            self.digests += digest(content)
            self._texts.clear()
        return content


def survey_source(
    source: Source,
    shard_samples: int | None,
    choose: Callable[[list[Record], int], int],
    progress: Progress,
) -> Survey:
    """Walk the source once. Warns if a manifest lists a picture more than once, with different tags (looking
    at its first `LISTED` records).

    shard_samples: records of a shard; None has `choose` decide, a multiple of `UNIT`, from at least `SAMPLE`
    records, evenly spread, and the number of all. Memory: the tag table, 32 bytes for a block of records, and
    16 bytes for each of the first of a manifest. Raises SourceError.
    """
    tags: set[str] = set()
    whole, blocks, starts = hashlib.blake2b(digest_size=16), Blocks(), array("q")
    pictures, tagged = array("q"), array("q")
    sample: list[Record] = []
    number, stride, begins = 0, 1, True
    for number, (start, record) in enumerate(source.walk(BEGIN), 1):
        if begins:
            starts.extend(start)
        content = blocks.add(record)
        if shard_samples is not None and number % shard_samples == 0:
            content = content or blocks.close()
        if begins := bool(content):
            whole.update(content)
            progress("survey", number, None)
        tags.update(record.tags)
        if source.kind == "manifest" and number <= LISTED:
            pictures.append(hash(record.name))
            tagged.append(hash(frozenset(record.tags)))
        if (number - 1) % stride == 0:
            sample.append(record)
            if len(sample) == 2 * SAMPLE:
                sample, stride = sample[::2], 2 * stride
    progress("survey", number, number)
    if not number:
        raise SourceError(f"the source ({source.kind}) holds no records")
    whole.update(blocks.close())
    _tell_conflicts(source, pictures, tagged)
    table = tuple(sorted(tags))
    facts = {"records": number, "source_digest": whole.hexdigest(), "tags": len(table),
             "tags_digest": digest(tag_lines(table)).hex()}  # fmt: skip
    shard_samples = shard_samples or choose(sample, number)
    step = -(-shard_samples // UNIT)  # blocks of a shard
    every = bytes(blocks.digests)
    digests = [digest(every[at : at + 16 * step]) for at in range(0, len(every), 16 * step)]
    firsts = [(starts[at], starts[at + 1]) for at in range(0, len(starts), 2 * step)]
    return Survey(table, facts, shard_samples, digests, firsts)


def records_of(
    source: Source, survey: Survey, shards: Iterable[int], reached: dict[int, bytes]
) -> Iterator[tuple[int, Record]]:
    """The records of some shards, which rise, each with its number in the source, from 0. Before the last
    record of a shard is given, `reached` has the digest of all of them, to be compared with the survey's: of
    the last shard, none if the source goes on behind it.

    Walks to a shard from the one before where both begin in the same tar or folder; else starts there.
    """
    total, size = int(survey.facts["records"]), survey.shard_samples
    stream: Iterator[Record] = iter(())
    at = len(survey.starts)  # the shard before which the stream stands
    for shard in shards:
        if at > shard or survey.starts[at][0] != survey.starts[shard][0]:
            stream, at = source.records(survey.starts[shard]), shard
        for _ in zip(range((shard - at) * size), stream, strict=False):
            pass
        blocks, stop = Blocks(), min((shard + 1) * size, total)
        for number, record in zip(range(shard * size, stop), stream, strict=False):
            blocks.add(record)
            if number + 1 == stop:
                blocks.close()
                more = stop == total and next(stream, None) is not None  # the source does not end here
                reached[shard] = b"" if more else digest(bytes(blocks.digests))
            yield number, record
        at = shard + 1


def write_survey(out: Path, plan: Plan, survey: Survey, stamp: str) -> None:
    """Leave a survey in the folder that is packed. stamp: of the source, from before the walk."""
    lines = [
        json.dumps([one.hex(), *start]) for one, start in zip(survey.digests, survey.starts, strict=True)
    ]
    rest = "\n".join([*lines, ""]).encode()
    head = {"plan": plan.digest, "stamp": stamp, "digest": digest(rest).hex()}
    write_file(out / FILE, json.dumps(head).encode() + b"\n" + rest)


def read_survey(out: Path, source: Source) -> Survey | None:
    """The survey in a folder; None where there is none, or where it is damaged, or of a source that has been
    changed since, of which it warns."""
    try:
        first, _, rest = read_bytes(out / FILE, MOST).partition(b"\n")
        head = parse_json(first, out / FILE)
        plan = read_plan(out)
        if head["plan"] != plan.digest or head["digest"] != digest(rest).hex():
            raise DataError("it is damaged, or of another plan")
        if head["stamp"] != source.stamp():
            raise DataError("the source was changed since")
        tags = read_tags(out, plan)
    except FileNotFoundError:
        return None
    except (FileError, KeyError, TypeError) as error:
        _log.warning("%s is not used, the source is surveyed again: %s", out / FILE, error)
        return None
    facts = plan.model_dump(include={"records", "source_digest", "tags", "tags_digest"})
    lines = [json.loads(line) for line in rest.splitlines()]
    digests, starts = [bytes.fromhex(line[0]) for line in lines], [(line[1], line[2]) for line in lines]
    return Survey(tags, facts, plan.shard_samples, digests, starts)


def _tell_conflicts(source: Source, pictures: "array[int]", tagged: "array[int]") -> None:
    """Warn of pictures that are listed again with other tags: each line is a sample of its own."""
    names, tags = np.frombuffer(pictures, np.int64), np.frombuffer(tagged, np.int64)
    order = np.lexsort((tags, names))
    names, tags = names[order], tags[order]
    again = set(names[1:][(names[1:] == names[:-1]) & (tags[1:] != tags[:-1])].tolist())
    if again:
        first = next(record.name for record in source.records() if hash(record.name) in again)
        _log.warning(
            "the manifest lists %d pictures more than once with different tags, the first is %r; each line "
            "becomes a sample of its own", len(again), first,
        )  # fmt: skip
