"""The first walk over a source: all its tags, and digests that show whether a later walk saw the same.

In: a source (sources.py). Out: a `Survey`, for ingest.
"""

import hashlib
import json
import logging
from array import array
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from hpcscale.data.manifest import digest, tag_lines
from hpcscale.ingest.record import Record, SourceError
from hpcscale.ingest.sources import Source
from hpcscale.progress import Progress

_log = logging.getLogger(__name__)


class Survey(NamedTuple):
    tags: tuple[str, ...]
    facts: dict[str, Any]  # what the plan says of the source
    ends: list[bytes]  # for each shard, the digest of all records up to its end


def survey_source(source: Source, shard_samples: int, progress: Progress) -> Survey:
    """Walk the source once. Warns if a manifest lists a picture more than once, with different tags. Memory:
    the tag table; for a manifest, also 16 bytes per record. Raises SourceError.
    """
    tags: set[str] = set()
    ends: list[bytes] = []
    pictures, tagged = array("q"), array("q")
    number = 0
    for number, record, reached in walk(source):
        tags.update(record.tags)
        if source.kind == "manifest":
            pictures.append(hash(record.name))
            tagged.append(hash(frozenset(record.tags)))
        if number % shard_samples == 0:
            ends.append(reached())
        if number % 1000 == 0:
            progress("survey", number, None)
    progress("survey", number, number)
    if not number:
        raise SourceError(f"the source ({source.kind}) holds no records")
    whole = reached()
    if number % shard_samples:
        ends.append(whole)
    _tell_conflicts(source, pictures, tagged)
    table = tuple(sorted(tags))
    facts = {"records": number, "source_digest": whole.hex(), "tags": len(table),
             "tags_digest": digest(tag_lines(table)).hex()}  # fmt: skip
    return Survey(table, facts, ends)


def walk(source: Source, most: int | None = None) -> Iterator[tuple[int, Record, Callable[[], bytes]]]:
    """The records, numbered from 1, each with a function that gives the digest of all records so far."""
    state = hashlib.blake2b(digest_size=16)
    for number, record in enumerate(islice(source.records(), most), 1):
        values = [record.name, record.tags, record.offset, record.size, record.problem]
        state.update(json.dumps(values).encode())
        yield number, record, state.digest


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
