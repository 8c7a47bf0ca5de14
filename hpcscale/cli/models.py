"""`hpcscale models`: the networks, and how large they are."""

import json
from typing import Any, get_args

import click

from hpcscale import config
from hpcscale.cli.terminal import AS_JSON
from hpcscale.models import complexity, memory

NAMES = get_args(config.Model.model_fields["name"].annotation)
CLASSES, SIDE = 1000, 224  # of the figures that papers print
COLUMNS = ("name", "parameters", "without classifier", "multiply-adds", "activations")


@click.group()
def models() -> None:
    """List the networks, and what each costs."""


@models.command("list")
@AS_JSON
def list_(as_json: bool) -> None:
    """List the networks: the names that a recipe's model.name may have.

    Numbers are in millions, with 1,000 classes, for a picture of 224 x 224 pixels. Activations are the
    numbers that convolutions write, as pycls and timm count them.
    """
    found = {name: complexity.sizes(config.Model(name=name), CLASSES, SIDE) for name in NAMES}
    if as_json:
        rows = [{"name": name, **sizes._asdict()} for name, sizes in found.items()]
        click.echo(json.dumps({"classes": CLASSES, "side": SIDE, "models": rows}))
        return
    table = [COLUMNS, *((name, *(f"{n / 1e6:,.1f}" for n in sizes)) for name, sizes in found.items())]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for name, *cells in table:
        rest = (cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True))
        click.echo("  ".join((name.ljust(widths[0]), *rest)))


@models.command()
@click.argument("name", type=click.Choice(NAMES), metavar="NAME")
@click.option("--classes", type=click.IntRange(1, 10**8), default=CLASSES, show_default=True)
@click.option("--side", type=click.IntRange(1, config.SIDE), default=SIDE, show_default=True,
              help="Side of a picture, pixels.")  # fmt: skip
@click.option("--stride", type=click.Choice(("3x3", "1x1")), default="3x3", show_default=True,
              help="As model.stride.")  # fmt: skip
@click.option("--output-stride", type=click.Choice(("32", "16", "8")), default="32", show_default=True,
              help="As model.output_stride.")  # fmt: skip
@click.option("--batch", type=click.IntRange(1, 10**8), default=32, show_default=True,
              help="Pictures of one rank at once.")  # fmt: skip
@click.option("--precision", type=click.Choice(list(memory.BYTES)), default="float32", show_default=True)
@click.option("--optimizer", type=click.Choice(list(memory.STATE)), default="sgd", show_default=True)
@click.option("--decay-to", type=click.Choice(("zero", "initial")), default="zero", show_default=True,
              help="As optimizer.decay_to.")  # fmt: skip
@click.option("--loss", type=click.Choice(("logistic", "softmax")), default="logistic", show_default=True)
@click.option("--slices", type=click.IntRange(1, 100_000), default=1, show_default=True,
              help="Ranks that divide the classifier, as model.slices = \"ranks\".")  # fmt: skip
@AS_JSON
def show(name: str, stride: str, output_stride: str, as_json: bool, **given: Any) -> None:
    """Show how large a network is, and the memory of a step.

    NAME is one that `models list` prints. All of it is computed from shapes, at once; no network is built.
    Multiply-adds and activations are of one picture; activations are the numbers that convolutions write, as
    pycls and timm count them. The memory is an estimate: docs/models.md says what is in it, and how near it
    was to what was measured.
    """
    model = config.Model.model_validate({"name": name, "stride": stride, "output_stride": int(output_stride)})
    step = memory.Step(**given)
    sizes, needed = complexity.sizes(model, step.classes, step.side), memory.needed(model, step)
    if as_json:
        whole = {key: getattr(model, key) for key in ("name", "stride", "output_stride")}
        whole |= {"classes": step.classes, "side": step.side, **sizes._asdict()}
        trained = {key: value for key, value in given.items() if key not in whole}
        told = {"bytes": needed._asdict() | {"total": needed.total}}
        click.echo(json.dumps(whole | {"step": trained | told}))
        return
    click.echo(f"{name}, {step.classes:,} classes, pictures of {step.side} x {step.side}")
    for word, number in sizes._asdict().items():
        click.echo(f"  {word.replace('_', ' '):<18}{number:>19,}")
    how = [step.precision, step.optimizer, step.loss]
    if step.decay_to == "initial":
        how.append("decay to the first weights")
    if step.slices > 1:
        how.append(f"classifier on {step.slices} ranks")
    click.echo(f"a training step of {step.batch} on one rank, {', '.join(how)}; MB")
    for word, size in (*needed._asdict().items(), ("total", needed.total)):
        click.echo(f"  {word:<18}{size / 1e6:>19,.1f}")
