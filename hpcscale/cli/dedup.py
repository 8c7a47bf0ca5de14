"""hpcscale dedup: hash, print, embed, search, drop. Parse, call one function of hpcscale.dedup, print."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hpcscale.cli import review
from hpcscale.cli.terminal import FILE, OUT, OUT_FOLDER, PART, SOURCE, Number, progress_bar, stop
from hpcscale.text import shown

if TYPE_CHECKING:
    from hpcscale.data.codes import Codes

SHOWN = 20  # unreadable pictures that are listed on stderr; the file lists all


@click.group()
def dedup() -> None:
    """Find near-duplicates, and what they do to results."""


for command in (review.gallery, review.decisions, review.audit):
    dedup.add_command(command)


@dedup.command("hash")
@click.argument("source", type=SOURCE)
@click.argument("out", type=OUT)
@click.option("--method", type=click.Choice(["pdq", "phash", "dhash"]), default="pdq", show_default=True)
@click.option(
    "--workers", type=click.IntRange(1, 4096), metavar="N", help="Processes.  [default: one a core]"
)
@PART
def hash_(source: Path, out: Path, method: str, workers: int | None, part: tuple[int, int] | None) -> None:
    """Hash every picture of SOURCE into the file OUT.

    SOURCE is a data set from `hpcscale data ingest`, a folder of pictures (those that its manifest lists; if
    it has none, every file at any depth with a picture's ending), or a folder of .tar files.

    After an interruption or a kill, type the same command again: it goes on where it was. Pictures that
    cannot be read are listed, with the reason, in OUT and on stderr; the exit code is then 1.

    On a cluster, N array tasks with --part 0/N to (N-1)/N share the work, and write into OUT.parts. When they
    have ended, the command without --part does what is left, and joins all parts to OUT.
    """
    from hpcscale.dedup import hashes

    with progress_bar() as progress:
        codes = hashes.hash_source(source, out, method, workers, part, progress)
    if codes is None:
        return
    click.echo(f"{out}: {len(codes.names)} pictures, {codes.method}")
    _name_unreadable(out, codes)


def _name_unreadable(out: Path, codes: "Codes") -> None:
    """On stderr; exits with code 1 if there are any."""
    from hpcscale.data.codes import quarantined

    unreadable = codes.quarantine.tobytes().count(b"\n")
    for number, picture in enumerate(quarantined(codes)):
        if number == SHOWN:
            break
        click.echo(shown(f"{picture['name']}: {picture['reason']}"), err=True)
    if unreadable:
        more = f", {unreadable - SHOWN} more in its quarantine" if unreadable > SHOWN else ""
        stop(f"{out}: {unreadable} pictures could not be read{more}", 1)


@dedup.command("print")
@click.argument("out", type=FILE)
@click.option(
    "--quarantine", is_flag=True, help="Print the pictures without a hash instead: name and reason."
)
def print_(out: Path, quarantine: bool) -> None:
    """Print the file OUT of `dedup hash` as TSV: name, quality, hash.

    Hashes are hexadecimal: PDQ in Meta's text form, pHash and dHash as imagehash prints them. Only PDQ has a
    quality, 0 to 100; for the others it is 100. In names, backslash, tab, newline and carriage return are
    written \\\\, \\t, \\n and \\r, and other control characters \\uNNNN.
    """
    from hpcscale.data.codes import quarantined, read_codes
    from hpcscale.pairs import escape

    codes = read_codes(out)
    if codes.checkpoint and not quarantine:
        stop(f"{out}: holds embeddings, which have no text form", 2)
    if quarantine:
        for picture in quarantined(codes):
            _line(escape(picture["name"]), escape(picture["reason"]))
        return
    for name, quality, code in zip(codes.names, codes.quality, codes.codes, strict=True):
        _line(escape(name), str(quality), "".join(f"{word:016x}" for word in code.tolist()))


def _line(*cells: str) -> None:
    sys.stdout.buffer.write("\t".join(cells).encode("utf-8", "surrogateescape") + b"\n")


@dedup.command()
@click.argument("a", type=FILE)
@click.argument("b", type=FILE, required=False)
@click.option("--radius", type=click.IntRange(0), metavar="R",
              help="Bits that may differ, R included.  [default: pdq 31, phash and dhash 10]")  # fmt: skip
@click.option("--min-quality", type=click.IntRange(0, 100), metavar="Q",
              help="Leave out pictures of lower quality.  [default: 50 for pdq]")  # fmt: skip
@click.option(
    "--cosine", type=Number(-1, 1), metavar="T", help="Embeddings: pairs with a cosine of at least T."
)
@click.option("--neighbours", type=click.IntRange(1, 100_000), metavar="K",
              help="Embeddings: the K nearest of each picture.  [default without --cosine: 21]")  # fmt: skip
@click.option("--groups", is_flag=True, help="Within A: groups instead of pairs, see below.")
@click.option("--out", type=OUT, help="The file to write; a killed search can then go on.  [default: stdout]")
@click.option("--threads", type=click.IntRange(1, 1024), metavar="N", help="[default: one a core]")
@PART
def search(
    a: Path,
    b: Path | None,
    radius: int | None,
    min_quality: int | None,
    cosine: float | None,
    neighbours: int | None,
    groups: bool,
    out: Path | None,
    threads: int | None,
    part: tuple[int, int] | None,
) -> None:
    """Print all pairs of near-duplicates of A and B, or within A.

    A and B are files of `dedup hash`, or both of `dedup embed`. Printed are all pairs of a picture in A and
    one in B within the radius; without B, all pairs within A. Each line has name in A, name in B, and
    distance, separated by tabs; lines are sorted by the positions of the two pictures in their files. The
    search is exact. The distance of embeddings is 1 - cosine; neighbours come nearest first. OUT.json, beside
    OUT, says which pictures these are, for `dedup audit`.

    A thousand equal pictures are half a million pairs. With --groups, every picture except the first of its
    group gets one line: the first picture, this picture, and the distance of the two. `drop --side within`
    reads such lines too.

    On a cluster, N array tasks with --out and --part 0/N to (N-1)/N share the work, and write into OUT.parts.
    When they have ended, the command without --part does what is left, and writes OUT.
    """
    from hpcscale.dedup import search as searching
    from hpcscale.dedup import stars

    if groups and (b, cosine, neighbours, part) != (None,) * 4:
        raise click.UsageError("--groups is for one file of hashes, without --cosine, --neighbours or --part")
    near = searching.Near(radius, min_quality, cosine, neighbours)
    try:
        with progress_bar() as progress:
            if groups:
                found = stars.search_groups(a, out, near, threads, progress)
            else:
                found = searching.search(a, b, out, near, threads, progress, part)
    except KeyboardInterrupt:
        if out is None:
            stop("interrupted; with --out it could be resumed", 75)
        raise
    if part:
        click.echo(f"{out}: part {part[0]}/{part[1]}: {found.pairs} pairs")
        return
    if out:
        click.echo(f"{out}: {found.pairs} {'pictures beside the first of a group' if groups else 'pairs'}")
    for file, low in ((a, found.left_out_a), (b, found.left_out_b)):
        if file and low:
            click.echo(f"{file}: {low} pictures of too low quality left out, see --min-quality", err=True)


@dedup.command()
@click.argument("source", type=SOURCE)
@click.argument("out", type=OUT)
@click.option("--checkpoint", type=SOURCE, required=True,
              help="A run folder, whose newest is taken, or RUN/checkpoints/step-*.safetensors.")  # fmt: skip
@click.option("--pooling", type=click.Choice(["rmac", "mean"]), default="rmac", show_default=True)
@click.option("--batch", type=click.IntRange(1, 65536), default=32, show_default=True, metavar="N")
def embed(source: Path, out: Path, checkpoint: Path, pooling: str, batch: int) -> None:
    """Write a network's features of all pictures of a set to OUT.

    SOURCE is the data set. Pictures are cropped as in the run's evaluation. After an interruption or a kill,
    type the same command again: it goes on where it was. Pictures that cannot be decoded are listed in OUT
    and on stderr; the exit code is then 1.
    """
    from typing import cast

    from hpcscale.dedup import embeddings

    with progress_bar() as progress:
        found = embeddings.embed_source(
            source, out, checkpoint, cast(embeddings.Pooling, pooling), batch, progress
        )
    width = found.codes.shape[1]
    click.echo(f"{out}: {len(found.names)} pictures, {found.method}, {width} numbers each")
    _name_unreadable(out, found)


@dedup.command()
@click.argument("source", type=SOURCE)
@click.argument("out_dir", type=OUT_FOLDER)
@click.option("--samples", type=click.IntRange(2, 1_000_000), default=500, show_default=True, metavar="N")
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True, metavar="S")
@click.option("--embeddings", type=SOURCE, metavar="RUN",
              help="A run folder or checkpoint, whose features are measured too.")  # fmt: skip
@click.option(
    "--workers", type=click.IntRange(1, 4096), metavar="N", help="Processes.  [default: one a core]"
)
def calibrate(
    source: Path, out_dir: Path, samples: int, seed: int, embeddings: Path | None, workers: int | None
) -> None:
    """Measure on your own pictures which radius finds which changes.

    Makes changed copies of a sample of the pictures of SOURCE (JPEG, resizing, crops, borders, text and
    others). Writes, for each method and radius, how many copies it finds and how many false pairs, with a
    recommended radius, to calibration.md, .csv and .png in OUT_DIR.
    """
    from hpcscale.dedup.study import calibrate as study

    with progress_bar() as progress:
        found = study.calibrate(source, out_dir, samples, seed, embeddings, workers, progress)
    for curve in found.curves:
        radius = curve.recommended()
        advice = "no radius without false pairs" if radius is None else curve.shown(radius)
        click.echo(f"{curve.method}: {advice}")
    click.echo(str(out_dir / "calibration.md"))
    if found.unreadable:
        stop(f"{len(found.unreadable)} pictures could not be read, see calibration.md", 1)


@dedup.command()
@click.argument("pairs", type=FILE)
@click.option("--side", type=click.Choice(["a", "b", "within"]), required=True,
              help="Whose pictures are dropped; within: all but the first of every group.")  # fmt: skip
@click.option("--radius", type=Number(0), metavar="R", help="Only pairs up to this distance.")
@click.option("--decisions", type=FILE, help="Decisions of reviewers (JSONL): rejected pairs do not count.")
@click.option("--out", type=OUT, required=True, help="The list to write: one name a line.")
def drop(pairs: Path, side: str, radius: float | None, decisions: Path | None, out: Path) -> None:
    """Turn PAIRS into a list of the pictures to leave out.

    After `search TRAIN TEST`, --side a lists the training pictures that match a test picture; name the file
    as `data.drop` in a run's configuration. --side b lists the test pictures that match a training picture.
    After `search A`, --side within lists, of every group of connected pictures, all but the one that comes
    first in A.
    """
    from typing import cast

    from hpcscale.dedup import groups

    dropped = groups.drop(pairs, cast(groups.Side, side), out, radius, decisions)
    click.echo(f"{out}: {dropped} names")
