"""hpcscale doctor: what on this machine would stop a job? Parse, call one function, print."""

import json
import sys
from pathlib import Path

import click

from hpcscale.cli.terminal import AS_JSON, FOLDER


@click.command()
@click.argument("folder", type=FOLDER, default=".")
@click.option(
    "--site", "name", metavar="NAME|FILE", help="Your cluster.  [$HPCSCALE_SITE, else your site.toml]"
)
@AS_JSON
def doctor(folder: Path, name: str | None, as_json: bool) -> None:
    """Find what would stop a job here, and how to mend it.

    Checks for jobs that are submitted from this machine and write into FOLDER. Run it on a login node, on a
    compute node (`srun hpcscale doctor`), and in an image (`apptainer exec IMAGE hpcscale doctor`). The exit
    code is 1 if something would stop a job.
    """
    from hpcscale.cluster import doctor as examining

    where = examining.locate()
    found = examining.examine(folder.absolute(), name, where)
    problems = sum(finding.state == "problem" for finding in found)
    if as_json:
        click.echo(
            json.dumps({"place": where, "problems": problems, "findings": [f._asdict() for f in found]})
        )
    else:
        click.echo(f"on a {where}" if where != "image" else "in an image")
        for finding in found:
            click.echo(f"{finding.state:<8} {finding.check}: {finding.found}")
            if finding.state != "ok":
                click.echo(f"{'':<8} -> {finding.advice}")
    sys.exit(1 if problems else 0)
