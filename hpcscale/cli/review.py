"""hpcscale dedup gallery, decisions, audit: people review pairs, and results are measured without them.

Added to the group in dedup.py. Parse, call one function, print.
"""

import json
import os
import sys
from pathlib import Path
from typing import cast

import click

from hpcscale.cli.terminal import AS_JSON, FILE, FOLDER, OUT, SOURCE, progress_bar, stop
from hpcscale.config import SETS

SHOWN = 20  # missing pictures and disputed pairs that are listed on stderr


@click.command()
@click.argument("pairs", type=FILE)
@click.argument("out", type=OUT)
@click.option("--a", type=SOURCE, required=True, metavar="SOURCE", help="Pictures of column A (training).")
@click.option(
    "--b", type=SOURCE, metavar="SOURCE", help="Pictures of column B (test).  [default: those of --a]"
)
@click.option("--decisions", type=FILE, help="Decisions made earlier, to start from.")
@click.option("--limit", type=click.IntRange(1, 10_000_000), default=10_000, show_default=True, metavar="N",
              help="Show only the N closest pairs.")  # fmt: skip
@click.option("--method", default="", metavar="TEXT", help="What the distances are, for example PDQ.")
def gallery(
    pairs: Path, out: Path, a: Path, b: Path | None, decisions: Path | None, limit: int, method: str
) -> None:
    """Write a web page on which people look at pairs and decide.

    PAIRS is a file of `dedup search`, OUT the page (HTML), SOURCE what was hashed: a data set, a folder of
    pictures, or tars. The page is one file and needs no server. It shows each picture of B beside its
    candidates in A. Keys: a accepts (the same picture), r rejects, u takes back, j and k move; the page shows
    the others. The page saves the decisions to a file (JSONL), which `dedup audit`, `dedup drop` and this
    command read, and which `dedup decisions merge` joins with others.
    """
    from hpcscale.dedup import gallery as galleries

    with progress_bar() as progress:
        made = galleries.gallery(pairs, out, galleries.Sources(a, b or a), decisions, limit, method, progress)
    click.echo(f"{out}: {made.pairs} pairs, {made.pictures} pictures, {out.stat().st_size / 1e6:.1f} MB")
    if made.pairs < made.found:
        click.echo(f"{pairs}: the {made.pairs} closest of {made.found} lines, see --limit", err=True)
    for name in made.missing[:SHOWN]:
        click.echo(f"{name!r}: not found or not readable", err=True)
    if made.missing:
        stop(f"{out}: {len(made.missing)} pictures are missing on the page", 1)


@click.group()
def decisions() -> None:
    """Files in which reviewers decided about pairs."""


@decisions.command()
@click.argument("files", type=FILE, nargs=-1, required=True)
@click.option("--out", type=OUT, required=True, help="JSONL.")
def merge(files: tuple[Path, ...], out: Path) -> None:
    """Join the decisions in FILES of several reviewers.

    Decisions on which all agree go to OUT. Pairs on which reviewers disagree stay undecided: they are printed
    as TSV (name in A, name in B, then "reviewer: decision" of each), and the exit code is 1. To settle them,
    open a gallery with --decisions OUT and show the undecided pairs.
    """
    from hpcscale import pairs
    from hpcscale.files import check_output, marked

    check_output(out, files, marked(json.dumps(pairs.WRITER)[1:-1].encode()))
    agreed, disputed = pairs.merge(files)
    pairs.write_decisions(out, agreed)
    for names, views in sorted(disputed.items()):
        said = [f"{view.reviewer}: {view.decision}" for view in sorted(views)]
        line = "\t".join(pairs.escape(cell) for cell in [*names, *said])
        sys.stdout.buffer.write(os.fsencode(line + "\n"))
    click.echo(f"{out}: {len(agreed)} decisions", err=True)
    if disputed:
        stop(f"{len(disputed)} pairs remain undecided, since reviewers disagree", 1)


@click.command()
@click.argument("run", type=FOLDER)
@click.option("--pairs", type=FILE, required=True, help="Pairs of training and test pictures (TSV).")
@click.option("--set", "which", type=click.Choice(SETS),
              help="Which evaluation of RUN.  [default: the first of these that RUN has]")  # fmt: skip
@click.option("--decisions", type=FILE, help="Decisions of reviewers (JSONL): rejected pairs do not count.")
@click.option("--test", "side", type=click.Choice(["a", "b", "either"]),
              help="The column of the test set, if the names do not tell; either: whichever of the two names "
                   "is in the test set.")  # fmt: skip
@AS_JSON
def audit(
    run: Path, pairs: Path, which: str | None, decisions: Path | None, side: str | None, as_json: bool
) -> None:
    """Print the metrics of RUN with and without near-duplicates.

    That is: on all samples, on those without a near-duplicate in the training data, and on the others alone;
    and a lower bound for the case that the others are all wrong.

    Reads what `hpcscale evaluate` kept of every sample; needs neither model nor pictures. Pairs that were
    found with other pictures of the same names are refused; PAIRS.json, which search wrote beside PAIRS, says
    which pictures they are. `hpcscale report` prints the same for pairs in RUN/pairs/SET.tsv, with
    SET.tsv.json beside it (decisions: RUN/pairs/SET.jsonl).
    """
    from hpcscale.dedup import audit as auditing
    from hpcscale.evaluate.leaks import LeakError, Side

    try:
        found = auditing.audit(run, pairs, which, decisions, cast(Side | None, side))
    except LeakError as error:
        hint = "; say it with --test" if "which is the test set" in str(error) else ""
        stop(f"{error}{hint}", 1)
    click.echo(json.dumps(auditing.as_json(found)) if as_json else auditing.as_text(found))
