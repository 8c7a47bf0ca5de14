"""`hpcscale status | logs | cancel | resubmit`: the jobs of a run, or of what a command wrote."""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import click

from hpcscale.cli import words
from hpcscale.cli.terminal import ANY
from hpcscale.cluster import jobs as reading
from hpcscale.cluster import slurm

FOLDER = click.argument("run", metavar="RUN", callback=lambda _, __, value: folder_of(value),
                        type=ANY)  # fmt: skip
JOB = click.option("--job", metavar="ID", help="[default: the newest]")
LOOK = 5.0  # seconds between two questions to Slurm


def folder_of(path: Path) -> Path:
    """A run, an OUT.job, or the OUT that it belongs to."""
    beside = words.beside(path)
    for folder in (path, beside):
        if (folder / "jobs").is_dir():
            return folder
    raise click.UsageError(f"{path}: has no jobs: neither {path / 'jobs'} nor {beside / 'jobs'} exists")


@click.command()
@FOLDER
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def status(run: Path, as_json: bool) -> None:
    """How far the newest job of RUN is: state, attempts, speed, time left, goodput.

    Goodput is the time of steps that count, divided by the time since the first attempt began.
    """
    found = _status(run)
    if as_json:
        click.echo(json.dumps(found))
        return
    for job in found["jobs"]:
        tasks = job["tasks"]
        done = (
            f", {sum(verdict == 'done' for verdict in tasks.values())} of {len(tasks)} begun tasks done"
            if tasks
            else ""
        )
        tries = f"{job['attempts']} attempt{'s' * (job['attempts'] != 1)}, {job['failures']} failed"
        if tasks:
            tries += f", {done} of {len(tasks)} begun tasks done"
        click.echo(f"job {job['job']}  {job['state']}  {' '.join(job['command'])}  ({tries})")
    if found["step"] is not None:
        click.echo(f"step {found['step']} of {found['steps']}, loss {found['loss']}, "
                   f"{found['samples_per_second']} samples/s")  # fmt: skip
    for name, title in (("time_left", "of the time limit left"), ("eta", "to the last step")):
        if found[name] is not None:
            click.echo(f"{_span(found[name])} {title}")
    if found["goodput"] is not None:
        click.echo(f"goodput {found['goodput']:.1%}")


@click.command()
@FOLDER
@click.option("-f", "--follow", is_flag=True, help="Go on until the job has ended, requeues included.")
@JOB
def logs(run: Path, follow: bool, job: str | None) -> None:
    """Print what the newest job of RUN wrote, all attempts; of an array, task after task."""
    job = job or _newest(run)
    read: dict[Path, int] = {}
    last: Path | None = None
    looked = 0.0
    over = not follow
    while True:
        for file in reading.logs(run, job):
            with file.open("rb") as stream:
                stream.seek(read.get(file, 0))
                text = stream.read()
            if not text:
                continue
            if last != file and "_" in file.name:
                click.echo(f"==> {file.name} <==")
            last, read[file] = file, read.get(file, 0) + len(text)
            sys.stdout.buffer.write(text)
            sys.stdout.flush()
        if over:  # known before the last look at the files
            return
        if time.monotonic() - looked > LOOK:
            looked = time.monotonic()
            over = reading.job_of(run, job, slurm.states([job]))["state"] not in slurm.ACTIVE
        time.sleep(0 if over else 0.5)


@click.command()
@FOLDER
@JOB
def cancel(run: Path, job: str | None) -> None:
    """End all jobs of RUN that wait or run, and print their ids."""
    chosen = [job] if job else reading.ids(run)
    active = sorted(reading.active(chosen), key=int)
    if active:
        slurm.cancel(active)
    for one in active:
        click.echo(one)
    if not active:
        click.echo(f"{run}: no job waits or runs", err=True)


@click.command()
@FOLDER
@JOB
@click.option("--dry-run", is_flag=True, help="Print the job script and do nothing.")
def resubmit(run: Path, job: str | None, dry_run: bool) -> None:
    """Submit the newest job of RUN once more, as it was asked for, and print the new id.

    A training goes on from its newest checkpoint, with the whole budget of retries. The site file and the
    image are read anew.
    """
    from hpcscale.cli import submit
    from hpcscale.cluster import submit as submitting

    submitted = [one for one in reading.ids(run) if reading.record(run, one)]
    if not (job or submitted):
        raise click.UsageError(f"{run}: none of its jobs was submitted by hpcscale submit")
    record: dict[str, Any] = reading.record(run, job or submitted[-1])
    if not record:
        raise click.UsageError(f"{run}: job {job} was not submitted by hpcscale submit")
    os.chdir(record["cwd"])
    submit.run(tuple(record["command"]), submitting.request_of(record), dry_run)


def _status(run: Path) -> dict[str, Any]:
    try:
        return reading.status(run)
    except FileNotFoundError as error:
        raise click.UsageError(str(error)) from None


def _newest(run: Path) -> str:
    found = reading.ids(run)
    if not found:
        raise click.UsageError(f"{run}: no job was submitted yet")
    return found[-1]


def _span(seconds: float) -> str:
    hours, rest = divmod(int(seconds), 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}"
