"""`hpcscale transfer raters export | import`: people judge wrong predictions, and accuracy is rectified.

Added to the group in transfer.py. Parse, call one function, print.
"""

import json
from pathlib import Path

import click

from hpcscale.cli.terminal import AS_JSON, FILE, FOLDER, OUT_FOLDER, progress_bar, stop
from hpcscale.config import SETS

SHOWN = 20  # missing pictures that are listed on stderr
SET = click.option("--set", "which", type=click.Choice(SETS),
                   help="Which evaluation of RUN.  [default: the first of these that RUN has]")  # fmt: skip
DATA = click.option("--data", type=FOLDER, help="Where the evaluated data set is, if it has moved.")


@click.group()
def raters() -> None:
    """Let people judge the wrong predictions: rectified accuracy."""


@raters.command()
@click.argument("run", type=FOLDER)
@click.argument("out", type=OUT_FOLDER)
@SET
@DATA
def export(run: Path, out: Path, which: str | None, data: Path | None) -> None:
    """Write the wrong predictions of an evaluation of RUN for raters.

    Into the folder OUT: page.html, on which people vote, and votes.csv, to fill in by other means. The page
    is one file, needs no server, and saves the votes as such a CSV. It asks whether the predicted class is in
    the picture and does not show the truth. Keys: y yes, n no, u takes back, j and k move.
    """
    from hpcscale.transfer import raters as rating

    with progress_bar() as progress:
        made = rating.export(run, out, which, data, progress)
    size = (out / rating.PAGE).stat().st_size / 1e6
    click.echo(f"{out / rating.PAGE}: {made.predictions} wrong predictions, {size:.1f} MB")
    click.echo(f"{out / rating.CSV}")
    for name in made.missing[:SHOWN]:
        click.echo(f"{name!r}: cannot be decoded", err=True)
    if made.missing:
        stop(f"{out / rating.PAGE}: {len(made.missing)} pictures are missing on the page", 1)


@raters.command("import")
@click.argument("run", type=FOLDER)
@click.argument("votes", type=FILE, nargs=-1)
@click.option("--least", type=click.IntRange(1, 1000), default=4, show_default=True, metavar="N",
              help="Yes votes that make a prediction correct.")  # fmt: skip
@click.option("--real", type=FILE, help="Reassessed labels of ImageNet's validation pictures (real.json).")
@click.option(
    "--classes", type=FILE, help="With --real: the class of RUN for each of ImageNet's 1,000, one a line."
)
@SET
@AS_JSON
def import_(
    run: Path,
    votes: tuple[Path, ...],
    least: int,
    real: Path | None,
    classes: Path | None,
    which: str | None,
    as_json: bool,
) -> None:
    """Print the accuracy of RUN, raw and rectified by VOTES.

    VOTES are CSV files of any number of raters, as `export` writes and its page saves them. A wrong
    prediction with at least N yes becomes correct. Reads what `hpcscale evaluate` kept, and writes nothing.

    With --real, also the accuracy by ImageNet's reassessed labels (ReaL), for pictures whose names hold
    ILSVRC2012_val_ and eight digits; VOTES may then be left out. Unless 1,000 classes of RUN have wnids as
    names, --classes says which is which.
    """
    if not votes and real is None:
        raise click.UsageError("name files of votes, or --real")
    if classes is not None and real is None:
        raise click.UsageError("--classes goes with --real")

    from hpcscale.transfer import outcomes, reassessed
    from hpcscale.transfer import raters as rating

    evaluation = outcomes.read(run, which)
    found = rating.rectify(evaluation, votes, least)
    again = reassessed.reassess(evaluation, real, classes) if real else None
    if as_json:
        click.echo(json.dumps({**rating.as_json(found), "real": again._asdict() if again else None}))
        return
    click.echo(rating.as_text(found))
    if again:
        click.echo(reassessed.as_text(again))
