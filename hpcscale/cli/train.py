"""`hpcscale train`: start a run, or go on with it; one rank, or several on this machine."""

from pathlib import Path

import click

from hpcscale.cli.terminal import ANY, OUT_FOLDER, RANKS, start_ranks


@click.command()
@click.argument("run", type=OUT_FOLDER)
@click.option("--config", "file", required=True, type=ANY, help="Recipe, TOML.")
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override one key of the recipe."
)
@RANKS
def train(run: Path, file: Path, overrides: tuple[str, ...], count: int) -> None:
    """Train as the recipe says and write RUN/config.json, log.jsonl, checkpoints/ and evaluations/.

    The same command again goes on from the newest checkpoint. After SIGINT, SIGTERM or SIGUSR1 it saves one
    and ends with exit code 75. Exit code 1: an error that was told and would come again; 70: one that nobody
    foresaw; 76: another rank was lost; 77: a step took far longer than those before.
    """
    from hpcscale import config

    settings = config.load(file, overrides)
    config.share(settings, count)
    options = [word for override in overrides for word in ("--set", override)]
    start_ranks(count, "train", run, "--config", file, *options)

    from hpcscale.cli.outcome import of_a_rank
    from hpcscale.train import loop, process

    with of_a_rank():
        process.keep_memory()
        loop.train(settings, run)
