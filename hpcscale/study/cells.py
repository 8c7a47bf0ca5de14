"""The cells of a study: which command makes what where, and from which other cells.

In: a `Study` and the folder of its file. Out: `Cell`s, those that others need first. A pure function of the
file and of the files that its commands name.

The folder of a cell is OUT/STAGE/VALUES-DIGEST. The digest is of the command, of the files that it names (a
recipe, a manifest), and of the digests of the cells that it needs. So a changed line moves what depends on
it, and that alone, to new folders, and what was made before stays where it is: no finished work is ever
replaced.
"""

import hashlib
import json
import re
import shlex
from pathlib import Path
from typing import NamedTuple

from hpcscale import config, sections
from hpcscale.files import Usage
from hpcscale.study.definition import HERE, SLOT, Study, Value, axes_of, combinations, values_at

Key = tuple[str, str]  # stage, and name of a cell
DIGITS = 8  # of a digest, in names of folders
LONGEST = 120  # characters of a name
MARK = "\0here\0"  # of the folder of a cell, until its digest is known
MOST = 16 << 20  # bytes of a file whose contents count; larger ones are data


class Cell(NamedTuple):
    stage: str
    name: str  # as size=3000,seed=0; "all" of a stage without axes
    at: dict[str, Value]
    words: tuple[str, ...]  # of the command, without "hpcscale"; paths from the folder of the study's file
    folder: Path  # from there
    needs: tuple[Key, ...]
    digest: str

    @property
    def key(self) -> Key:
        return self.stage, self.name


def of_study(study: Study, root: Path) -> dict[Key, Cell]:
    """All cells. root: the folder of the study's file. Raises Usage where two cells would have one name, or
    where all cells that a command names are left out."""
    cells: dict[Key, Cell] = {}
    for stage in study.stages:
        over = axes_of(study, stage)
        for at in combinations(study, over):
            cell = _cell(study, stage, at, cells, root)
            if cell.key in cells:
                raise Usage(f"stages.{stage}: two cells would have the name {cell.name}; change a value")
            cells[cell.key] = cell
    return cells


def name_of(at: dict[str, Value]) -> str:
    """As size=3000,seed=0, with - for what a name of a file should not have."""
    parts = [f"{axis}={re.sub(r'[^A-Za-z0-9._-]+', '-', str(value))}" for axis, value in at.items()]
    return ",".join(parts)[:LONGEST] or "all"


def _cell(study: Study, stage: str, at: dict[str, Value], cells: dict[Key, Cell], root: Path) -> Cell:
    words, said, needs = [], [], dict[Key, None]()
    of_axes = {name: _text(value) for name, value in values_at(study, at).items()}
    for word in shlex.split(study.stages[stage].run):
        slots = SLOT.findall(word)
        found = {name: _agreeing(name, at, cells) for name, _ in slots if name in study.stages}
        for name, its in found.items():
            if not its:
                raise Usage(f"stages.{stage}.run: {word}: {name} has no cell at {name_of(at)}")
            needs |= dict.fromkeys(cell.key for cell in its)
        if slots and slots[0][1]:  # a name with * is the whole word
            words += [str(cell.folder) for cell in found[slots[0][0]]]
            said += [cell.digest for cell in found[slots[0][0]]]
            continue
        folders = {name: str(its[0].folder) for name, its in found.items()} | {HERE: MARK}
        digests = {name: its[0].digest for name, its in found.items()} | {HERE: HERE}
        words.append(SLOT.sub(lambda slot: (of_axes | folders)[slot[1]], word))  # noqa: B023
        said.append(SLOT.sub(lambda slot: (of_axes | digests)[slot[1]], word))  # noqa: B023
        if not found and (HERE, "") not in slots:  # what cells make has no contents yet
            said.append(_content(words[-1], root))
    digest = hashlib.sha256(json.dumps(said).encode()).hexdigest()
    folder = study.out / stage / f"{name_of(at)}-{digest[:DIGITS]}"
    words = [word.replace(MARK, str(folder)) for word in words]
    return Cell(stage, name_of(at), at, tuple(words), folder, tuple(needs), digest)


def _agreeing(stage: str, at: dict[str, Value], cells: dict[Key, Cell]) -> list[Cell]:
    """The cells of a stage whose values are those of `at`, where both have the axis."""
    return [
        cell
        for cell in cells.values()
        if cell.stage == stage and all(at.get(axis, value) == value for axis, value in cell.at.items())
    ]


def _text(value: Value) -> str:
    """As --set reads it back."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _content(word: str, root: Path) -> str:
    """The digest of the file that a word, or what stands behind its =, names: of the user's, or a recipe of
    the package; empty where it names none."""
    for text in (word, word.partition("=")[2]):
        if not text or "\0" in text:
            continue
        try:
            file = root / text
            for recipes in (config.RECIPES, config.RECIPES / "transfer"):
                if not file.is_file():
                    file = sections.find(Path(text), recipes)
            if file.is_file() and file.stat().st_size <= MOST:
                return hashlib.sha256(file.read_bytes()).hexdigest()
        except (OSError, ValueError):
            continue
    return ""
