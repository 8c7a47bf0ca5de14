"""`hpcscale data plan`: what each rank of a run will read."""

import json
from pathlib import Path

import click

from hpcscale.cli.terminal import ANY, AS_JSON, SETTINGS, Number


@click.command()
@click.argument("file", metavar="RECIPE", type=ANY)
@click.option("--ranks", "count", required=True, type=click.IntRange(1, 100_000), help="Ranks of the run.")
@SETTINGS
@click.option("--steps", type=click.IntRange(1, 1_000_000), help="Steps to plan.  [default: 100]")
@click.option("--bandwidth", type=Number(min=0, min_open=True), metavar="MB",
              help="MB/s that all ranks get together, for seconds.")  # fmt: skip
@AS_JSON
def plan(
    file: Path,
    overrides: tuple[str, ...],
    count: int,
    steps: int | None,
    bandwidth: float | None,
    as_json: bool,
) -> None:
    """Show what each rank of a run will read.

    The first 100 steps of the recipe are planned, or an epoch if that is shorter. Bytes are those of the
    samples, by the mean of their shards, since no picture is looked at. A block is data.block consecutive
    samples; without that key, a sample. The length is how many samples Mahajan et al. 2018 would have a run
    over so many pictures process.
    """
    from hpcscale import config
    from hpcscale.data.store import open_data
    from hpcscale.inputs.plan import lines, reads
    from hpcscale.samples.chosen import choose, open_vocabulary
    from hpcscale.train import schedule

    settings = config.load(file, overrides)
    config.samples_of_rank(settings, count)
    opened = open_data(settings.data.train)
    chosen = choose(settings, opened, open_vocabulary(settings))
    found = reads(settings, opened, chosen.order, count, steps, bandwidth)
    pictures = chosen.samples.length
    if as_json:
        values = {**found._asdict(), "samples_of_run": schedule.samples_of_run(pictures)}
        click.echo(json.dumps(values | {"ranks": [rank._asdict() for rank in found.ranks]}))
        return
    length = schedule.length(pictures, settings.train.batch)
    for name, value in [*lines(found), ("length by the paper", length)]:
        click.echo(f"{name:<24}{value}")
