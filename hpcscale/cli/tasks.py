"""hpcscale transfer tasks, layout, sprites: VTAB's table and scores, and its data as people have it.

Added to the group in transfer.py. Parse, call one function, print.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hpcscale.cli.terminal import AS_JSON, FILE, FOLDER, OUT_FOLDER, progress_bar

if TYPE_CHECKING:
    from hpcscale.transfer.vtab.scores import Scores


@click.command()
@click.option("--scores", "file", type=FILE, help='Accuracies: {"Caltech101": 0.91, ...}, from 0 to 1.')
@click.option("--partial", is_flag=True, help="Average what is there, though tasks are missing.")
@AS_JSON
def tasks(file: Path | None, partial: bool, as_json: bool) -> None:
    """Print VTAB's nineteen tasks, or the score over them.

    What is predicted, how many classes and samples there are, and which augmentations are switched off. With
    --scores, the mean of accuracies over all tasks and over each group. A set that lacks tasks has no mean,
    and they are named; with --partial, the means are over the others.
    """
    from hpcscale.transfer.vtab import scores
    from hpcscale.transfer.vtab.tasks import SOURCES, TASKS
    from hpcscale.transfer.vtab.tasks import as_json as of_task

    if partial and file is None:
        raise click.UsageError("--partial goes with --scores")
    if file is not None:
        found = scores.read(file, partial)
        click.echo(json.dumps(found._asdict(), indent=2) if as_json else _scores(found))
    elif as_json:
        click.echo(json.dumps({"tasks": [of_task(task) for task in TASKS], "sources": SOURCES}, indent=2))
    else:
        click.echo(_tasks())


@click.command()
@click.argument("source", type=FOLDER)
@click.argument("out", metavar="OUT_FOLDER", type=OUT_FOLDER)
@click.option("--task", "name", help="The task that it is of: labels are compared with its classes.")
@click.option("--vocabulary", type=FILE, help="Packed sets: which tags are classes.  [each is one]")
@click.option("--train", type=click.IntRange(1, 10**9), default=800, show_default=True,
              help="Packed sets: samples to train on.")  # fmt: skip
@click.option("--val", type=click.IntRange(1, 10**9), default=200, show_default=True,
              help="Packed sets: samples to validate on.")  # fmt: skip
def layout(source: Path, out: Path, name: str | None, vocabulary: Path | None, train: int, val: int) -> None:
    """Write manifest and splits of a task's folder.

    SOURCE is a folder of vpt or NOAH (images/, train800.txt, ..), one with a folder per class, or a packed
    set. Of the first two, OUT_FOLDER gets a manifest for `data ingest SOURCE PACKED --manifest`, and the
    classes for `labels build --parents`. Of a packed training set it gets a split of our own: 800 and 200
    samples, drawn by a hash of the pictures and stratified by class, so that everybody who has the pictures
    gets the same. Each split is a list for [selection] names, PART.txt, and a manifest that packs it alone,
    PART.jsonl. split.json names the split. No picture is copied.
    """
    from hpcscale.data.store import open_data
    from hpcscale.labels.vocabulary import load
    from hpcscale.transfer.vtab import layouts, splits
    from hpcscale.transfer.vtab.tasks import find

    task = find(name) if name is not None else None
    if layouts.kind_of(source) != "packed":
        if vocabulary is not None:
            raise click.UsageError("--vocabulary is for packed sets; of a folder, each label is a class")
        said = layouts.write(source, out, task)
    else:
        words = load(vocabulary) if vocabulary is not None else None
        said = splits.write_hashed(open_data(source), out, words, (train, val), task)
    about = json.loads(said.read_text())
    counts = ", ".join(f"{part} {count}" for part, count in about["samples"].items())
    click.echo(f"{said}: {about['split']} ({counts})")


@click.command()
@click.argument("out", metavar="OUT_FOLDER", type=OUT_FOLDER)
@click.option("--count", type=click.IntRange(1, 737_280), default=2000, show_default=True)
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True,
              help="Another one draws other pictures.")  # fmt: skip
def sprites(out: Path, count: int, seed: int) -> None:
    """Draw pictures like dSprites, with their labels.

    Squares, ellipses and hearts of known scale, orientation and position, as PNG files of 64 x 64 pixels, and
    manifest.jsonl for `data ingest`. Tags are the classes of dSpr-loc (x-07) and dSpr-ori (orientation-03);
    dSpr-loc.tsv and dSpr-ori.tsv list them for `labels build --parents`.
    """
    from hpcscale.transfer.vtab.sprites import write

    with progress_bar() as progress:
        manifest = write(out, count, seed, progress)
    click.echo(f"{manifest}: {count} pictures")


def _tasks() -> str:
    from hpcscale.report.tables import table
    from hpcscale.transfer.vtab.tasks import SOURCES, TASKS

    head = ["task", "group", "classes", "train", "val", "test", "off"]
    rows = (
        (task.name, task.group, task.classes, task.train, task.val, task.test, " ".join(task.off))
        for task in TASKS
    )
    labels = [f"{task.name}: {task.label}" + f" ({task.note})" * bool(task.note) for task in TASKS]
    sources = [f"{column}: {source}" for column, source in SOURCES.items()]
    return "\n".join([table(head, rows), "", *labels, "", "Sources:", *sources])


def _scores(found: "Scores") -> str:
    from hpcscale.report.tables import number, table

    means = {"all": found.mean, **found.groups}
    lines = [
        table(["", "top-1"], ((name, number(value)) for name, value in means.items())),
        "",
        table(["task", "top-1"], ((name, number(value)) for name, value in found.tasks.items())),
    ]
    if found.missing:
        lines += ["", f"{len(found.missing)} of 19 tasks are missing: {', '.join(found.missing)}"]
    return "\n".join(lines)
