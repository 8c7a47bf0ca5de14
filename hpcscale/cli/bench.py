"""`hpcscale bench`: how fast a training would be on this machine, and what holds it up."""

import json
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from hpcscale.cli.terminal import ANY, AS_JSON, RANKS, SETTINGS, progress_bar, start_ranks


@click.command()
@click.argument("what", type=click.Choice(["loader", "step", "allreduce", "full"]))
@click.argument("file", metavar="[RECIPE]", required=False, type=ANY)
@SETTINGS
@RANKS
@click.option("--steps", type=click.IntRange(4, 1_000_000), default=20, show_default=True,
              help="Steps to time, rounded up to a multiple of 4; a quarter more warms up.")  # fmt: skip
@AS_JSON
def bench(
    what: str, file: Path | None, overrides: tuple[str, ...], count: int, steps: int, as_json: bool
) -> None:
    """Time the parts of a training on this machine.

    loader: stored pictures to batches. step: forward, backward, sums over ranks and update, on one batch in
    memory. allreduce: the sums of the gradients. full: each of these alone, then all together as in `train`,
    and by how much that is slower than the slower of loader and step.

    Without RECIPE, ResNet-50 at 224 pixels on made-up pictures: --set input.crop=64 and the like change it.
    Under srun name a RECIPE. Nothing is written but a temporary folder. GPUs are waited for before a clock is
    read; that was never run on one.

    Keys of --json: what, ranks, device, threads (of a rank), model, precision, compress, crop, batch, steps;
    for each part that was measured an object of its name: loader {samples_per_second}, allreduce {ms,
    megabytes (of float32 gradients), megabytes_per_second}, step and full {samples_per_second, ms, wait,
    compute, allreduce, rest (shares of a step's time)}; and of full, overhead {of_slower (of loader and
    step), of_step}, both as 0.1 for 10 % more time.
    """
    from hpcscale import config

    with ExitStack() as stack:
        if file is None:
            file = _made_up(Path(stack.enter_context(TemporaryDirectory(prefix="hpcscale-bench-"))), count)
        settings = config.load(file, overrides)
        config.samples_of_rank(settings, count)
        options = [word for override in overrides for word in ("--set", override)]
        options += ["--steps", str(steps), *["--json"] * as_json]
        start_ranks(count, "bench", what, file, *options)

        from hpcscale import ranks
        from hpcscale.bench import measure
        from hpcscale.cli.outcome import of_a_rank
        from hpcscale.train import process

        with of_a_rank():
            process.keep_memory()
            found = measure.measure(settings, what, steps, lambda part: click.echo(part, err=True))
            if ranks.rank():
                return
            if as_json:
                click.echo(json.dumps(found))
                return
            for name, value in measure.lines(found):
                click.echo(f"{name:<18}{value}")


def _made_up(folder: Path, count: int) -> Path:
    """A recipe of nobody for so many ranks: a rank has 8 pictures of a step on the CPU, 64 on a GPU."""
    import torch

    from hpcscale.bench import pictures

    with progress_bar() as progress:
        return pictures.make(folder, count * (64 if torch.cuda.is_available() else 8), progress)
