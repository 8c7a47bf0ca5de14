"""`hpcscale data list`: the data sets that have a name."""

import json
from typing import TYPE_CHECKING

import click

from hpcscale.cli.terminal import AS_JSON
from hpcscale.text import shown

if TYPE_CHECKING:
    from hpcscale.samples.listing import Listed

COLUMNS = ("name", "samples", "selected", "classes", "fits", "selection", "data")
FITS = {None: "-", True: "yes", False: "no"}


@click.command("list")
@AS_JSON
def list_(as_json: bool) -> None:
    """List the data sets of the catalogue.

    A catalogue is a TOML file that says what a name such as train-IG-940M-1.5k stands for; recipes may then
    say data.train = "train-IG-940M-1.5k". It is the file in $HPCSCALE_CATALOGUE, else catalogue.toml here.

    Columns: samples of the packed set; selected, those of the selection, before samples without a class are
    left out; classes of the vocabulary; fits, whether the numbers in the name are selected and classes,
    rounded. What is not known is "-", such as how many samples a list of classes selects. What is wrong is
    told on stderr.

    JSON: catalogue, and entries; each has these columns, vocabulary, there (whether data is a packed set) and
    warnings; null is what is not known.
    """
    from hpcscale import catalogue
    from hpcscale.samples.listing import listed

    found = catalogue.read(catalogue.needed())
    rows = list(listed(found))
    if as_json:
        entries = [row._asdict() for row in rows]
        click.echo(json.dumps({"catalogue": str(found.file), "entries": entries}))
        return
    table = [COLUMNS, *map(_cells, rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for line in table:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        click.echo("  ".join(cells).rstrip())
    for row in rows:
        for warning in row.warnings:
            click.echo(f"{row.name}: {warning}", err=True)


def _cells(row: "Listed") -> tuple[str, ...]:
    numbers = ("-" if n is None else f"{n:,}" for n in (row.samples, row.selected, row.classes))
    return (row.name, *numbers, FITS[row.fits], shown(row.selection), shown(row.data))
