"""A study as a graph of Slurm jobs: what is missing is submitted, each job behind those that it needs.

In: cells and their states. Out: jobs. A training is a job of its own; the other cells of a stage are one
array, a cell a task. A job begins when those that it needs have ended, well or not: a task whose needs are
not there says so and ends, and a cell that failed stops nobody else.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from hpcscale.cluster import slurm
from hpcscale.cluster import submit as submitting
from hpcscale.cluster.submit import Command, Request
from hpcscale.progress import Say
from hpcscale.study.cells import Cell, Key
from hpcscale.study.definition import TRAIN, Study
from hpcscale.study.state import State

Read = Callable[[Sequence[str]], Command]  # the words of a command, whose files may not be there yet


def submit(
    study: Study,
    file: Path,
    cells: Mapping[Key, Cell],
    states: Mapping[Key, State],
    site: str | None,
    read: Read,
    say: Say,
) -> list[str]:
    """Submit what is neither done nor with Slurm, and return the jobs. Called in the folder of the file.
    Raises what cluster.submit does; what was submitted before stays, and is not submitted twice."""
    ids = {key: job for key, state in states.items() if (job := _job(state))}
    made = []
    for name, stage in study.stages.items():
        its = [cell for cell in cells.values() if cell.stage == name]
        wanted = [cell for cell in its if states[cell.key].word != "done" and cell.key not in ids]
        if not wanted:
            continue
        if wanted[0].words[0] == TRAIN:
            for cell in wanted:
                after = tuple(dict.fromkeys(ids[need] for need in cell.needs if need in ids))
                request = Request(site, stage.nodes, stage.ranks_per_node, stage.time, after_any=after)
                ids[cell.key] = _submit(cell.words, request, read, say)
                made.append(ids[cell.key])
                say(f"job {ids[cell.key]}: {name} {cell.name}")
            continue
        needs = (need for cell in wanted for need in cell.needs)
        after = tuple(dict.fromkeys(ids[need] for need in needs if need in ids))
        words = ("study", "share", str(file), name, "--out", str(study.out / name))
        request = Request(site, 1, None, stage.time, array=str(len(its)), after_any=after)
        job = _submit(words, request, read, say)
        ids |= dict.fromkeys((cell.key for cell in wanted), job)
        made.append(job)
        say(f"job {job}: {name}, {len(wanted)} cells")
    return made


def _job(state: State) -> str | None:
    return state.why.removeprefix("job ") if state.word in ("queued", "running") else None


def _submit(words: Sequence[str], request: Request, read: Read, say: Say) -> str:
    submission = submitting.prepare(read(words), request, slurm.max_array_size())
    for line in submission.warnings:
        say(line)
    return submitting.submit(submission, say)
