"""hpcscale data: ingest, info, verify, show, plan, upgrade. Parse, call one function, print."""

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hpcscale.cli.terminal import (
    ANY,
    AS_JSON,
    FILE,
    FOLDER,
    OUT,
    OUT_FOLDER,
    PART,
    SOURCE,
    Number,
    progress_bar,
    stop,
)
from hpcscale.text import shown as shown_name

if TYPE_CHECKING:
    from collections import Counter

    from hpcscale.data.verify import Problem
    from hpcscale.progress import Progress

SHOWN = 10  # kinds of losses that are listed


@click.group()
def data() -> None:
    """Build, inspect and verify data sets."""


@data.command()
@click.argument("source", type=SOURCE)
@click.argument("out", type=OUT_FOLDER)
@click.option(
    "--manifest", type=FILE, help="Pictures and tags: .jsonl, .csv or .tsv.  [default: SOURCE/manifest.*]"
)
@click.option(
    "--resize", type=click.IntRange(1, 8192), metavar="N", help="Store every picture as N x N pixels."
)
@click.option(
    "--workers", type=click.IntRange(1, 4096), metavar="N", help="Processes.  [default: one a core]"
)
@click.option(
    "--shard-samples",
    type=click.IntRange(1, 1 << 31),
    metavar="N",
    help="Records per shard.  [default: for 1 to 4 GB]",
)
@click.option("--quality", type=click.IntRange(1, 100), metavar="Q", default=90, show_default=True,
              help="Quality of the JPEGs that are written anew.")  # fmt: skip
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
    without --part packs what is left, and finishes OUT.
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
@click.argument("out", type=FOLDER)
@AS_JSON
def info(out: Path, as_json: bool) -> None:
    """Show how much is in the data set OUT."""
    from hpcscale.data.verify import info as read_info

    found = read_info(out)
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
@AS_JSON
def show(out: Path, sheet: Path, count: int, as_json: bool) -> None:
    """Draw a contact sheet of the data set OUT: pictures and tags."""
    from hpcscale.data import sheet as sheets
    from hpcscale.data.store import open_data
    from hpcscale.files import PNG, check_output, marked

    check_output(sheet, [out], marked(PNG))
    opened = open_data(out)
    picture, shown = sheets.contact_sheet(opened, sheets.spread(opened.samples, count))
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
@click.option("--ranks", "count", required=True, type=click.IntRange(1, 100_000), help="Ranks of the run.")
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override one key of the recipe."
)
@click.option("--steps", type=click.IntRange(1, 1_000_000), help="Steps to plan.  [default: 100]")
@click.option("--bandwidth", type=Number(min=0, min_open=True), metavar="MB",
              help="MB/s that all ranks get together, for seconds.")  # fmt: skip
@AS_JSON
def plan(
    file: Path,
    overrides: tuple[str, ...],
    count: int,
    steps: int | None,
    bandwidth: float | None,
    as_json: bool,
) -> None:
    """Show what each rank of a run by RECIPE will read. No shard is opened.

    The first 100 steps are planned, or an epoch if that is shorter. Bytes are those of the samples, by the
    mean of their shards.
    """
    from hpcscale import config
    from hpcscale.data.drop import order_of
    from hpcscale.data.store import open_data
    from hpcscale.inputs.plan import lines, reads

    settings = config.load(file, overrides)
    config.samples_of_rank(settings, count)
    opened = open_data(settings.data.train)
    found = reads(settings, opened, order_of(settings, opened), count, steps, bandwidth)
    if as_json:
        click.echo(json.dumps(found._asdict() | {"ranks": [rank._asdict() for rank in found.ranks]}))
        return
    for name, value in lines(found):
        click.echo(f"{name:<24}{value}")


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


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.2f} MB"
