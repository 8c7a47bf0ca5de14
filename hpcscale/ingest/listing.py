"""Which shards of an ingest are finished; and the lists of them: the manifest, and last the quarantine.

In: the folder that store.py specifies, while packing.py fills it. Out: `Entry`s, manifest.jsonl and
quarantine.jsonl. An array task leaves the line of a shard beside the shard; the joining call lists them.
"""

import json
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from hpcscale.annotations.sources import Annotations, Met
from hpcscale.data.manifest import (
    FAULTS,
    DataError,
    Entry,
    Plan,
    entry_name,
    line_beside,
    manifest_lines,
    read_manifest,
    shard_name,
)
from hpcscale.data.shard import open_shard
from hpcscale.data.verify import checked_shard, entry_of
from hpcscale.files import open_regular, read_bytes, replacing, write_file
from hpcscale.ingest.survey import FILE as SURVEY
from hpcscale.ingest.tars import LOST


def finished(out: Path, plan: Plan, wanted: range) -> dict[int, Entry]:
    """The shards among `wanted` that are finished: those with a line, and whole ones without a line.

    A shard that is shorter or longer than its line says is not the one that was written, and does not count.
    """
    lines = dict(enumerate(read_manifest(out)))
    entries: dict[int, Entry] = {}
    for index in wanted:
        file = out / shard_name(index)
        line = lines.get(index) or line_beside(out, index)
        try:
            if line is not None:
                if file.stat().st_size == line.bytes and line.digest in (
                    "",
                    open_shard(file, plan, index).digest(),
                ):
                    entries[index] = line
            elif file.exists():  # a kill came after it was renamed, before its line
                entries[index] = entry_of(file, file, checked_shard(file, plan, index))
        except (DataError, FileNotFoundError):
            continue
    return entries


def leave(out: Path, index: int, entry: Entry) -> None:
    """Leave the line of a finished shard beside it, as a task of many does."""
    write_file(out / entry_name(index), entry.model_dump_json().encode())


def lister(out: Path, entries: dict[int, Entry]) -> Callable[[int], None]:
    """Write the manifest of `entries`, up to the first gap. The result is to be called whenever an entry was
    added: it appends what has no gap before it any more."""
    listed = _append(out, entries, 0)

    def keep(index: int) -> None:
        nonlocal listed
        listed = _append(out, entries, listed)

    return keep


def _append(out: Path, entries: dict[int, Entry], listed: int) -> int:
    """Add entries to the manifest, which has `listed` lines (0: write it anew), up to the first gap."""
    upto = listed
    while upto in entries:
        upto += 1
    content = manifest_lines(entries[index] for index in range(listed, upto))
    manifest = out / "manifest.jsonl"
    if not listed:
        if not manifest.exists() or read_bytes(manifest) != content:
            write_file(manifest, content)
    elif content:
        with manifest.open("ab") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
    return upto


def finish(out: Path, plan: Plan, annotations: Annotations | None = None) -> None:
    """Write the quarantines of all shards: of annotations, if there are some, then of pictures, which is the
    last file of an ingest. Remove what tasks left."""
    if annotations is not None:
        _gather_faults(out, plan, annotations)
    with replacing(out / "quarantine.jsonl") as gathered, gathered.open("wb") as stream:
        for index in range(plan.shards):
            stream.write(open_shard(out / shard_name(index), plan, index).quarantine.tobytes())
    for index in range(plan.shards):
        (out / entry_name(index)).unlink(missing_ok=True)
    (out / SURVEY).unlink(missing_ok=True)


def _gather_faults(out: Path, plan: Plan, annotations: Annotations) -> None:
    """Write the quarantine of annotations: of samples, in their order, then what is of no record."""
    met = Met(annotations)
    with replacing(out / FAULTS) as gathered, gathered.open("wb") as stream:
        for index in range(plan.shards):
            shard = open_shard(out / shard_name(index), plan, index)
            stream.write(shard.annotations["faults"][1].tobytes())
            for row in range(len(shard.source_sizes)):
                met.add(shard.name_of(row))
            for line in shard.quarantine.tobytes().splitlines():
                met.add(json.loads(line)["name"])
        stream.write(annotations.lost(met))


def losses(out: Path) -> Counter[str]:
    """What a finished folder's quarantine says was lost in archives, and how often."""
    found: Counter[str] = Counter()
    with open_regular(out / "quarantine.jsonl") as stream:
        for line in stream:
            reason = json.loads(line)["reason"]
            if reason.startswith(LOST):
                found[reason.removeprefix(LOST)] += 1
    return found
