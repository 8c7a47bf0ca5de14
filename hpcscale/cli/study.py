"""`hpcscale study`: what more pictures, larger networks or other labels bring, over many runs.

A further command lies in a file of its own and is added below.
"""

import json
from pathlib import Path

import click

from hpcscale.cli.terminal import AS_JSON, FILE, Number


@click.group()
def study() -> None:
    """Forecast what more data would buy."""


@study.command()
@click.argument("points", type=FILE)
@click.option("--at", type=Number(min=0, min_open=True), multiple=True, required=True, metavar="N",
              help="Examples to forecast the error for; may be repeated.")  # fmt: skip
@click.option("--level", type=Number(min=0.5, max=0.99), default=0.8, show_default=True,
              help="Probability that the interval holds a new measurement.")  # fmt: skip
@click.option("--chance", type=Number(min=0, min_open=True, max=1), metavar="E0",
              help="Error of guessing.  [fitted, or 1 with few sizes]")  # fmt: skip
@AS_JSON
def forecast(points: Path, at: tuple[float, ...], level: float, chance: float | None, as_json: bool) -> None:
    """Forecast the error with more examples, with an interval.

    POINTS is a CSV with the columns examples and error, a share above 0 and at most 1. Each line is a trained
    network; lines with the same number of examples are seeds. At least five sizes are needed, the largest at
    least eight times the smallest, and N may be up to a hundred times the largest.

    The law is M4 (Alabdulmohsin et al. 2022), or with five sizes a power law with a floor. The interval
    comes from what forecasts of the largest sizes from the smaller ones missed. The line of the papers, error
    against the logarithm of examples, stands beside it: it is their figure, and no forecast.
    """
    from hpcscale.study import points as study_points

    found = study_points.forecast_file(points, at, level, chance)
    click.echo(json.dumps(study_points.as_json(found)) if as_json else study_points.as_text(found))
