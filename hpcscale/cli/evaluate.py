"""hpcscale evaluate. Parse, start ranks or call hpcscale.evaluate.evaluate_run, print the metrics."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import click

from hpcscale.cli.terminal import FOLDER
from hpcscale.config import SETS


@click.command()
@click.argument("run", type=FOLDER)
@click.option(
    "--set",
    "which",
    type=click.Choice(SETS),
    help="Samples to evaluate on.  [default: validation data if configured, else held_out, else train]",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option(
    "--ranks",
    "count",
    type=click.IntRange(1, 1024),
    default=1,
    show_default=True,
    help="Ranks to start on this machine.",
)
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
    from hpcscale import ranks

    if count > 1:
        if "HOROVOD_RANK" in os.environ:
            raise click.UsageError("--ranks: this process is a rank already (HOROVOD_RANK is set)")
        options = [f"--set={which}"] * bool(which) + [f"--batch={batch}"] * bool(batch) + ["--json"] * as_json
        command = [sys.executable, "-m", "hpcscale", "evaluate", str(run), *options]
        sys.exit(ranks.launch(command, count))

    from hpcscale.cli.outcome import of_a_rank
    from hpcscale.evaluate.classify import evaluate_run
    from hpcscale.report.tables import results

    with of_a_rank():
        ranks.init(run)
        folder = evaluate_run(run, which, batch)
    first = ranks.rank() == 0
    ranks.shutdown()
    if first:
        text = (folder / "metrics.json").read_text()
        found = json.loads(text)
        table = results(found["set"], found["step"], found["metrics"], found["baseline"])
        click.echo(text.rstrip() if as_json else f"{table}\n\n{folder}")
