"""`hpcscale transfer mistakes`: every mistake of an evaluation on a page, and what differs from another run.

Added to the group in transfer.py. Parse, call one function, print.
"""

import json
from pathlib import Path

import click

from hpcscale.cli.raters import DATA, SET, SHOWN
from hpcscale.cli.terminal import AS_JSON, FILE, FOLDER, OUT, progress_bar, stop


@click.command()
@click.argument("run", type=FOLDER)
@click.argument("out", type=OUT, required=False)
@SET
@DATA
@click.option("--embeddings", type=FILE, help="Embedding file of the evaluated data set.")
@click.option("--training", type=FILE, help="Embedding file of the training data, by the same network.")
@click.option("--pictures", type=FOLDER, help="Data set that --training is of.  [default: data.train of RUN]")
@click.option("--nearest", type=click.IntRange(1, 20), default=3, show_default=True, metavar="N",
              help="Training pictures beside each mistake.")  # fmt: skip
@click.option("--against", type=FOLDER, metavar="RUN", help="Compare with another run on the same pictures.")
@click.option("--top", type=click.IntRange(1, 1_000_000), default=20, show_default=True, metavar="N",
              help="Classes and confusions that are listed.")  # fmt: skip
@AS_JSON
def mistakes(
    run: Path,
    out: Path | None,
    which: str | None,
    data: Path | None,
    embeddings: Path | None,
    training: Path | None,
    pictures: Path | None,
    nearest: int,
    against: Path | None,
    top: int,
    as_json: bool,
) -> None:
    """Show every mistake of RUN, and what differs from another run.

    OUT is a web page (HTML) with each picture, the prediction first, the truth second, and how sure it was;
    the surest come first. It is one file and needs no server. With --embeddings and --training (`dedup
    embed`), the training pictures nearest by cosine stand beside it.

    With --against, accuracies of each class in both runs are compared, with intervals of 95 % for paired
    proportions. Prints that and the most frequent confusions.
    """
    if (embeddings is None) != (training is None):
        raise click.UsageError("--embeddings and --training go together")
    if embeddings is not None and out is None:
        raise click.UsageError("--embeddings is for the page and needs OUT")

    from hpcscale.transfer import differences, outcomes
    from hpcscale.transfer import mistakes as galleries

    found = outcomes.read(run, which)
    compared = differences.compare(found, outcomes.read(against, found.set)) if against else None
    confused = differences.confusions(found)
    made = None
    if out is not None:
        near = None
        if embeddings and training:
            near = galleries.Neighbours(embeddings, training, pictures, nearest)
        with progress_bar() as progress:
            made = galleries.gallery(run, out, found.set, data, near, progress)
    if as_json:
        page = made._asdict() if made else None
        click.echo(json.dumps(differences.as_json(found, confused[:top], compared, page)))
    else:
        click.echo(differences.as_text(found, confused[:top], compared, top))
        if made:
            size = out.stat().st_size / 1e6 if out else 0.0
            click.echo(f"\n{out}: {made.mistakes} mistakes, {made.pictures} pictures, {size:.1f} MB")
    for name in made.missing[:SHOWN] if made else ():
        click.echo(f"{name!r}: cannot be decoded", err=True)
    if made and made.missing:
        stop(f"{out}: {len(made.missing)} pictures are missing on the page", 1)
