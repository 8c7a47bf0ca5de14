"""Pictures and tags -> a data-set folder, in parallel, resumable at any moment.

In: a source (sources.py). Out: the folder that store.py specifies. The source is walked twice. The first walk
collects the tag table, the number of records and their digests. The second has the pictures transcoded
(workers.py) and writes shards; it writes none from records whose digest differs from that of the first walk.

The first walk can be shared: `survey` leaves it in the folder, and then an ingest, or each task of an array,
walks only the records of the shards that it packs or compares. It is used as long as times and sizes of the
source's files are those of then; and no shard is accepted whose records differ from it.

The folder is a pure function of the source and the options, whatever the number of workers and of kills.
Everything is written aside, synced and renamed. A shard counts when its line stands in manifest.jsonl; the
same command, run again, packs the shards without a line.

To go on, source and options must be those of plan.json, and no packed picture may have changed. Before
anything is written, the pictures of the finished shards (for a task: those in its share) are read again and
compared with the digests in the shards. Of shards that tasks have left, the call without a part compares all
sizes but reads at most 100,000 pictures, evenly spread: it may be alone with very many.

Each task of an array surveys the source, unless that is done, packs its share of the shards, and leaves the
line of each finished shard beside it (shard-00003.json). The first task writes the plan; the others compare
theirs with it. Only the call without a part writes manifest.jsonl and quarantine.jsonl.
"""

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from hpcscale.annotations.sources import Annotations, Met
from hpcscale.data.manifest import Entry, Plan, entry_name, read_plan, shard_name
from hpcscale.data.parts import Part, part_of
from hpcscale.data.shard import write_shard
from hpcscale.data.verify import checked_shard, entry_of
from hpcscale.files import remove_asides, replacing
from hpcscale.ingest.beginning import OptionError as OptionError
from hpcscale.ingest.beginning import Packing as Packing
from hpcscale.ingest.beginning import begin, begun, check_options, refuse_others
from hpcscale.ingest.columns import Columns
from hpcscale.ingest.exchanged import CHANGED, exchanged_since
from hpcscale.ingest.listing import finish, finished, leave, lister
from hpcscale.ingest.record import SourceError
from hpcscale.ingest.sizing import choose_shard_samples
from hpcscale.ingest.sources import Source, find_source, noted, without_folders
from hpcscale.ingest.survey import Survey, read_survey, records_of, survey_source, write_survey
from hpcscale.ingest.transcode import Stored, encoder, store_picture
from hpcscale.ingest.workers import answers
from hpcscale.progress import Progress, none

AS_IT_COMES = Packing()


class Work(NamedTuple):
    """What an ingest is about, once the source is surveyed and the plan stated."""

    source: Source
    out: Path
    plan: Plan
    survey: Survey
    workers: int
    progress: Progress
    annotations: Annotations | None


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
    out, workers = Path(out), workers or len(os.sched_getaffinity(0))
    check_options(packing, workers, part)
    found, options, annotations = _found(source, out, manifest, packing)
    with begun(out, part) as alone:
        refuse_others(out, options)
        survey, plan = _surveyed(found, out, options, annotations, workers, progress)
        work = Work(found, out, plan, survey, workers, progress, annotations)
        mine = part_of(plan.shards, part)
        entries = finished(out, plan, mine)
        _refuse_exchanged(work, set(entries), part)
        missing = [index for index in mine if index not in entries]
        if part is None:
            _pack(work, missing, entries, lister(out, entries))
            finish(out, plan, annotations)
        else:
            for index in mine if alone else []:
                remove_asides(out / shard_name(index))
                remove_asides(out / entry_name(index))
            _pack(work, missing, entries, lambda index: leave(out, index, entries[index]))
    return [entry for _, entry in sorted(entries.items())]


