"""Pictures and tags -> a data-set folder, in parallel, resumable at any moment.

In: a source (sources.py). Out: the folder that store.py specifies. Two walks over the source: the first
collects the tag table, the number of records and a digest of it all, the second has the pictures transcoded
(workers.py) and writes.

The folder is a pure function of the source and the options, whatever the number of workers and however often
the ingest was killed: everything is written aside, synced and renamed; a shard counts once its line stands in
manifest.jsonl; and an ingest that is run again goes on after the last such line. A source or options that
differ from plan.json are refused.
"""

import errno
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hpcscale.data.folder import (
    DataError,
    Entry,
    Plan,
    commit,
    digest,
    read_manifest,
    read_plan,
    shard_name,
    tag_lines,
    write_file,
)
from hpcscale.data.rows import Rows
from hpcscale.data.sources import Source, SourceError, find_source
from hpcscale.data.store import Shard, open_shard, write_shard
from hpcscale.data.transcode import Stored, encoder, store_picture
from hpcscale.data.verify import Progress, checked_shard, file_digest
from hpcscale.data.workers import answers

MAX_RESIZE = 8192
OURS = ("plan.json", "tags.jsonl", "manifest.jsonl", "quarantine.jsonl", ".lock")


class OptionError(ValueError):
    """An ingest that must not start: options out of range, or not those that the folder was begun with."""


def ingest(
    source: Path,
    out: Path,
    manifest: Path | None = None,
    resize: int | None = None,
    workers: int | None = None,
    shard_samples: int | None = None,
    quality: int = 90,
    progress: Progress = lambda stage, done, total: None,
) -> list[Entry]:
    """Pack `source` into the folder `out`; what an earlier, interrupted run has finished there is kept.

    resize: store every picture as this many pixels squared; None keeps sizes. workers: processes; None takes
    every core this process may use. shard_samples: records of the source in a shard; None aims at shards of 1
    to 4 GB. quality: of JPEGs that are written anew. progress(stage, done, of) is called often.
    Raises SourceError (nothing is written then), OptionError, DataError, and, to be run again, WorkerDied and
    OSError.
    """
    source, out = Path(source), Path(out)
    shard_samples = shard_samples or default_shard_samples(resize)
    workers = workers or len(os.sched_getaffinity(0))
    for name, value, limit in (
        ("resize", resize or 1, MAX_RESIZE),
        ("quality", quality, 100),
        ("workers", workers, 4096),
        ("shard_samples", shard_samples, 1 << 31),
    ):
        if not 1 <= value <= limit:
            raise OptionError(f"{name} must be between 1 and {limit}, found {value}")
    found = find_source(source, manifest)
    if found.kind == "folders" and out.resolve().is_relative_to(source.resolve()):
        raise OptionError(f"{out} lies inside {source} and would be taken for a class; choose another folder")
    options = {"source": found.kind, "resize": resize, "quality": quality, "shard_samples": shard_samples,
               "encoder": encoder()}  # fmt: skip
    with _locked(out):
        _refuse_others(out, options)
        survey = _survey(found, progress)
        plan = Plan.model_validate(options | survey.facts)
        _begin(out, plan, survey.tags)
        entries = _finished(out, plan)
        tag_ids = {tag: number for number, tag in enumerate(survey.tags)}
        _pack(found, out, plan, tag_ids, entries, workers, progress)
        _finish(out, plan)
    return entries


def default_shard_samples(resize: int | None) -> int:
    """About 2 GB: 38 KB for 340 x 340 pixels at quality 90, 110 KB for a photograph of ImageNet's size."""
    return 20_000 if resize is None else max(1_000, min(200_000, round(50_000 * (340 / resize) ** 2)))


class Survey(NamedTuple):
    tags: tuple[str, ...]
    facts: dict[str, Any]  # what the plan says of the source


