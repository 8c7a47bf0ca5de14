"""hpcscale data ingest | survey: from pictures and tags to a data set. Parse, call one function, print."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hpcscale.cli.terminal import ANNOTATIONS, FILE, OUT_FOLDER, PART, SOURCE, progress_bar, stop

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable

SHOWN = 10  # kinds of losses that are listed


def _packing(command: "Callable[..., None]") -> "Callable[..., None]":
    """The arguments and options of `ingest` and `survey`."""
    resize, quality, processes = click.IntRange(1, 8192), click.IntRange(1, 100), click.IntRange(1, 4096)
    for decorate in (
        click.option("--quality", type=quality, metavar="Q", default=90, show_default=True,
                     help="Quality of the JPEGs that are written anew."),
        click.option("--shard-samples", type=click.IntRange(1, 1 << 31), metavar="N",
                     help="Records per shard.  [default: for about 2 GB, by what some pictures take]"),
        click.option("--workers", type=processes, metavar="N", help="Processes.  [default: one a core]"),
        ANNOTATIONS,
        click.option("--resize", type=resize, metavar="N", help="Store every picture as N x N pixels."),
        click.option("--manifest", type=FILE,
                     help="Pictures and tags: .jsonl, .csv or .tsv.  [default: SOURCE/manifest.*]"),
        click.argument("out", type=OUT_FOLDER),
        click.argument("source", type=SOURCE),
    ):  # fmt: skip
        command = decorate(command)
    return command


@click.command()
@_packing
@PART
def ingest(
    source: Path,
    out: Path,
    manifest: Path | None,
    workers: int | None,
    annotations: tuple[Path, ...],
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

    --annotations stores what is known of the pictures beside them: boxes, masks and key points of a COCO
    JSON, boxes of a folder of VOC's XML, class maps of a folder of PNGs. It may be given twice, for objects
    and for maps. Pictures are found by their names (VOC and maps: without the ending); if they lie directly
    in SOURCE, neither manifest nor class folders are needed. What cannot be used is listed in
    OUT/quarantined-annotations.jsonl.

    On a cluster, N array tasks with --part 0/N to (N-1)/N share the work. When they have ended, the command
    without --part packs what is left, and finishes OUT. Each task reads all names and tags of SOURCE first;
    with millions of pictures, run `data survey` with the same arguments before, and none has to.
    """
    from hpcscale.data.manifest import FAULTS
    from hpcscale.ingest import packing as packer
    from hpcscale.ingest.listing import losses

    with progress_bar() as progress:
        how = packer.Packing(**packing, annotations=annotations)  # --resize, --quality and --shard-samples
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
    if untagged and not (annotations and untagged == samples):  # annotated pictures need no tags
        click.echo(f"{untagged} samples have no tag", err=True)
    _name_faults(out / FAULTS)
    _name_losses(losses(out))
    if not samples:
        stop(f"{out}: no picture could be stored", 1)


@click.command()
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


def _name_faults(file: Path) -> None:
    """On stderr: how many annotations are in the quarantine."""
    if file.exists() and (faults := file.read_bytes().count(b"\n")):
        click.echo(f"{faults} annotations could not be stored: {file}", err=True)


def _name_losses(lost: "Counter[str]") -> None:
    """On stderr; exits with code 1 if there are any."""
    for reason, count in lost.most_common(SHOWN):
        click.echo(f"{count} x lost in archives: {reason}", err=True)
    if lost:
        more = f", {len(lost) - SHOWN} more kinds in the quarantine" if len(lost) > SHOWN else ""
        stop(f"{lost.total()} records were lost in archives{more}; what else was read is stored", 1)


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.2f} MB"
