"""Folders of a task as people have them -> a manifest that `data ingest` takes, and lists of the splits.

In: a folder of one of the kinds below. Out: a folder of text files; no picture is copied or decoded.

    lists     of vpt and NOAH: images/ and one or more of train800.txt, val200.txt, train800val200.txt and
              test.txt, whose lines are `path label`: the path relative to the folder, the label a number
              from 0.
    folders   one folder per class; or train/, val/ (valid/, validation/) and test/ that hold such folders.
    packed    a data set that `data ingest` wrote: then the split is ours (splits.py), without a manifest.

What is written: manifest.jsonl of all pictures; classes.tsv, for `labels build --parents`; of each split a
list for `[selection] names` and a manifest of its own; split.json, which names the split, such as "folder:
train800val200.txt". Labels of lists are written with leading zeros, so that classes in the order of their
names are in that of their numbers.
"""

import re
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from hpcscale.files import FileError, read_text
from hpcscale.ingest.record import SourceError
from hpcscale.ingest.sources import folder_records
from hpcscale.transfer.vtab import splits
from hpcscale.transfer.vtab.tasks import Task

LISTS = ("train800", "val200", "train800val200", "test")
FOLDERS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


class LayoutError(FileError):
    """A folder that is not of a kind that is read; the message names file and line."""


class Sample(NamedTuple):
    name: str  # the path relative to the folder
    label: str
    where: str = ""  # file and line that say so, for messages


Parts = dict[str, list[Sample]]  # of each split


def kind_of(source: Path) -> str:
    """The kind of a folder: "packed", "lists" or "folders"."""
    if (source / "plan.json").is_file():
        return "packed"
    return "lists" if any((source / f"{part}.txt").exists() for part in LISTS) else "folders"


def read_lists(source: Path) -> Parts:
    """The lists of a folder of vpt or NOAH, those that are there.

    Raises LayoutError, with file and line: of a line that is no path and label, of a path that leads out of
    the folder or to no file, of one that is listed twice or with two labels, and of a test picture that is
    also trained or validated on; and where 800 and 200 are not the 1,000.
    """
    files = {part: source / f"{part}.txt" for part in LISTS}
    parts = {part: list(_lines(source, file)) for part, file in files.items() if file.exists()}
    labels: dict[str, Sample] = {}
    for part, samples in parts.items():
        here: set[str] = set()
        for sample in samples:
            first = labels.setdefault(sample.name, sample)
            if sample.name in here:
                raise LayoutError(f"{sample.where}: {sample.name!r} is listed twice")
            if first.label != sample.label:
                raise LayoutError(
                    f"{sample.where}: {sample.name!r} has the label {sample.label}, and {first.label} in "
                    f"{first.where}"
                )
            if part == "test" and first is not sample:
                raise LayoutError(f"{sample.where}: {sample.name!r} is also in {first.where}")
            here.add(sample.name)
    _refuse_other_thousand(parts, files)
    return parts


def _lines(source: Path, file: Path) -> list[Sample]:
    found = []
    for number, line in enumerate(read_text(file).split("\n"), 1):
        where = f"{file}:{number}"
        if not line.strip():
            continue
        path, _, label = line.strip().rpartition(" ")
        path = path.strip().removeprefix("./")
        if not path or not re.fullmatch("[0-9]{1,9}", label):
            raise LayoutError(f"{where}: expected a path and a label, a number from 0, found {line!r:.80}")
        if path.startswith("/") or ".." in path.split("/") or "\0" in path:
            raise LayoutError(f"{where}: {path!r:.80} must stay inside the folder")
        if not (source / path).is_file():
            raise LayoutError(f"{where}: {path!r:.80}: there is no such picture")
        found.append(Sample(path, str(int(label)), where))
    if not found:
        raise LayoutError(f"{file}: lists no picture")
    return found


