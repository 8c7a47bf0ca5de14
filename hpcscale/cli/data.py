"""hpcscale data: info, verify, show, upgrade; the other commands have files of their own."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hpcscale.cli import pack
from hpcscale.cli.catalogue import list_
from hpcscale.cli.index import index
from hpcscale.cli.plan import plan
from hpcscale.cli.terminal import (
    AS_JSON,
    FOLDER,
    OUT,
    SELECTION,
    VOCABULARY,
    progress_bar,
)
from hpcscale.text import shown as shown_name

if TYPE_CHECKING:
    from hpcscale.data.store import DataSet
    from hpcscale.data.verify import Problem
    from hpcscale.progress import Progress
    from hpcscale.samples.selection import Selected

SHOWN = 10  # kinds of losses that are listed


@click.group()
def data() -> None:
    """Build, inspect and verify data sets."""


for command in (pack.ingest, pack.survey, list_, index, plan):
    data.add_command(command)


@data.command()
@click.argument("out", type=FOLDER)
@SELECTION
@VOCABULARY
@AS_JSON
def info(out: Path, selection: str | None, vocabulary: Path | None, as_json: bool) -> None:
    """Show how much is in the data set OUT.

    With a vocabulary, samples that it gives no class are left out, as training leaves them out, and counted.
    Of annotations, objects of each class, flags, and what went to the quarantine and why are counted, always
    of the whole data set.
    """
    from hpcscale.data.verify import info as read_info

    found = read_info(out)
    if selection is not None or vocabulary is not None:
        from hpcscale.samples.selection import info as of_selection

        with _selected(out, selection, vocabulary) as (opened, selected):
            found |= of_selection(opened, selected)
    annotated = _annotated(out)
    if as_json:
        click.echo(json.dumps(found | ({"annotations": annotated} if annotated else {})))
        return
    for key, value in found.items():
        click.echo(f"{key:<16}{value}")
    for key, value in annotated.items():
        if isinstance(value, dict):
            click.echo("\n".join([f"{key}:", *(f"  {shown_name(name)}: {n}" for name, n in value.items())]))
        else:
            click.echo(f"{key:<20}{value}")


def _annotated(out: Path) -> dict[str, Any]:
    """Counts of the annotations; empty where the data set has none."""
    from hpcscale.annotations.counts import count
    from hpcscale.data.manifest import read_plan
    from hpcscale.data.store import open_data

    return count(open_data(out, unfinished=True)) if read_plan(out).annotation_table else {}


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
    """Draw a contact sheet of OUT: pictures, tags, annotations.

    Masks and class maps have the colours of their classes, boxes too; those of crowds and of difficult or
    ignored objects are thin. Key points are red, hidden ones white.
    """
    from hpcscale.annotations.drawing import Drawer
    from hpcscale.data import sheet as sheets
    from hpcscale.files import PNG, check_output, marked
    from hpcscale.samples.selection import spread

    check_output(sheet, [out], marked(PNG))
    with _selected(out, selection, vocabulary) as (opened, selected):
        samples = spread(selected, count)
    drawer = Drawer(opened, samples) if opened.plan.annotation_table else None
    tile = sheets.TILE * (2 if drawer else 1)
    picture, shown = sheets.contact_sheet(opened, samples, tile, drawer)
    sheets.save(picture, sheet)
    if as_json:
        click.echo(json.dumps({"sheet": str(sheet), "samples": [tile._asdict() for tile in shown]}))
        return
    for one in shown:
        line = f"{one.sample:>8}  {one.width} x {one.height}  {one.name}  {sheets.start(one.tags)}"
        click.echo(shown_name(line))
    click.echo(sheet)


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
