"""`hpcscale transfer ...`: what pretraining bought. Commands with files of their own are attached here."""

from collections.abc import Callable
from typing import Any

import click

from hpcscale.cli.mistakes import mistakes
from hpcscale.cli.probe import probe
from hpcscale.cli.raters import raters
from hpcscale.cli.tasks import layout, sprites, tasks
from hpcscale.cli.terminal import ANY, AS_JSON, OUT_FOLDER, PART, RANKS, SETTINGS
from hpcscale.cli.transferring import run


@click.group()
def transfer() -> None:
    """Judge pretraining by what it brings to other tasks.

    SOURCE is a run, one of its checkpoints, a file of weights, or the word random.
    """


for command in (probe, tasks, layout, sprites, mistakes, raters):
    transfer.add_command(command)


SOURCE = click.argument("source", metavar="SOURCE")
FILE = click.option("--config", "file", required=True, type=ANY, help="What to transfer to, TOML.")
OUT = click.option(
    "--out", type=OUT_FOLDER, help="Folder for trials and result.  [default: transfers/CONFIG-COMMAND-SOURCE]"
)


def _options(*more: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def decorate(function: Any) -> Any:
        for option in reversed((SOURCE, FILE, SETTINGS, OUT, *more, RANKS, AS_JSON)):
            function = option(function)
        return function

    return decorate


@transfer.command()
@_options(PART)
def finetune(**options: Any) -> None:
    """Finetune SOURCE on a target, with a grid search.

    Every combination of [grid] is trained and judged on a held-out part of the training set; the best one
    then trains on all of it and is evaluated on target.test, which nothing opens before. Type the same
    command again to go on after a stop.

    On a cluster, `submit --array N` gives N tasks a share of the trials each; when they have ended, the
    command without --part does what they left, and the rest.
    """
    run("finetune", options)


@transfer.command()
@_options(PART)
def search(**options: Any) -> None:
    """Finetune SOURCE on a target, with a random search.

    Draws [search] trials (Kolesnikov et al. 2020: 40): learning rate, length, dropout, decay to the initial
    weights, MixUp and resolution. Otherwise as `transfer finetune`. OUT/curve.csv says how much more trials
    bring.
    """
    run("search", options)


@transfer.command()
@_options()
def hyperrule(**options: Any) -> None:
    """Finetune SOURCE on a target by BiT-HyperRule.

    The size of the training set and of its pictures decides resolution, length, learning rates and MixUp
    (Kolesnikov et al. 2020); [hyperrule] rule = "paper" or "code". What the file says stands instead, and is
    told.
    """
    run("hyperrule", options)
