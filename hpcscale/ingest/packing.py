"""Pictures and tags -> a data-set folder, in parallel, resumable at any moment.

In: a source (sources.py). Out: the folder that store.py specifies. The source is walked twice. The first walk
collects the tag table, the number of records and their digests. The second has the pictures transcoded
(workers.py) and writes shards; it writes none from records whose digest differs from that of the first walk.

The folder is a pure function of the source and the options, whatever the number of workers and of kills.
Everything is written aside, synced and renamed. A shard counts when its line stands in manifest.jsonl; the
same command, run again, packs the shards without a line.

To go on, source and options must be those of plan.json, and no packed picture may have changed. Before
anything is written, the pictures of the finished shards (for a task: those in its share) are read again and
compared with the digests in the shards. Of shards that tasks have left, the call without a part compares all
sizes but reads at most 100,000 pictures, evenly spread: it may be alone with very many.

Each task of an array surveys the source, packs its share of the shards, and leaves the line of each finished
shard beside it (shard-00003.json). The first task writes the plan; the others compare theirs with it. Only
the call without a part writes manifest.jsonl and quarantine.jsonl.
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from hpcscale.data.manifest import (
    MOST,
    Entry,
    Plan,
    entry_name,
    is_leftover,
    read_plan,
    remove_leftovers,
    shard_name,
    tag_lines,
)
from hpcscale.data.parts import Part, check_part, locked, part_of
from hpcscale.data.shard import write_shard
from hpcscale.data.verify import checked_shard, entry_of
from hpcscale.files import Usage, read_bytes, remove_asides, replacing, write_file, write_once
from hpcscale.ingest.columns import Columns
from hpcscale.ingest.exchanged import exchanged_since
from hpcscale.ingest.listing import finish, finished, leave, lister
from hpcscale.ingest.record import Record, SourceError
from hpcscale.ingest.sources import Source, find_source
from hpcscale.ingest.survey import Survey, survey_source, walk
from hpcscale.ingest.transcode import Stored, encoder, store_picture
from hpcscale.ingest.workers import answers
from hpcscale.progress import Progress, none

MAX_RESIZE = 8192
CHANGED = "the source changed during the ingest"


class OptionError(Usage):
    """An ingest that must not start: its options are out of range, or not those of the folder."""


class Packing(NamedTuple):
    """How pictures are stored."""

    resize: int | None = None  # every picture is stored as this many pixels squared; None: as large as it is
    quality: int = 90  # of JPEGs that are written anew
    shard_samples: int | None = None  # records of the source in a shard; None: for shards of 1 to 4 GB


class Work(NamedTuple):
    """What an ingest is about, once the source is surveyed and the plan stated."""

    source: Source
    out: Path
    plan: Plan
    survey: Survey
    workers: int
    progress: Progress


AS_IT_COMES = Packing()


def ingest(
    source: Path,
    out: Path,
    manifest: Path | None = None,
    packing: Packing = AS_IT_COMES,
    workers: int | None = None,
    progress: Progress = none,
    part: Part | None = None,
) -> list[Entry]:
    """Pack `source` into the folder `out`. What an interrupted call has finished there is kept.

    workers: processes; None takes every core this process may use. progress(stage, done, of) is called often.
    part: (I, N) packs only the share of task I of N; a call without it, when the tasks have ended, packs what
    they left and ends the ingest. Returns the entries of all shards, or of the share.

    Raises SourceError (then nothing was written), OptionError and DataError. After WorkerDied and OSError the
    same call can be made again.
    """
    source, out = Path(source), Path(out)
    shard_samples = packing.shard_samples or default_shard_samples(packing.resize)
    workers = workers or len(os.sched_getaffinity(0))
    _check_options(packing._replace(shard_samples=shard_samples), workers, part)
    found = find_source(source, manifest)
    if found.kind == "folders" and out.resolve().is_relative_to(source.resolve()):
        raise OptionError(f"{out} lies inside {source} and would be taken for a class; choose another folder")
    options = {"source": found.kind, "resize": packing.resize, "quality": packing.quality,
               "shard_samples": shard_samples, "encoder": encoder()}  # fmt: skip
    _refuse_others(out, options)
    with _begun(out, part) as alone:
        _refuse_others(out, options)
        survey = survey_source(found, shard_samples, progress)
        plan = _begin(out, Plan.model_validate(options | survey.facts), survey.tags)
        work = Work(found, out, plan, survey, workers, progress)
        mine = part_of(plan.shards, part)
        entries = finished(out, plan, mine)
        _refuse_exchanged(work, set(entries), part)
        missing = [index for index in mine if index not in entries]
        if part is None:
            _pack(work, missing, entries, lister(out, entries))
            finish(out, plan)
        else:
            for index in mine if alone else []:
                remove_asides(out / shard_name(index))
                remove_asides(out / entry_name(index))
            _pack(work, missing, entries, lambda index: leave(out, index, entries[index]))
    return [entry for _, entry in sorted(entries.items())]


def _check_options(packing: Packing, workers: int, part: Part | None) -> None:
    for name, value, limit in (
        ("resize", packing.resize or 1, MAX_RESIZE),
        ("quality", packing.quality, 100),
        ("workers", workers, 4096),
        ("shard_samples", packing.shard_samples or 1, 1 << 31),
    ):
        if not 1 <= value <= limit:
            raise OptionError(f"{name} must be between 1 and {limit}, found {value}")
    try:
        check_part(part)
    except ValueError as error:
        raise OptionError(str(error)) from None


def default_shard_samples(resize: int | None) -> int:
    """About 2 GB: 38 KB for 340 x 340 pixels at quality 90, 110 KB for a photograph of ImageNet's size."""
    return 20_000 if resize is None else max(1_000, min(200_000, round(50_000 * (340 / resize) ** 2)))


