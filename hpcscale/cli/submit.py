"""`hpcscale submit`: any other command as a job on a Slurm cluster."""

import click

from hpcscale.cli import words
from hpcscale.cluster import slurm
from hpcscale.cluster import submit as submitting


@click.command()
@click.option(
    "--site", "name", metavar="NAME|FILE", help="Your cluster.  [$HPCSCALE_SITE, else your site.toml]"
)
@click.option("--nodes", type=click.IntRange(1, 100_000), default=1, show_default=True, metavar="N")
@click.option(
    "--ranks-per-node", type=click.IntRange(1, 1024), metavar="N", help="[default: one per GPU, else 1]"
)
@click.option("--time", metavar="TIME", help="Time limit, as for sbatch, e.g. 8:00:00.  [the site's]")
@click.option(
    "--after", multiple=True, metavar="JOB", help="Start only after this job has succeeded. Repeatable."
)
@click.option(
    "--after-any", multiple=True, metavar="JOB", help="Start only after this job has ended, well or not."
)
@click.option(
    "--array", metavar="SPEC", help="Share the work among N tasks; N%LIMIT: at most LIMIT at a time."
)
@click.option("--sbatch", multiple=True, metavar="OPTION",
              help="One more option for sbatch, e.g. --sbatch --exclusive. Repeatable.")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Print the job script and do nothing.")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def submit(  # an argument an option, as click calls it
    name: str | None,
    nodes: int,
    ranks_per_node: int | None,
    time: str | None,
    after: tuple[str, ...],
    after_any: tuple[str, ...],
    array: str | None,
    sbatch: tuple[str, ...],
    dry_run: bool,
    command: tuple[str, ...],
) -> None:
    """Run COMMAND as a job in the site's image; print its id.

    Example: hpcscale submit --nodes 4 -- train runs/a --config recipe.toml

    Its script, record, log and attempts lie in RUN/jobs; for a command that writes OUT, in OUT.job/jobs. The
    job requeues itself before its time limit and after failures, and goes on where it was.
    """
    request = submitting.Request(name, nodes, ranks_per_node, time, after, array, sbatch, after_any)
    run(command, request, dry_run)


def run(command: tuple[str, ...], request: submitting.Request, dry_run: bool = False) -> None:
    """Submit, and print the id. `resubmit` uses it too."""
    most = slurm.MAX_ARRAY_SIZE if dry_run or not request.array else slurm.max_array_size()
    submission = submitting.prepare(
        words.read(command, exists=not (request.after or request.after_any)), request, most
    )
    for line in submission.warnings:
        click.echo(line, err=True)
    if dry_run:
        click.echo(submission.text, nl=False)
    else:
        click.echo(submitting.submit(submission, lambda line: click.echo(line, err=True)))
