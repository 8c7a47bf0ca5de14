"""hpcscale study. Parse, call hpcscale.study, print."""

import contextlib
import fcntl
import json
import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hpcscale import files
from hpcscale.cli.terminal import AS_JSON, FILE, OUT_FOLDER, PART, Number, PlainPath

if TYPE_CHECKING:
    from hpcscale.cluster.submit import Command

STUDY = click.argument("file", metavar="STUDY.toml", type=PlainPath(dir_okay=False, path_type=Path))
SETS = click.option("--set", "changes", multiple=True, metavar="KEY=VALUE",
                    help="Override a key of the study, as given.data=packed/mine.")  # fmt: skip


def _say(line: str) -> None:
    click.echo(line, err=True)


@click.group()
def study() -> None:
    """Plan, run and report a whole study from one file."""


@study.command()
@STUDY
@SETS
@AS_JSON
def plan(file: Path, changes: tuple[str, ...], as_json: bool) -> None:
    """Print what a study would do, and do nothing.

    For each stage: its cells, how many are done, the jobs that are missing, and what trainings among them
    take: pictures that are read, GPU-hours (where [speed] states the pictures of one GPU a second), and disk
    for checkpoints. STUDY.toml is a file, or the name of one of the package.
    """
    from hpcscale.study import plan as planning

    with _opened(file, changes) as (definition, cells, states):
        found = planning.rows(definition, cells, states, _read)
    click.echo(json.dumps(planning.as_json(found)) if as_json else planning.as_text(found))


@study.command()
@STUDY
@SETS
@click.option("--here", is_flag=True, help="On this machine, one cell after another, instead of as jobs.")
@click.option("--ranks", type=click.IntRange(1, 1024), default=1, show_default=True,
              help="With --here: ranks of commands that share their work.")  # fmt: skip
@click.option("--site", metavar="NAME|FILE", help="Your cluster.  [$HPCSCALE_SITE, else your site.toml]")
def run(file: Path, changes: tuple[str, ...], here: bool, ranks: int, site: str | None) -> None:
    """Do, or submit, all of a study that is missing.

    The same command again does only what is missing, and tries again what failed. A line of STUDY.toml, or of
    a file that it names, that was changed has new cells made of all that depends on it; what was made before
    stays. A cell that fails stops those that need it, and no others. No process has to stay: what became of a
    study is in its folder.
    """
    from hpcscale.study import graph
    from hpcscale.study import here as one_by_one

    with _alone(file), _opened(file, changes) as (definition, cells, states):
        if here:
            one_by_one.run(cells, states, Path(), ranks, _say)
            return
        made = graph.submit(graph.Asked(definition, file.name, changes, site), cells, states, _read, _say)
    click.echo("\n".join(made) if made else "nothing is missing", err=not made)


@study.command()
@STUDY
@SETS
@AS_JSON
def status(file: Path, changes: tuple[str, ...], as_json: bool) -> None:
    """Print what became of every cell of a study.

    A row for each combination of values, a column for each stage; below, what each cell that is not done
    waits for or died of. Exit code 0, also where something failed.
    """
    from hpcscale.study import grid

    with _opened(file, changes) as (definition, cells, states):
        found = grid.as_json(cells, states) if as_json else grid.as_text(definition, cells, states)
    click.echo(json.dumps(found) if as_json else found)


@study.command("report")
@STUDY
@SETS
@click.option("--out", type=OUT_FOLDER, help="Folder of the report.  [default: OUT/report of the study]")
def report_(file: Path, changes: tuple[str, ...], out: Path | None) -> None:
    """Write what a study found: numbers, a figure, a forecast.

    Tells what [report] of STUDY.toml asks for: a metric of the trainings or transfers of one stage, means and
    standard errors over seeds, without near-duplicates too where they were searched. Over an axis of sizes:
    a figure, the papers' log-linear line, and what more pictures would bring, with an interval, or why that
    cannot be said. What is missing is told with its reason, so a study that has not ended has a report too.
    """
    from hpcscale.study import report

    with _opened(file, changes) as (definition, cells, states):
        place = Path(os.path.relpath(out, file.parent)) if out else definition.out / "report"
        written = report.write(definition, cells, states, place)
        click.echo(written.read_text(), nl=False)
    click.echo(file.parent / written)


@study.command()
@STUDY
@SETS
@click.argument("stage")
@click.option("--out", type=OUT_FOLDER, required=True, help="Folder of the stage; its jobs lie beside it.")
@PART
def share(file: Path, changes: tuple[str, ...], stage: str, out: Path, part: tuple[int, int] | None) -> None:
    """Run the cells of one stage that are missing, or a share of them.

    The tasks of the arrays that `study run` submits do this. A cell whose needs are not there is told, and
    the exit code is 1 in the end.
    """
    from hpcscale.study import here as one_by_one

    with _opened(file, changes) as (definition, cells, states):
        if stage not in definition.stages:
            raise click.UsageError(f"{stage!r:.80} is no stage; there are {', '.join(definition.stages)}")
        its = [cell for cell in cells.values() if cell.stage == stage]
        mine = its if part is None else its[part[0] :: part[1]]
        one_by_one.run({cell.key: cell for cell in mine}, states, Path(), 1, _say)


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
    from hpcscale.study import curve

    found = curve.forecast_file(points, at, level, chance)
    click.echo(json.dumps(curve.as_json(found)) if as_json else curve.as_text(found))


@contextlib.contextmanager
def _opened(file: Path, overrides: Sequence[str]) -> Iterator[tuple[Any, Any, Any]]:
    """The study, its cells and their states, in the folder of the file, from which its paths are. Of a study
    of the package, by its plain name, that is the working folder."""
    from hpcscale.study import cells, definition, state

    found = definition.load(file, overrides)
    before = Path.cwd()
    os.chdir(file.parent)
    try:
        every = cells.of_study(found, Path())
        yield found, every, state.of_cells(every, Path())
    finally:
        os.chdir(before)


@contextlib.contextmanager
def _alone(file: Path) -> Iterator[None]:
    """No other `study run` of this file at the same time. SIGTERM ends the work as Ctrl-C does."""
    from hpcscale import sections
    from hpcscale.study import definition

    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    with sections.find(file, definition.STUDIES).open("rb") as stream:
        try:
            files.lock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise files.Usage(f"{file}: another `study run` of it is at work") from None
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)


def _read(words: Sequence[str]) -> "Command":
    from hpcscale.cli import words as reading

    return reading.read(words, exists=False)