def _survey(source: Source, progress: Progress) -> Survey:
    """Walk the source once. Memory: the tag table."""
    tags: set[str] = set()
    state = hashlib.blake2b(digest_size=16)
    number = 0
    for number, record in enumerate(source.records(), 1):
        tags.update(record.tags)
        state.update(
            json.dumps([record.name, record.tags, record.offset, record.size, record.problem]).encode()
        )
        if number % 1000 == 0:
            progress("survey", number, None)
    progress("survey", number, number)
    if not number:
        raise SourceError(f"the source ({source.kind}) holds no records")
    table = tuple(sorted(tags))
    facts = {"records": number, "source_digest": state.hexdigest(), "tags": len(table),
             "tags_digest": digest(tag_lines(table)).hex()}  # fmt: skip
    return Survey(table, facts)


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Keep a second ingest out of the folder. A folder in which nothing was begun is removed again."""
    out.mkdir(parents=True, exist_ok=True)
    lock = out / ".lock"
    with lock.open("a+b") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OptionError(f"{out}: another ingest into this folder is running") from None
        except OSError as error:
            if error.errno not in (
                errno.ENOSYS,
                errno.ENOLCK,
                errno.EOPNOTSUPP,
            ):  # Lustre without locks: go on
                raise
        _remove_temporaries(out)
        try:
            yield
        finally:
            _remove_temporaries(out)
            if os.listdir(out) == [".lock"]:
                lock.unlink()
                out.rmdir()


def _remove_temporaries(out: Path) -> None:
    for leftover in out.glob("*.tmp"):
        leftover.unlink()


def _refuse_others(out: Path, options: dict[str, Any]) -> None:
    """Refuse early what the folder was not begun with; the rest is known after the survey."""
    if (out / "plan.json").exists():
        _refuse_difference(out, read_plan(out).model_dump(), options)
    else:
        strangers = [name for name in sorted(os.listdir(out)) if name not in OURS]
        if strangers:
            raise OptionError(
                f"{out}: not empty and not a data-set folder (found {strangers[0]}); choose another"
            )


def _refuse_difference(out: Path, begun: dict[str, Any], wanted: dict[str, Any]) -> None:
    differences = [
        f"{key} was {begun[key]}, now is {wanted[key]}" for key in wanted if begun[key] != wanted[key]
    ]
    if differences:
        raise OptionError(
            f"{out} was begun with another source or options: {'; '.join(differences)}. "
            "Use the same as then, or another folder"
        )


def _begin(out: Path, plan: Plan, tags: tuple[str, ...]) -> None:
    if (out / "plan.json").exists():
        _refuse_difference(out, read_plan(out).model_dump(), plan.model_dump())
    table, content = out / "tags.jsonl", tag_lines(tags)
    if not table.exists() or table.read_bytes() != content:
        write_file(table, content)
    if not (out / "plan.json").exists():
        write_file(out / "plan.json", plan.model_dump_json(indent=2).encode() + b"\n")


def _finished(out: Path, plan: Plan) -> list[Entry]:
    """The shards that need no more work: those of the manifest that are there, and whole ones behind them."""
    entries: list[Entry] = []
    for entry in read_manifest(out):
        file = out / entry.file
        if not file.is_file() or file.stat().st_size != entry.bytes:
            break
        entries.append(entry)
    content = _manifest(entries)
    if not (out / "manifest.jsonl").exists() or (out / "manifest.jsonl").read_bytes() != content:
        write_file(
            out / "manifest.jsonl", content
        )  # without a line that a kill cut, or of a shard that is gone
    while len(entries) < plan.shards and (file := out / shard_name(len(entries))).exists():
        try:  # killed between its renaming and its line
            shard = checked_shard(file, plan, len(entries))
        except DataError:
            break
        entries.append(_entry(file, file, shard))
        _append(out, entries[-1])
    return entries


def _manifest(entries: list[Entry]) -> bytes:
    return "".join(entry.model_dump_json() + "\n" for entry in entries).encode()


def _append(out: Path, entry: Entry) -> None:
    with (out / "manifest.jsonl").open("ab") as stream:
        stream.write(_manifest([entry]))
        stream.flush()
        os.fsync(stream.fileno())


def _pack(
    source: Source,
    out: Path,
    plan: Plan,
    tag_ids: dict[str, int],
    entries: list[Entry],
    workers: int,
    progress: Progress,
) -> None:
    """Write the missing shards and append them to `entries`. While one is finished, the next is filled."""
    done = len(entries) * plan.shard_samples
    if done >= plan.records:
        return
    records = islice(source.records(), done, plan.records)
    pending: Future[None] | None = None
    with (
        ThreadPoolExecutor(1) as finisher,
        closing(answers(records, workers, store_picture, plan.resize, plan.quality)) as pictures,
    ):
        for index in range(len(entries), plan.shards):
            rows = Rows(out)
            try:
                for record, stored in islice(pictures, plan.shard_samples):
                    rows.add(done, record, stored or Stored(record.problem), tag_ids)
                    done += 1
                    if done % 10 == 0:
                        progress("pack", done, plan.records)
                if done != min((index + 1) * plan.shard_samples, plan.records):
                    raise SourceError(f"the source changed during the ingest: it ends after {done} records")
                if pending is not None:
                    pending.result()
            except BaseException:
                rows.spool.close()
                raise
            pending = finisher.submit(_write, out, plan, index, rows, entries)
        if pending is not None:
            pending.result()
    progress("pack", done, plan.records)


def _write(out: Path, plan: Plan, index: int, rows: Rows, entries: list[Entry]) -> None:
    """Write one shard aside, read it back, give it its name, and then its line in the manifest."""
    file = out / shard_name(index)
    temporary = file.with_name(file.name + ".tmp")
    with rows.spool:
        write_shard(temporary, plan, index, rows.spool, rows.jpeg_offsets[-1], rows.columns())
    shard = checked_shard(temporary, plan, index)
    entry = _entry(file, temporary, shard)
    commit(temporary, file)
    _append(out, entry)
    entries.append(entry)


def _entry(file: Path, written: Path, shard: Shard) -> Entry:
    """The manifest line of a shard that is to be called `file` and lies at `written`."""
    return Entry(
        file=file.name,
        samples=len(shard.source_sizes),
        tags=len(shard.tag_ids),
        untagged=int((np.diff(shard.tag_offsets) == 0).sum()),
        quarantined=shard.quarantine.tobytes().count(b"\n"),
        bytes=written.stat().st_size,
        sha256=file_digest(written),
    )


def _finish(out: Path, plan: Plan) -> None:
    """Gather the quarantine of all shards: the last file of an ingest."""
    with (out / "quarantine.jsonl.tmp").open("wb") as stream:
        for index in range(plan.shards):
            stream.write(open_shard(out / shard_name(index), plan, index).quarantine.tobytes())
    commit(out / "quarantine.jsonl.tmp", out / "quarantine.jsonl")
