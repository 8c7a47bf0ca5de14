"""`hpcscale status | logs | cancel | resubmit`: the jobs of a run, or of another command's output."""

import functools
import json
import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from hpcscale.cli import words
from hpcscale.cli.terminal import ANY, AS_JSON
from hpcscale.cluster import jobs as reading
from hpcscale.cluster import records, slurm

RUN = click.argument("run", metavar="RUN", callback=lambda _, __, value: folder_of(value),
                        type=ANY)  # fmt: skip
JOB = click.option("--job", metavar="ID", callback=lambda _, __, value: job_id(value),
                   help="A job, or one task of an array, ID_TASK.  [default: the newest job]")  # fmt: skip
LOOK = 5.0  # seconds between two questions to Slurm


def folder_of(path: Path) -> Path:
    """The folder of the jobs: `path` is a run, an OUT.job, or the OUT that OUT.job belongs to."""
    beside = words.beside(path)
    for folder in (path, beside):
        if (folder / "jobs").is_dir():
            return folder
    raise click.UsageError(f"{path}: has no jobs: neither {path / 'jobs'} nor {beside / 'jobs'} exists")


def job_id(text: str | None) -> str | None:
    if text is not None and not re.fullmatch(slurm.ID, text):
        raise click.BadParameter(
            f"'{text}': expected the id of a job, as 12, or of a task of an array, as 12_3"
        )
    return text


def settled(command: Callable[..., None]) -> Callable[..., None]:
    """Let a command begin by finding the job of every submission to RUN that was cut off."""

    @functools.wraps(command)
    def run(run: Path, **options: Any) -> None:
        try:
            records.settle(run, say)
        except slurm.SlurmError as error:
            say(f"{run}: a submission is open, and {error}")
        command(run, **options)

    return run


def say(line: str) -> None:
    click.echo(line, err=True)


@click.command()
@RUN
@AS_JSON
@settled
def status(run: Path, as_json: bool) -> None:
    """Show how far the newest job of RUN is.

    Prints its state, attempts, speed, time left and goodput. Goodput is the time spent on steps that count
    (none twice), divided by the time since the first attempt began.
    """
    found = _status(run)
    if as_json:
        click.echo(json.dumps(found))
    else:
        _print(found)
    if damaged := [job["damage"] for job in found["jobs"] if job["damage"]]:
        raise click.ClickException("\n".join(damaged))


def _print(found: dict[str, Any]) -> None:
    for job in found["jobs"]:
        tries = f"{job['attempts']} attempt{'s' * (job['attempts'] != 1)}, {job['failures']} failed"
        if verdicts := list(job["tasks"].values()):
            tries += f", {verdicts.count('done')} of {len(verdicts)} begun tasks done"
        why = f" ({job['reason']})" if job["reason"] else ""
        click.echo(f"job {job['job']}  {job['state']}{why}  {' '.join(job['command'])}  ({tries})")
        for node, because in job["excluded"].items():
            click.echo(f"  without node {node}: {because}")
        if job["refused"]:
            click.echo(f"  Slurm did not requeue it: {job['refused']}; `hpcscale resubmit` goes on")
    if found["step"] is not None:
        click.echo(f"step {found['step']} of {found['steps']}, loss {found['loss']}, "
                   f"{found['samples_per_second']} samples/s")  # fmt: skip
    for name, title in (("time_left", "of the time limit left"), ("eta", "to the last step")):
        if found[name] is not None:
            click.echo(f"{_span(found[name])} {title}")
    if found["goodput"] is not None:
        click.echo(f"goodput {found['goodput']:.1%}")


@click.command()
@RUN
@click.option("-f", "--follow", is_flag=True, help="Go on until the job has ended, requeues included.")
@JOB
@settled
def logs(run: Path, follow: bool, job: str | None) -> None:
    """Print the log of the newest job of RUN.

    Of all its attempts; of an array, one task after the other.
    """
    job = _own(run, job) if job else _newest(run)
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
            if sys.stdout.isatty():
                click.echo(text.decode(errors="surrogateescape"), nl=False)
            else:
                sys.stdout.buffer.write(text)
            sys.stdout.flush()
        if over:  # known before the last look at the files
            return
        if time.monotonic() - looked > LOOK:
            looked = time.monotonic()
            over = _over(run, job)
        time.sleep(0 if over else 0.5)


@click.command()
@RUN
@JOB
@settled
def cancel(run: Path, job: str | None) -> None:
    """End the jobs of RUN that wait or run.

    All of them, or the one named by --job. Prints their ids.
    """
    active = reading.active([_own(run, job)] if job else reading.ids(run))
    chosen = sorted(active, key=lambda one: [int(part) for part in one.split("_")])
    if chosen:
        slurm.cancel(chosen)
    for one in chosen:
        click.echo(one)
    if not chosen:
        click.echo(f"{run}: no job waits or runs", err=True)


@click.command()
@RUN
@JOB
@click.option("--dry-run", is_flag=True, help="Print the job script and do nothing.")
@settled
def resubmit(run: Path, job: str | None, dry_run: bool) -> None:
    """Submit the newest job of RUN again, with its options.

    Prints the id of the new job. A training goes on from its newest checkpoint, with all its retries. The
    site file and the image are read anew.
    """
    from hpcscale.cli import submit
    from hpcscale.cluster import submit as submitting

    if job is None:
        job = next((one for one in reversed(reading.ids(run)) if records.read(run, one)), None)
        if job is None:
            raise click.UsageError(f"{run}: none of its jobs was submitted by hpcscale submit")
    if "_" in job:
        raise click.UsageError(
            f"--job {job}: tasks are submitted as the whole array, {job.partition('_')[0]}"
        )
    record = records.read(run, _own(run, job))
    if not record:
        raise click.UsageError(f"{run}: job {job} was not submitted by hpcscale submit")
    request = submitting.request_of(record)
    try:
        os.chdir(record["cwd"])
    except OSError as error:
        raise click.ClickException(
            f"{record['cwd']}, where job {job} was submitted: {error.strerror}; submit it anew"
        ) from None
    submit.run(tuple(record["command"]), request, dry_run)


def _status(run: Path) -> dict[str, Any]:
    try:
        return reading.status(run)
    except FileNotFoundError as error:
        raise click.UsageError(str(error)) from None


def _own(run: Path, job: str) -> str:
    """The job, if it belongs to RUN; other jobs are never touched."""
    known = reading.ids(run)
    if job.partition("_")[0] not in known:
        raise click.UsageError(f"--job {job}: {run} has no such job, but {', '.join(known) or 'none'}")
    return job


def _over(run: Path, job: str) -> bool:
    """Whether a job, or a task of an array, has ended."""
    tries = {name: task for name, task in reading.attempts(run, job.partition("_")[0]).items()
             if job in (name, name.partition("_")[0])}  # fmt: skip
    return reading.state(tries, slurm.states([job])) not in slurm.ACTIVE


def _newest(run: Path) -> str:
    found = reading.ids(run)
    if not found:
        raise click.UsageError(f"{run}: no job was submitted yet")
    return found[-1]


def _span(seconds: float) -> str:
    hours, rest = divmod(int(seconds), 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}"
