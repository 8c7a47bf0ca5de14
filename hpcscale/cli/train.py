"""`hpcscale train`: start a run or go on with it, with one rank or several on this machine."""

from pathlib import Path

import click

from hpcscale.cli.terminal import ANY, OUT_FOLDER, RANKS, SETTINGS, start_ranks


@click.command()
@click.argument("run", type=OUT_FOLDER)
@click.option("--config", "file", required=True, type=ANY, help="Recipe, TOML.")
@SETTINGS
@RANKS
def train(run: Path, file: Path, overrides: tuple[str, ...], count: int) -> None:
    """Train RUN as a recipe says, or go on with it.

    Writes RUN/config.json, log.jsonl, checkpoints/ and evaluations/. Type the same command again to go on
    from the newest checkpoint. After SIGINT, SIGTERM or SIGUSR1 it saves a checkpoint and ends with exit code
    75. Other exit codes: 1, an error with a message, which would come again; 70, an unexpected error; 76,
    another rank was lost; 77, a step took far longer than those before it.
    """
    from hpcscale import config, tasks

    settings = tasks.load(file, overrides)
    config.samples_of_rank(settings, count)
    options = [word for override in overrides for word in ("--set", override)]
    start_ranks(count, "train", run, "--config", file, *options)

    from hpcscale.cli.outcome import of_a_rank
    from hpcscale.train import process

    with of_a_rank():
        process.keep_memory()
        if isinstance(settings, config.Config):
            from hpcscale.train import pretrain

            pretrain.train(settings, run)
        else:
            from hpcscale.dense import training

            training.train(settings, run)
