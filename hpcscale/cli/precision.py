"""`hpcscale labels precision`: people look at drawn labels, and how many are right is measured.

Added to the group in labels.py. Parse, call one function, print.
"""

import json
from pathlib import Path

import click

from hpcscale.cli.terminal import ANY, AS_JSON, FILE, FOLDER, OUT, SELECTION, progress_bar, stop

SHOWN = 20  # missing pictures that are listed on stderr


@click.command()
@click.argument("data", type=FOLDER)
@click.option("--vocabulary", type=FILE, required=True, help="File that `labels build` wrote.")
@click.option("--sample", type=click.IntRange(1, 100_000), required=True, metavar="N",
              help="Labels to draw.")  # fmt: skip
@click.option("--seed", type=click.IntRange(-(2**63), 2**63 - 1), default=0, show_default=True,
              help="Another one draws other labels.")  # fmt: skip
@SELECTION
@click.option("--out", type=OUT, help="Write the page for reviewers here (HTML).")
@click.option("--decisions", type=FILE, multiple=True, help="Answers of a reviewer (JSONL); may be repeated.")
@click.option("--wordnet", type=ANY, help="Folder of WordNet, for definitions.  [/usr/share/wordnet]")
@AS_JSON
def precision(
    data: Path,
    vocabulary: Path,
    sample: int,
    seed: int,
    selection: str | None,
    out: Path | None,
    decisions: tuple[Path, ...],
    wordnet: Path | None,
    as_json: bool,
) -> None:
    """Measure how many labels of the data set DATA are right.

    First, with --out: draw N labels and write a web page that shows each with its picture. Keys: y yes, n no,
    c can't say, u takes back, j and k move; the page shows the others. It is one file, needs no server, and
    saves the answers to a file. With --decisions too, a reviewer goes on where those files end.

    Then, with --decisions of one or several reviewers, the same options and no --out: print the precision of
    each stratum (classes of like frequency) and of all labels, with an interval, and how far reviewers
    agree. Labels are pictures under the classes that their tags select; ancestors are left out.
    """
    if out is None and not decisions:
        raise click.UsageError("name --out to draw a page, or --decisions to measure")
    if out is None and wordnet is not None:
        raise click.UsageError("--wordnet is for the page and needs --out")

    from hpcscale.review import page
    from hpcscale.review import precision as measuring

    asked = measuring.Asked(data, vocabulary, sample, seed, selection)
    if out is None:
        with progress_bar() as progress:
            found = measuring.measure(asked, decisions, progress)
        click.echo(json.dumps(measuring.as_json(found)) if as_json else measuring.as_text(found))
        return
    with progress_bar() as progress:
        made = page.write(asked, out, decisions, wordnet, progress)
    strata, drawn = made.drawn.strata, len(made.drawn.labels)
    if as_json:
        listed = [stratum._asdict() for stratum in strata]
        click.echo(
            json.dumps({"id": made.drawn.id, "drawn": drawn, "strata": listed, "missing": made.missing})
        )
    else:
        labels = sum(stratum.labels for stratum in strata)
        size = out.stat().st_size / 1e6
        click.echo(f"{out}: {drawn} of {labels} labels in {len(strata)} strata, {size:.1f} MB")
    for name in made.missing[:SHOWN]:
        click.echo(f"{name!r}: cannot be decoded", err=True)
    if made.missing:
        stop(f"{out}: {len(made.missing)} pictures are missing on the page", 1)
