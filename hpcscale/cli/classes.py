"""hpcscale labels stats, noise: what classes hold, in numbers and in pictures.

Added to the group in labels.py. Parse, call one function, print.
"""

import json
from pathlib import Path
from typing import Any

import click

from hpcscale.cli.terminal import AS_JSON, FILE, FOLDER, OUT_FOLDER, Number, progress_bar


@click.command()
@click.argument("vocabulary", type=FILE)
@click.option("--data", type=FOLDER, required=True, help="Data set that `data ingest` wrote.")
@click.option("--sampling", "name", type=click.Choice(["natural", "sqrt", "uniform"]), default="natural",
              show_default=True, help="The one that the entropy is of.")  # fmt: skip
@click.option("--method", type=click.Choice(["repeat", "two-stage"]), default="repeat", show_default=True,
              help="How sqrt and uniform are sampled, as in [sampling] of a recipe.")  # fmt: skip
@click.option("--threshold", type=Number(0, 1, min_open=True), metavar="T",
              help="repeat: as in a recipe.  [default: median frequency of the classes]")  # fmt: skip
@click.option("--out", type=OUT_FOLDER, help="Folder for tables, plots and a row for every class.")
@AS_JSON
def stats(vocabulary: Path, data: Path, out: Path | None, as_json: bool, **sampling: Any) -> None:
    """Show the long tail: how often classes come in a data set.

    Counts the samples of every class of VOCABULARY, labels per picture before and after ancestors are added,
    depth and children of the hierarchy, pairs of classes on one picture, and how evenly classes are seen
    under each sampling. Samples without a class are told and not counted.
    """
    from hpcscale import config
    from hpcscale.data.store import open_data
    from hpcscale.labels.vocabulary import load
    from hpcscale.report import classes
    from hpcscale.samples.statistics import measure, own_rows

    if out is not None:
        classes.check(out, [vocabulary, data])
    labels, pictures = load(vocabulary), open_data(data)
    with progress_bar() as progress:
        rows = own_rows(pictures, pictures.tags, labels, progress)
        found = measure(rows, labels, config.Sampling(**sampling))
    if out is not None:
        about = f"{vocabulary} over {data}"
        classes.write(out, about, found.summary, found.columns)
    click.echo(json.dumps(found.summary, ensure_ascii=False) if as_json else classes.text(found.summary))
    if out is not None and not as_json:
        click.echo(f"\n{out / 'stats.md'}")
