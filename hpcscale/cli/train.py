"""`hpcscale train`: start a run, or go on with it; one rank, or several on this machine."""

import os
import sys
from pathlib import Path

import click


@click.command()
@click.argument("run", type=click.Path(path_type=Path, file_okay=False))
@click.option("--config", "file", required=True, type=click.Path(path_type=Path), help="Recipe, TOML.")
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override one key of the recipe."
)
@click.option(
    "--ranks", "count", type=click.IntRange(1), default=1, show_default=True, help="Ranks to start here."
)
def train(run: Path, file: Path, overrides: tuple[str, ...], count: int) -> None:
    """Train as the recipe says and write RUN/config.json, log.jsonl, checkpoints/ and evaluations/.

    The same command again goes on from the newest checkpoint. After SIGINT, SIGTERM or SIGUSR1 it saves one
    and ends with exit code 75.
    """
    from hpcscale import config, ranks

    try:
        settings = config.load(file, overrides)
    except config.ConfigError as error:
        raise click.UsageError(str(error)) from None
    if count > 1:
        if "HOROVOD_RANK" in os.environ:
            raise click.UsageError("--ranks: this process is a rank already (HOROVOD_RANK is set)")
        if settings.train.batch % count:
            raise click.UsageError(
                f"--ranks: train.batch is {settings.train.batch}, not a multiple of {count}"
            )
        options = [word for override in overrides for word in ("--set", override)]
        command = [sys.executable, "-m", "hpcscale", "train", str(run), "--config", str(file), *options]
        sys.exit(ranks.launch(command, count))

    from hpcscale.checkpoint import CheckpointError
    from hpcscale.data.store import DataError
    from hpcscale.evaluate import EvaluateError
    from hpcscale.labels.vocabulary import VocabularyError
    from hpcscale.train import folder, loop, state

    try:
        loop.train(settings, run)
    except config.ConfigError as error:
        raise click.UsageError(str(error)) from None
    except loop.Interrupted as stop:
        click.echo(str(stop), err=True)
        sys.exit(ranks.RESUMABLE)
    except ranks.RankLost as error:
        click.echo(str(error), err=True)
        sys.exit(ranks.LOST)
    except (
        CheckpointError,
        DataError,
        EvaluateError,
        VocabularyError,
        folder.RunError,
        state.Diverged,
    ) as error:
        raise click.ClickException(str(error)) from None