@contextmanager
def _begun(out: Path, part: Part | None) -> Iterator[bool]:
    """Keep other calls out; gives False if this file system cannot. A call without a part that made the
    folder removes it again if it began nothing there.
    """
    there = out.exists()
    out.mkdir(parents=True, exist_ok=True)
    with locked(out, part) as alone:
        if part is not None:
            yield alone
            return
        remove_leftovers(out)
        try:
            yield alone
        finally:
            remove_leftovers(out)
            if os.listdir(out) == [".lock"]:
                (out / ".lock").unlink()
                if not there:
                    out.rmdir()


def _refuse_others(out: Path, options: dict[str, Any]) -> None:
    """Refuse a folder that is not ours or was begun with other options, before anything is written or
    removed. Other differences are known only after the survey. The plan is the first file of ours in a
    folder, so if there is none, no file is ours.
    """
    names = sorted(os.listdir(out)) if out.exists() else []
    if (out / "plan.json").exists():  # after the listing, which may have missed another task's plan
        _refuse_difference(out, read_plan(out).model_dump(), options)
        return
    ours = {".lock"} if not (out / ".lock").exists() or not (out / ".lock").stat().st_size else set()
    strangers = [name for name in names if name not in ours and not is_leftover(out / name)]
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


def _refuse_exchanged(work: Work, shards: set[int], part: Part | None) -> None:
    """Refuse finished shards if pictures of the source were replaced by others with the same names."""
    out = work.out
    left = {index for index in shards if part is None and (out / entry_name(index)).exists()}
    other = exchanged_since(work.source, out, work.plan, shards, left, work.workers, work.progress)
    if other is not None:
        record, file = other
        raise OptionError(
            f"{out} was begun with another source or options: {record.name} is another picture now than when "
            f"{file.name} was packed. Use the same as then, or another folder; or remove {file}, to have its "
            "pictures packed anew"
        )


def _begin(out: Path, plan: Plan, tags: tuple[str, ...]) -> Plan:
    """Write the plan, or compare it with the plan of the first call, so that all calls have the same. Returns
    that one, which may be of an older format."""
    write_once(out / "plan.json", plan.json_text(indent=2).encode() + b"\n")
    stated = read_plan(out)
    _refuse_difference(out, stated.model_dump(), plan.model_dump(exclude={"format"}))
    table, content = out / "tags.jsonl", tag_lines(tags)
    if not table.exists() or read_bytes(table, MOST) != content:
        write_file(table, content)
    return stated


def _pack(work: Work, missing: list[int], entries: dict[int, Entry], keep: Callable[[int], None]) -> None:
    """Write the missing shards, add the entry of each, and `keep` it. While one is written, the next is
    filled."""
    if not missing:
        return
    out, plan, survey = work.out, work.plan, work.survey
    starts = {index: index * plan.shard_samples for index in missing}
    stops = {index: min(start + plan.shard_samples, plan.records) for index, start in starts.items()}
    total, done = sum(stops[index] - starts[index] for index in missing), 0
    tag_ids = {tag: number for number, tag in enumerate(survey.tags)}
    ends: dict[int, bytes] = {}  # like Survey.ends, but of this walk

    def wanted() -> Iterator[Record]:
        for number, record, reached in walk(work.source, stops[missing[-1]]):
            index = (number - 1) // plan.shard_samples
            if index in starts:
                if number == stops[index]:
                    ends[index] = reached()
                yield record

    def write(index: int, rows: Columns) -> None:
        entries[index] = _write(out, plan, index, rows)
        keep(index)

    pending: Future[None] | None = None
    with (
        ThreadPoolExecutor(1) as finisher,
        closing(answers(wanted(), work.workers, store_picture, plan.resize, plan.quality)) as pictures,
    ):
        for index in missing:
            rows = Columns(out)
            try:
                number = starts[index]
                for record, stored in islice(pictures, stops[index] - number):
                    rows.add(number, record, stored or Stored(record.problem), tag_ids)
                    number += 1
                    done += 1
                    if done % 10 == 0:
                        work.progress("pack", done, total)
                if number != stops[index]:
                    raise SourceError(f"{CHANGED}: it ends after {number} records")
                if ends[index] != survey.ends[index]:
                    raise SourceError(f"{CHANGED}: not the same records up to {number}")
                if pending is not None:
                    pending.result()
            except BaseException:
                rows.spool.close()
                raise
            pending = finisher.submit(write, index, rows)
        if pending is not None:
            pending.result()
    work.progress("pack", done, total)


def _write(out: Path, plan: Plan, index: int, rows: Columns) -> Entry:
    """Write one shard aside, read it back, and give it its name."""
    file = out / shard_name(index)
    with replacing(file) as temporary:
        with rows.spool:
            rows.spool.seek(0)
            write_shard(temporary, plan, index, rows.spool, rows.columns())
        return entry_of(file, temporary, checked_shard(temporary, plan, index))
