"""`hpcscale transfer ...`: what pretraining bought. Commands with files of their own are attached here."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from hpcscale.cli.mistakes import mistakes
from hpcscale.cli.raters import raters
from hpcscale.cli.tasks import layout, sprites, tasks
from hpcscale.cli.terminal import ANY, AS_JSON, OUT_FOLDER, PART, RANKS, SETTINGS, start_ranks


@click.group()
def transfer() -> None:
    """Judge pretraining by what it brings to other tasks.

    SOURCE is a run, one of its checkpoints, a file of weights, or the word random.
    """


for command in (tasks, layout, sprites, mistakes, raters):
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
    _run("finetune", options)


@transfer.command()
@_options(PART)
def search(**options: Any) -> None:
    """Finetune SOURCE on a target, with a random search.

    Draws [search] trials (Kolesnikov et al. 2020: 40): learning rate, length, dropout, decay to the initial
    weights, MixUp and resolution. Otherwise as `transfer finetune`. OUT/curve.csv says how much more trials
    bring.
    """
    _run("search", options)


@transfer.command()
@_options()
def hyperrule(**options: Any) -> None:
    """Finetune SOURCE on a target by BiT-HyperRule.

    The size of the training set and of its pictures decides resolution, length, learning rates and MixUp
    (Kolesnikov et al. 2020); [hyperrule] rule = "paper" or "code". What the file says stands instead, and is
    told.
    """
    _run("hyperrule", options)


def _run(method: str, options: dict[str, Any]) -> None:
    """Parse, start ranks, call the method, and print what it says. options: as _options gives them."""
    from hpcscale.transfer import settings
    from hpcscale.transfer.source import find

    file, overrides, part = options["file"], options["overrides"], options.get("part")
    source = find(options["source"])
    plan = settings.load(file, overrides, source, method)
    out = options["out"] or Path("transfers") / f"{file.stem}-{method}-{source.name}"
    words: list[str | Path] = [word for override in overrides for word in ("--set", override)]
    words += [
        "--out",
        out,
        *(["--json"] * options["as_json"]),
        *([f"--part={part[0]}/{part[1]}"] if part else []),
    ]
    start_ranks(options["count"], "transfer", method, options["source"], "--config", file, *words)

    from hpcscale import ranks
    from hpcscale.cli.outcome import of_a_rank
    from hpcscale.report.transfers import summary
    from hpcscale.train import process
    from hpcscale.transfer.bit import hyperrule
    from hpcscale.transfer.finetune import finetune
    from hpcscale.transfer.linear import probe
    from hpcscale.transfer.search import search

    methods = {"finetune": finetune, "hyperrule": hyperrule, "probe": probe, "search": search}
    with of_a_rank():
        process.keep_memory()
        ranks.init(out, plan.backend)
        said = methods[method](plan, out, part)
    if ranks.rank() == 0 and said is not None:
        text = json.dumps(said, indent=2, default=str)
        click.echo(text if options["as_json"] else f"{summary([said])}\n\n{out}")
