"""hpcscale report. Parse, call hpcscale.report.report, print the tables and the file."""

from pathlib import Path

import click

from hpcscale.cli.terminal import FOLDER, OUT


@click.command()
@click.argument("runs", nargs=-1, required=True, type=FOLDER)
@click.option(
    "--out",
    type=OUT,
    help="File for the comparison of several.  [default: comparison.md or transfers.md beside the first]",
)
def report(runs: tuple[Path, ...], out: Path | None) -> None:
    """Write RUN/report.md with figures, or compare RUNS.

    Folders of `hpcscale transfer` instead of runs: a table of pretraining by target, with and without
    near-duplicates; of searches, also the best score by number of trials, over all targets, as a figure. Runs
    of detectors and segmenters: COCO's and VOC's numbers or mIoU, by class, and pictures.

    Prints the results and the path of the report. Runs that have not finished get a report too, which says
    so.
    """
    from hpcscale.report import report as write
    from hpcscale.report import summary

    file = write(runs, out)
    click.echo(summary(runs))
    click.echo(file)
