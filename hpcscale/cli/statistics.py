"""hpcscale labels stats, noise: what classes hold, in numbers and in pictures.

Added to the group in labels.py. Parse, call one function, print.
"""

import json
from pathlib import Path
from typing import Any

import click

from hpcscale.cli.terminal import AS_JSON, FILE, FOLDER, OUT, OUT_FOLDER, SELECTION, Number, progress_bar
from hpcscale.text import shown

SETS = ("validation", "held_out", "train")  # as config.SETS, which would make every help slow
SHOWN = 20  # pictures and classes that are named on stderr


@click.command()
@click.argument("vocabulary", type=FILE)
@click.option("--data", type=FOLDER, required=True, help="Data set that `data ingest` wrote.")
@click.option("--sampling", "name", type=click.Choice(["natural", "sqrt", "uniform"]), default="natural",
              show_default=True, help="The one that the entropy is of.")  # fmt: skip
@click.option("--method", type=click.Choice(["repeat", "two-stage"]), default="repeat", show_default=True,
              help="How sqrt and uniform are sampled, as in [sampling] of a recipe.")  # fmt: skip
@click.option("--threshold", type=Number(0, 1, min_open=True), metavar="T",
              help="repeat: as in a recipe.  [default: frequency of the most frequent class]")  # fmt: skip
@SELECTION
@click.option("--noise", type=Number(0, 1), default=0.0, metavar="P",
              help="Replace this share of the labels, as [noise] of a recipe does.")  # fmt: skip
@click.option("--out", type=OUT_FOLDER, help="Folder for tables, plots and a row for every class.")
@AS_JSON
def stats(
    vocabulary: Path,
    data: Path,
    selection: str | None,
    noise: float,
    out: Path | None,
    as_json: bool,
    **sampling: Any,
) -> None:
    """Show the long tail: how often classes come in a data set.

    Counts the samples of every class of VOCABULARY, labels per picture before and after ancestors are added,
    depth and children of the hierarchy, pairs of classes on one picture, and how evenly classes are seen
    under each sampling. Samples without a class are told and not counted. Of a selection, or with noise, the
    whole data set is told beside it.
    """
    from hpcscale import config
    from hpcscale.data.store import open_data
    from hpcscale.labels.vocabulary import load
    from hpcscale.report import classes
    from hpcscale.samples.selection import read
    from hpcscale.samples.statistics import Choice, of_data
    from hpcscale.sections import check

    if out is not None:
        classes.check(out, [vocabulary, data, Path(selection) if selection is not None else None])
    labels, pictures = load(vocabulary), open_data(data)
    with progress_bar() as progress:
        chosen = read(selection) if selection is not None else config.Selection()
        choice = Choice(check(config.Sampling, sampling, "sampling"), chosen, config.Noise(share=noise))
        found = of_data(pictures, labels, choice, progress)
    if out is not None:
        part = [f"selection {selection}"] * bool(selection) + [f"noise {noise:g}"] * bool(noise)
        about = ", ".join([f"{vocabulary} over {data}", *part])
        classes.write(out, about, found.summary, found.columns)
    click.echo(json.dumps(found.summary, ensure_ascii=False) if as_json else classes.text(found.summary))
    if out is not None and not as_json:
        click.echo(f"\n{out / 'stats.md'}")


@click.command()
@click.argument("run", type=FOLDER)
@click.option("--set", "which", type=click.Choice(SETS), default="train", show_default=True)
@click.option("--class", "names", multiple=True, metavar="CLASS",
              help="A class by name, tag or wnid; repeatable.  [default: the 20 most frequent]")  # fmt: skip
@click.option("--classes", "file", type=FILE, help="File of classes, one name, tag or wnid a line.")
@click.option("--clusters", type=click.IntRange(1, 100), default=5, show_default=True, metavar="K",
              help="Clusters of a class.")  # fmt: skip
@click.option("--bins", type=click.IntRange(1, 100), default=5, show_default=True, metavar="B",
              help="Bins of distance, of equally many pictures.")  # fmt: skip
@click.option("--tiles", type=click.IntRange(1, 1000), default=12, show_default=True, metavar="N",
              help="Pictures shown of a bin.")  # fmt: skip
@click.option("--most", type=click.IntRange(1, 10_000), default=500, show_default=True, metavar="N",
              help="Pictures used of a class.")  # fmt: skip
@click.option("--out", type=OUT, required=True, help="The page to write.")
def noise(run: Path, out: Path, which: Any, names: tuple[str, ...], file: Path | None, **look: int) -> None:
    """Write a page of each class's pictures, typical to odd.

    Features from the newest checkpoint of RUN, k-means within each class, and bins of the distance to the
    nearest centroid, as figure 2 of Sun et al. 2017: where labels are wrong, the last bins show it. Open the
    page in a browser; it is one file and needs no server.
    """
    from hpcscale.review.clusters import Look
    from hpcscale.review.noise import browse

    if names and file is not None:
        raise click.UsageError("name classes with --class or in a file with --classes, not both")
    with progress_bar() as progress:
        page = browse(run, out, which, file or names, Look(**look), progress)
    for bad in page.bad[:SHOWN]:
        click.echo(shown(f"{bad.name}: {bad.reason}"), err=True)
    if page.bad:
        click.echo(f"{len(page.bad)} pictures cannot be decoded and are left out", err=True)
    if page.too_few:
        few = ", ".join(page.too_few[:SHOWN]) + (", ..." if len(page.too_few) > SHOWN else "")
        click.echo(f"left out, too few pictures: {shown(few)}", err=True)
    click.echo(f"{out}: {len(page.classes)} classes, {page.pictures} pictures")