def survey(
    source: Path,
    out: Path,
    manifest: Path | None = None,
    packing: Packing = AS_IT_COMES,
    workers: int | None = None,
    progress: Progress = none,
) -> Plan:
    """Survey `source` for an ingest with the same arguments, and leave in `out` what it needs: the tasks of
    an array then walk only the records of their own shards. Raises as `ingest` does, and OptionError where
    the ingest has ended."""
    out, workers = Path(out), workers or len(os.sched_getaffinity(0))
    check_options(packing, workers, None)
    found, options, annotations = _found(source, out, manifest, packing)
    with begun(out, None):
        refuse_others(out, options)
        if (out / "quarantine.jsonl").exists():
            raise OptionError(f"{out}: the ingest has ended, and needs no survey")
        stamp = found.stamp()
        surveyed, plan = _surveyed(found, out, options, annotations, workers, progress)
        write_survey(out, plan, surveyed, stamp)
    return plan


def _found(
    source: Path, out: Path, manifest: Path | None, packing: Packing
) -> tuple[Source, dict[str, Any], Annotations | None]:
    """The source, what plan.json says of the options, which must be those of an earlier call in `out`, and
    the annotations. Annotated pictures need no tags, and so no folders of classes."""
    untagged = bool(packing.annotations) and without_folders(Path(source))
    found = find_source(Path(source), manifest, untagged)
    if found.kind in ("folders", "pictures") and out.resolve().is_relative_to(Path(source).resolve()):
        raise OptionError(f"{out} lies inside {source} and would be taken for a class; choose another folder")
    options: dict[str, Any] = {"source": found.kind, "resize": packing.resize, "quality": packing.quality,
               "encoder": encoder()}  # fmt: skip
    if packing.shard_samples is not None:
        options["shard_samples"] = packing.shard_samples
    refuse_others(out, options)
    annotations = Annotations(packing.annotations) if packing.annotations else None
    options["annotations"] = annotations.columns if annotations else {}
    options["annotation_digest"] = annotations.digest if annotations else ""
    refuse_others(out, options)
    return found, options, annotations


def _surveyed(
    found: Source,
    out: Path,
    options: dict[str, Any],
    annotations: Annotations | None,
    workers: int,
    progress: Progress,
) -> tuple[Survey, Plan]:
    """The survey that lies in the folder, or of a walk; and the plan that stands there now. Where no number
    of records in a shard is asked for, that of the plan counts, if there is one."""
    surveyed = read_survey(out, found)
    table = None
    if surveyed is not None:
        table = read_plan(out).annotation_table
        progress("surveyed before", surveyed.facts["records"], surveyed.facts["records"])
    else:
        begun_with = read_plan(out).shard_samples if (out / "plan.json").exists() else None
        choose = partial(
            choose_shard_samples, resize=options["resize"], quality=options["quality"], workers=workers
        )
        met = Met(annotations) if annotations else None
        walked = found if met is None else noted(found, met.add)
        surveyed = survey_source(walked, options.get("shard_samples", begun_with), choose, progress)
        table = annotations.table(met) if annotations and met else None
    stated = options | {"shard_samples": surveyed.shard_samples, "annotation_table": table} | surveyed.facts
    return surveyed, begin(out, Plan.model_validate(stated), surveyed.tags)


def _refuse_exchanged(work: Work, shards: set[int], part: Part | None) -> None:
    """Refuse finished shards if pictures of the source were replaced by others with the same names."""
    out = work.out
    left = {index for index in shards if part is None and (out / entry_name(index)).exists()}
    other = exchanged_since(
        work.source, work.survey, out, work.plan, shards, left, work.workers, work.progress
    )
    if other is not None:
        record, file = other
        raise OptionError(
            f"{out} was begun with another source or options: {record.name} is another picture now than when "
            f"{file.name} was packed. Use the same as then, or another folder; or remove {file}, to have its "
            "pictures packed anew"
        )


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
    reached: dict[int, bytes] = {}
    wanted = (record for _, record in records_of(work.source, survey, missing, reached))

    def write(index: int, rows: Columns) -> None:
        entries[index] = _write(out, plan, index, rows)
        keep(index)

    pending: Future[None] | None = None
    with (
        ThreadPoolExecutor(1) as finisher,
        closing(answers(wanted, work.workers, store_picture, plan.resize, plan.quality)) as pictures,
    ):
        for index in missing:
            rows = Columns(out, work.annotations)
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
                if reached[index] != survey.digests[index]:
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
