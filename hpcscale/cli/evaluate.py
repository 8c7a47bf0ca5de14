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
    RUN/evaluations/<set>-<step>/, which `hpcscale report` reads. Of a detector or segmenter: on its
    data.validation, without a baseline; with COCO's numbers, VOC's where the data are VOC's, or mIoU.
    """
    options = [f"--set={which}"] * bool(which) + [f"--batch={batch}"] * bool(batch) + ["--json"] * as_json
    start_ranks(count, "evaluate", run, *options)

    from hpcscale import config, ranks, tasks
    from hpcscale.cli.outcome import of_a_rank

    with of_a_rank():
        settings = tasks.read(run / "config.json")
        ranks.init(run, settings.ranks.backend)
        if isinstance(settings, config.Config):
            from hpcscale.evaluate.classify import evaluate_run

            folder = evaluate_run(run, which, batch)
        else:
            from hpcscale.dense import training

            if batch or which not in (None, "validation"):
                raise config.ConfigError(
                    f"{run}: a dense task is evaluated on data.validation, one at a time"
                )
            folder = training.evaluate_run(run)
    first = ranks.rank() == 0
    ranks.shutdown()
    if first:
        from hpcscale.report import tables

        text = (folder / "metrics.json").read_text()
        found = json.loads(text)
        if isinstance(settings, config.Config):
            table = tables.results(found["set"], found["step"], found["metrics"], found["baseline"])
        else:
            table = tables.table(
                ["", "model"], ([key, tables.number(value)] for key, value in found["metrics"].items())
            )
        click.echo(text.rstrip() if as_json else f"{table}\n\n{folder}")
