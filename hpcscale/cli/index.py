"""hpcscale data index: what a recipe trains on, as a file."""

from pathlib import Path

import click

from hpcscale.cli.terminal import ANY, OUT, PART, SETTINGS, progress_bar


@click.command()
@click.argument("file", metavar="RECIPE", type=ANY)
@click.argument("out", type=OUT)
@SETTINGS
@PART
def index(file: Path, out: Path, overrides: tuple[str, ...], part: tuple[int, int] | None) -> None:
    """Write the file OUT, which says what a recipe trains on.

    A recipe that leaves samples out of more than ten million, or draws some more often than others, names it
    as data.index. It holds ids of samples, four bytes each: those that are trained on, and those of every
    class. Smaller sets do without: training finds the same out when it starts.

    On a cluster, N array tasks with --part 0/N to (N-1)/N share the work, and write into OUT.parts. When they
    have ended, the command without --part does what is left, and joins all parts to OUT. After an
    interruption or a kill, type the same command again.
    """
    from hpcscale import config
    from hpcscale.samples.make import make_index

    settings = config.load(file, overrides)
    with progress_bar() as progress:
        made = make_index(settings, out, part, progress)
    if made is None or part is not None:
        return
    click.echo(f"{out}: {made.samples.length} samples to train on, {made.held_out.length} held out")
    if made.tally.unlabelled:
        click.echo(f"{made.tally.unlabelled} samples have no class of the vocabulary", err=True)
