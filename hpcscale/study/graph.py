"""A study as a graph of Slurm jobs: what is missing is submitted, each job behind those that it needs.

In: cells and their states. Out: jobs. A training is a job of its own; the other cells of a stage are one
array, a cell a task. A job begins when those that it needs have ended, well or not: a task whose needs are
not there says so and ends, and a cell that failed stops nobody else.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import click

from hpcscale.cluster import slurm
from hpcscale.cluster import submit as submitting
from hpcscale.cluster.submit import Command, Request
from hpcscale.files import Told, Usage
from hpcscale.progress import Say
from hpcscale.study.cells import Cell, Key
from hpcscale.study.definition import TRAIN, Study
from hpcscale.study.state import State

Read = Callable[[Sequence[str]], Command]  # the words of a command, whose files may not be there yet


class Asked(NamedTuple):
    """What `study run` was asked for."""

    study: Study
    file: str  # from the working folder
    overrides: Sequence[str]
    site: str | None


def submit(
    asked: Asked, cells: Mapping[Key, Cell], states: Mapping[Key, State], read: Read, say: Say
) -> list[str]:
    """Submit what is neither done nor with Slurm, and return the jobs. Called in the folder of the file.
    Raises what cluster.submit does; what was submitted before stays, and is not submitted twice."""
    for cell in cells.values():  # a command that is none is told before anything is submitted
        try:
            read(cell.words)
        except (click.UsageError, Told) as error:
            message = error.format_message() if isinstance(error, click.UsageError) else str(error)
            raise Usage(f"{' '.join(cell.key)}: hpcscale {' '.join(cell.words)}: {message}") from None
    ids = {key: job for key, state in states.items() if (job := _job(state))}
    made = []
    for name, stage in asked.study.stages.items():
        its = [cell for cell in cells.values() if cell.stage == name]
        wanted = [cell for cell in its if states[cell.key].word != "done" and cell.key not in ids]
        if not wanted:
            continue
        groups = [[cell] for cell in wanted] if wanted[0].words[0] == TRAIN else [wanted]
        for group in groups:
            needs = (need for cell in group for need in cell.needs)
            after = tuple(dict.fromkeys(ids[need] for need in needs if need in ids))
            if group[0].words[0] == TRAIN:
                words, title = group[0].words, group[0].name
                request = Request(asked.site, stage.nodes, stage.ranks_per_node, stage.time, after_any=after)
            else:
                words, title = _share(asked, name), f"{len(group)} cells"
                request = Request(asked.site, time=stage.time, array=str(len(its)), after_any=after)
            job = _submit(words, request, read, say)
            ids |= dict.fromkeys((cell.key for cell in group), job)
            made.append(job)
            say(f"job {job}: {name}, {title}")
    return made


def _share(asked: Asked, stage: str) -> tuple[str, ...]:
    """The command of the tasks of an array."""
    sets = (word for override in asked.overrides for word in ("--set", override))
    return ("study", "share", asked.file, stage, "--out", str(asked.study.out / stage), *sets)


def _job(state: State) -> str | None:
    return state.why.removeprefix("job ") if state.word in ("queued", "running") else None


def _submit(words: Sequence[str], request: Request, read: Read, say: Say) -> str:
    submission = submitting.prepare(read(words), request, slurm.max_array_size())
    for line in submission.warnings:
        say(line)
    return submitting.submit(submission, say)
