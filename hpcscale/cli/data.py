"""hpcscale data: ingest, survey, info, verify, show, upgrade. Parse, call one function, print."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hpcscale.cli.catalogue import list_
from hpcscale.cli.terminal import (
    ANY,
    AS_JSON,
    FILE,
    FOLDER,
    OUT,
    OUT_FOLDER,
    PART,
    SELECTION,
    SETTINGS,
    SOURCE,
    VOCABULARY,
    progress_bar,
    stop,
)
from hpcscale.text import shown as shown_name

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable

    from hpcscale.data.store import DataSet
    from hpcscale.data.verify import Problem
    from hpcscale.progress import Progress
    from hpcscale.samples.selection import Selected

SHOWN = 10  # kinds of losses that are listed


@click.group()
def data() -> None:
    """Build, inspect and verify data sets."""


data.add_command(list_)


def _packing(command: "Callable[..., None]") -> "Callable[..., None]":
    """The arguments and options of `ingest` and `survey`."""
    resize, quality, processes = click.IntRange(1, 8192), click.IntRange(1, 100), click.IntRange(1, 4096)
    for decorate in (
        click.option("--quality", type=quality, metavar="Q", default=90, show_default=True,
                     help="Quality of the JPEGs that are written anew."),
        click.option("--shard-samples", type=click.IntRange(1, 1 << 31), metavar="N",
                     help="Records per shard.  [default: for about 2 GB, by what some pictures take]"),
        click.option("--workers", type=processes, metavar="N", help="Processes.  [default: one a core]"),
        click.option("--resize", type=resize, metavar="N", help="Store every picture as N x N pixels."),
        click.option("--manifest", type=FILE,
                     help="Pictures and tags: .jsonl, .csv or .tsv.  [default: SOURCE/manifest.*]"),
        click.argument("out", type=OUT_FOLDER),
        click.argument("source", type=SOURCE),
    ):  # fmt: skip
        command = decorate(command)
    return command


@data.command()
@_packing
@PART
def ingest(
    source: Path,
    out: Path,
    manifest: Path | None,
    workers: int | None,
    part: tuple[int, int] | None,
    **packing: Any,
) -> None:
    """Pack the pictures and tags of SOURCE into the data set OUT.

    SOURCE is one of: a folder of pictures with a manifest (JSON lines such as {"image": "a/b.jpg", "tags":
    ["tench"]}, or CSV or TSV); a folder with one folder per class; a folder of .tar files as webdataset and
    img2dataset write them.

    After an interruption or a kill, type the same command again: it goes on where it was. It refuses to go on
    if pictures that it has packed were replaced by others meanwhile. Pictures that cannot be used are listed
    in OUT/quarantine.jsonl, with the reason. Without --resize, ordinary JPEGs are stored as they are. If an
    archive is cut, not sorted, or holds links or sparse files, the exit code is 1.

    On a cluster, N array tasks with --part 0/N to (N-1)/N share the work. When they have ended, the command
    without --part packs what is left, and finishes OUT. Each task reads all names and tags of SOURCE first;
    with millions of pictures, run `data survey` with the same arguments before, and none has to.
    """
    from hpcscale.ingest import packing as packer
    from hpcscale.ingest.listing import losses

    with progress_bar() as progress:
        how = packer.Packing(**packing)  # --resize, --quality and --shard-samples
        entries = packer.ingest(source, out, manifest, how, workers, progress, part)
    samples = sum(entry.samples for entry in entries)
    quarantined = sum(entry.quarantined for entry in entries)
    untagged = sum(entry.untagged for entry in entries)
    size = _size(sum(entry.bytes for entry in entries))
    if part is not None:
        click.echo(f"{out}: part {part[0]}/{part[1]}: {samples} samples in {len(entries)} shards, {size}")
        return
    click.echo(f"{out}: {samples} samples in {len(entries)} shards, {size}")
    if quarantined:
        click.echo(f"{quarantined} records could not be stored: {out / 'quarantine.jsonl'}", err=True)
    if untagged:
        click.echo(f"{untagged} samples have no tag", err=True)
    _name_losses(losses(out))
    if not samples:
        stop(f"{out}: no picture could be stored", 1)


@data.command()
@_packing
def survey(source: Path, out: Path, manifest: Path | None, workers: int | None, **packing: Any) -> None:
    """Read all names and tags once, for many ingest tasks.

    Give it the arguments of the ingest that follows. OUT then holds the plan, the tags and a survey, which
    ends with the ingest. Tasks start at their own shards, and refuse records that are not those of the
    survey. If files of SOURCE were changed since, they warn, and read all of it themselves.
    """
    from hpcscale.ingest import packing as packer

    with progress_bar() as progress:
        plan = packer.survey(source, out, manifest, packer.Packing(**packing), workers, progress)
    click.echo(f"{out}: {plan.records} records, {plan.tags} tags, {plan.shards} shards to pack")


@data.command()
@click.argument("out", type=FOLDER)
@SELECTION
@VOCABULARY
@AS_JSON
def info(out: Path, selection: str | None, vocabulary: Path | None, as_json: bool) -> None:
    """Show how much is in the data set OUT.

    With a vocabulary, samples that it gives no class are left out, as training leaves them out, and counted.
    """
    from hpcscale.data.verify import info as read_info

    found = read_info(out)
    if selection is not None or vocabulary is not None:
        from hpcscale.samples.selection import info as of_selection

        with _selected(out, selection, vocabulary) as (opened, selected):
            found |= of_selection(opened, selected)
    if as_json:
        click.echo(json.dumps(found))
        return
    for key, value in found.items():
        click.echo(f"{key:<16}{value}")


@data.command()
@click.argument("out", type=FOLDER)
@click.option("--decode", is_flag=True, help="Decode every picture too, as training does.")
@click.option("--workers", type=click.IntRange(1, 1024), metavar="N",
              help="Threads for --decode.  [default: one a core]")  # fmt: skip
@AS_JSON
def verify(out: Path, decode: bool, workers: int | None, as_json: bool) -> None:
    """Check every byte of the data set OUT.

    Lists every file and sample that is not what was written. With --decode, if all is whole, every picture is
    decoded, and those that cannot be decoded are listed too.
    """
    from hpcscale.data import verify as verifying

    with progress_bar() as progress:
        problems = verifying.verify(out, progress)
        if decode and not problems:
            problems = _undecodable(out, workers or len(os.sched_getaffinity(0)), progress)
    for problem in problems:
        click.echo(shown_name(problem), err=True)
    if as_json:
        click.echo(json.dumps({"problems": [problem._asdict() for problem in problems]}))
    elif not problems:
        click.echo(f"{out}: whole")
    sys.exit(1 if problems else 0)


def _name_losses(lost: "Counter[str]") -> None:
    """On stderr; exits with code 1 if there are any."""
    for reason, count in lost.most_common(SHOWN):
        click.echo(f"{count} x lost in archives: {reason}", err=True)
    if lost:
        more = f", {len(lost) - SHOWN} more kinds in the quarantine" if len(lost) > SHOWN else ""
        stop(f"{lost.total()} records were lost in archives{more}; what else was read is stored", 1)


def _undecodable(out: Path, threads: int, progress: "Progress") -> list["Problem"]:
    from hpcscale.data.store import open_data
    from hpcscale.data.verify import Problem
    from hpcscale.inputs import pipeline

    data = open_data(out)
    problems = []
    for bad in pipeline.undecodable(data, threads, progress):
        shard = int(data.starts.searchsorted(bad.sample, "right")) - 1
        row = bad.sample - int(data.starts[shard])
        problems.append(Problem(data.entries[shard].file, row, bad.name, f"cannot be decoded: {bad.reason}"))
    return problems


@data.command()
@click.argument("out", type=FOLDER)
@click.option("--out", "sheet", type=OUT, default=Path("sheet.png"),
              show_default=True, help="Where the contact sheet goes (PNG).")  # fmt: skip
@click.option(
    "--count", type=click.IntRange(1, 400), default=48, show_default=True, help="Pictures, evenly chosen."
)
@SELECTION
@VOCABULARY
@AS_JSON
def show(
    out: Path, sheet: Path, count: int, selection: str | None, vocabulary: Path | None, as_json: bool
) -> None:
    """Draw a contact sheet of the data set OUT: pictures and tags."""
    from hpcscale.data import sheet as sheets
    from hpcscale.files import PNG, check_output, marked
    from hpcscale.samples.selection import spread

    check_output(sheet, [out], marked(PNG))
    with _selected(out, selection, vocabulary) as (opened, selected):
        samples = spread(selected, count)
    picture, shown = sheets.contact_sheet(opened, samples)
    sheets.save(picture, sheet)
    if as_json:
        click.echo(json.dumps({"sheet": str(sheet), "samples": [tile._asdict() for tile in shown]}))
        return
    for tile in shown:
        line = f"{tile.sample:>8}  {tile.width} x {tile.height}  {tile.name}  {sheets.start(tile.tags)}"
        click.echo(shown_name(line))
    click.echo(sheet)


@data.command()
@click.argument("file", metavar="RECIPE", type=ANY)
@click.argument("out", type=OUT)
@SETTINGS
@PART
def index(file: Path, out: Path, overrides: tuple[str, ...], part: tuple[int, int] | None) -> None:
    """Write the file OUT, which says what a recipe trains on.

    A recipe that leaves samples out of more than ten million, or draws some more often than others, names it
    as data.index. It holds ids of samples, four bytes each: those that are trained on, and those of every
    class. Smaller sets do without: training finds the same out when it starts.

    On a cluster, N array tasks with --part 0/N to (N-1)/N share the work, and write into OUT.parts. When they
    have ended, the command without --part does what is left, and joins all parts to OUT. After an
    interruption or a kill, type the same command again.
    """
    from hpcscale import config
    from hpcscale.samples.make import make_index

    settings = config.load(file, overrides)
    with progress_bar() as progress:
        made = make_index(settings, out, part, progress)
    if made is None or part is not None:
        return
    click.echo(f"{out}: {made.samples.length} samples to train on, {made.held_out.length} held out")
    if made.tally.unlabelled:
        click.echo(f"{made.tally.unlabelled} samples have no class of the vocabulary", err=True)


@data.command()
@click.argument("out", type=FOLDER)
def upgrade(out: Path) -> None:
    """Bring the data set OUT to the newest format.

    Packed pictures are copied, never decoded or encoded again, and whoever compares the data (checkpoints,
    evaluations, hashes) finds it the same. OUT can be read all the while, also by a training that runs. It
    takes the disk space of one more shard. After an interruption or a kill, type the same command again.
    """
    from hpcscale.data.upgrade import upgrade as upgrade_data

    with progress_bar() as progress:
        written = upgrade_data(out, progress)
    click.echo(f"{out}: format 2, {written} shards were written anew")


@contextmanager
def _selected(
    out: Path, selection: str | None, vocabulary: Path | None
) -> Iterator[tuple["DataSet", "Selected"]]:
    """The data set, and the samples of it that the options select."""
    from hpcscale.config import Selection
    from hpcscale.data.store import open_data
    from hpcscale.labels.vocabulary import load
    from hpcscale.samples.selection import Selected, read

    opened = open_data(out)
    chosen = read(selection) if selection is not None else Selection()
    with progress_bar() as progress:
        labels = load(vocabulary) if vocabulary is not None else None
        yield opened, Selected(opened, chosen, labels, progress=progress)


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.2f} MB"
