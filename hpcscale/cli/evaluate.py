"""hpcscale evaluate. Parse, start ranks or call hpcscale.evaluate.evaluate_run, print the metrics."""

import json
from pathlib import Path
from typing import Any

import click

from hpcscale.cli.terminal import AS_JSON, FOLDER, RANKS, start_ranks
from hpcscale.config import SETS


@click.command()
@click.argument("run", type=FOLDER)
@click.option(
    "--set",
    "which",
    type=click.Choice(SETS),
    help="Samples to evaluate on.  [default: validation data if configured, else held_out, else train]",
)
@AS_JSON
@RANKS
@click.option(
    "--batch",
    type=click.IntRange(1, 65536),
    metavar="N",
    help="Samples of a rank at a time.  [default: as in training]",
)
def evaluate(run: Path, which: Any, as_json: bool, count: int, batch: int | None) -> None:
    """Evaluate the newest checkpoint of RUN.

    Prints its metrics beside those of a baseline that only knows how frequent each class is. Writes
    RUN/evaluations/<set>-<step>/, which `hpcscale report` reads.
    """
    options = [f"--set={which}"] * bool(which) + [f"--batch={batch}"] * bool(batch) + ["--json"] * as_json
    start_ranks(count, "evaluate", run, *options)

    from hpcscale import config, ranks
    from hpcscale.cli.outcome import of_a_rank
    from hpcscale.evaluate.classify import evaluate_run
    from hpcscale.report.tables import results

    with of_a_rank():
        ranks.init(run, config.read(run / "config.json").ranks.backend)
        folder = evaluate_run(run, which, batch)
    first = ranks.rank() == 0
    ranks.shutdown()
    if first:
        text = (folder / "metrics.json").read_text()
        found = json.loads(text)
        table = results(found["set"], found["step"], found["metrics"], found["baseline"])
        click.echo(text.rstrip() if as_json else f"{table}\n\n{folder}")
