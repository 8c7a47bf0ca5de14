"""`hpcscale papers`: the tables and figures of the three papers, listed and filled from run folders."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hpcscale.cli.terminal import AS_JSON, FILE, OUT, OUT_FOLDER

if TYPE_CHECKING:
    from hpcscale.study.papers import Table

PAPER = click.option(
    "--paper", type=click.Choice(["sun2017", "mahajan2018", "kolesnikov2020"]), help="Of this paper alone."
)


@click.group()
def papers() -> None:
    """Fill the papers' tables and figures from your runs.

    Sun et al. 2017 (JFT-300M), Mahajan et al. 2018 (Instagram), Kolesnikov et al. 2020 (BiT).
    """


@papers.command()
@PAPER
@AS_JSON
def tables(paper: str | None, as_json: bool) -> None:
    """Print the papers' tables with their numbers.

    Names of tables, rows and columns are those that `papers fill` takes.
    """
    from hpcscale.study import papers as kept

    found = kept.tables(paper)
    if as_json:
        click.echo(json.dumps([kept.as_json(table) for table in found.values()], indent=2))
    else:
        click.echo("\n\n".join(_text(table) for table in found.values()))


@papers.command()
@PAPER
@AS_JSON
def figures(paper: str | None, as_json: bool) -> None:
    """Print the papers' figures, their axes and families."""
    from hpcscale.study import papers as kept

    found = {
        name: figure
        for name, figure in kept.figures().items()
        if paper is None or name.startswith(f"{paper}-")
    }
    if as_json:
        click.echo(json.dumps({name: figure.model_dump() for name, figure in found.items()}, indent=2))
        return
    for name, figure in found.items():
        click.echo(f"{name}  {figure.title} ({figure.source})")
        click.echo(f"  x: {figure.x}; y: {figure.y}, {figure.metric}")
        if figure.places:
            click.echo(f"  places on the x axis: {'; '.join(figure.places)}")
        click.echo(f"  families: {'; '.join(figure.families)}")


@papers.command()
@click.argument("file", type=FILE)
@click.argument("out", type=OUT_FOLDER)
def fill(file: Path, out: Path) -> None:
    """Write the tables and figures that FILE names into OUT.

    FILE is TOML and says which run folders stand for what; paths are relative to it:

    \b
      [tables."sun2017-1"]
      "Fine-tune from JFT-300M" = ["runs/a", "runs/b"]   # a row, and its seeds
      [figures."sun2017-4-coco"."Fine-tuning"]
      "30M" = "runs/c"                                   # a point of a family

    `papers tables` and `papers figures` print the names. A run folder is a run that was evaluated, also of a
    detector, segmenter or pose, or a folder of `hpcscale transfer`, whose seeds all count.

    Writes OUT/TABLE.md, .csv, .tex: mean over seeds with its standard error, the paper's number, the
    difference, and, where near-duplicates were searched, the same without them. Writes OUT/FIGURE.csv, .svg,
    .png. What is missing is a dash with its reason below.
    """
    from hpcscale.study.outputs import fill as write

    for filled in write(file, out):
        click.echo(f"{filled.name}: {filled.there} {filled.of}, {filled.lacking} missing")
        for reason in filled.reasons:
            click.echo(f"  {reason}")
        for written in filled.files:
            click.echo(f"  {written}")


@papers.command()
@click.argument("figure")
@click.argument("points", type=FILE)
@click.argument("stem", type=OUT)
def draw(figure: str, points: Path, stem: Path) -> None:
    """Draw a FIGURE from a CSV of POINTS: STEM.svg and .png.

    POINTS has the columns family, place, x, y, seed, as `papers fill` writes them: y in per cent, place and
    seed any text, an x axis of pictures in pictures.
    """
    from hpcscale.study.outputs import draw as write

    for written in write(figure, points, stem):
        click.echo(written)


def _text(table: "Table") -> str:
    from hpcscale.report.tables import table as columns_of

    head = ["", *(f"{column} ({table.units[column]})" for column in table.columns)]
    rows = [
        [
            row,
            *(
                number.text if (number := table.numbers.get((row, column))) else None
                for column in table.columns
            ),
        ]
        for row in table.rows
    ]
    return f"{table.name}  {table.about.title} ({table.about.source})\n\n{columns_of(head, rows)}"