def _refuse_other_thousand(parts: Parts, files: dict[str, Path]) -> None:
    """The 800 and the 200 have no picture in common, and together are the 1,000, where all are there."""
    train, val, both = ({sample.name for sample in parts.get(part, ())} for part in LISTS[:3])
    if shared := sorted(train & val):
        raise LayoutError(f"{files['val200']}: {shared[0]!r} is also in train800.txt")
    if train and val and both and (other := sorted(both ^ (train | val))):
        raise LayoutError(
            f"{files['train800val200']}: is not train800.txt and val200.txt together: {other[0]!r} is in one "
            "only"
        )


def read_folders(source: Path) -> Parts:
    """One folder per class, as "all"; or those below train/, val/ and test/, by these names.

    Raises LayoutError of a picture that lies in no class folder, of none at all, and of two folders of one
    split.
    """
    inside = sorted(entry.name for entry in source.iterdir() if entry.is_dir() and entry.name[0] != ".")
    if not inside:
        raise LayoutError(f"{source}: no folder of a known kind: neither lists nor one folder per class")
    if not set(inside) <= FOLDERS.keys():
        return {"all": _classes(source, "")}
    parts: Parts = {}
    for name in inside:
        if FOLDERS[name] in parts:
            raise LayoutError(f"{source / name}: is a second folder of the split {FOLDERS[name]}")
        parts[FOLDERS[name]] = _classes(source / name, f"{name}/")
    return parts


def _classes(folder: Path, before: str) -> list[Sample]:
    found = []
    try:
        for _, record in folder_records(folder):
            if record.problem:
                raise LayoutError(f"{folder / record.name}: {record.problem}")
            found.append(Sample(before + record.name, record.tags[0], str(folder / record.name)))
    except SourceError as error:
        raise LayoutError(str(error)) from None
    if not found:
        raise LayoutError(f"{folder}: holds no pictures in class folders")
    return found


def write(source: Path, out: Path, task: Task | None = None) -> Path:
    """Read a folder of lists or of folders, and write what the head of this file says. Returns split.json.

    task: whose number of classes no label may exceed. Raises LayoutError, and OutputError where `out` has
    other files already or lies in `source`.
    """
    kind = kind_of(source)
    parts = read_lists(source) if kind == "lists" else read_folders(source)
    samples = {sample.name: sample for sample in chain(*parts.values())}
    classes = sorted({sample.label for sample in samples.values()}, key=lambda label: (len(label), label))
    if task is not None:
        _refuse_other_task(task, kind, source, parts, len(classes))
    width = len(classes[-1]) if kind == "lists" else 0
    tags: dict[str, splits.Tags] = {
        part: {each.name: (each.label.zfill(width),) for each in found} for part, found in parts.items()
    }
    about = {"split": _name(kind, parts), "task": task.name if task else None, "source": str(source)}
    files = {
        "manifest.jsonl": splits.manifest(
            {name: tag for part in tags.values() for name, tag in part.items()}
        ),
        "classes.tsv": "".join(f"{label}\n" for label in sorted(label.zfill(width) for label in classes)),
    }
    files |= splits.texts(tags, about | {"classes": len(classes)})
    return splits.write(out, files, [source]) / "split.json"


def _name(kind: str, parts: Parts) -> str:
    """What the split is called in tables: by what is trained on at the end."""
    last = "train800val200" if "train800val200" in parts else next(iter(parts))
    return f"folder: {last}.txt" if kind == "lists" else f"folder: {'/'.join(parts)}"


def _refuse_other_task(task: Task, kind: str, source: Path, parts: Parts, classes: int) -> None:
    if kind == "lists":
        for sample in chain(*parts.values()):
            if int(sample.label) >= task.classes:
                raise LayoutError(
                    f"{sample.where}: label {sample.label}; {task.name} has {task.classes} classes, from 0"
                )
    elif classes != task.classes:
        raise LayoutError(f"{source}: {classes} class folders; {task.name} has {task.classes} classes")
