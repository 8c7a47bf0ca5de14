"""What a run predicts on composed pictures: the JSON file of one evaluation, its accuracies, and its tables.

In: the rank at which each picture's right class was guessed. Out: `Result`, which evaluate.py writes, plot.py
draws, and docs/robustness.md specifies. The file is checked when it is read; pictures stand one a line.

Top-1 and top-5 are the shares of pictures for which a right class is the first, or among the first five.
"""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hpcscale.files import FileError, read_bytes
from hpcscale.report.tables import number, table
from hpcscale.text import shown

MARK = '{"writer": "hpcscale robustness evaluate", "format": 1,'
GUESSES = 5

Share = Annotated[float, Field(ge=0, le=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class InContext(_Strict):
    """The newest evaluation of the run on pictures of its own kind."""

    set: str
    step: int = Field(ge=0)
    top1: Share | None
    top5: Share | None


class Accuracy(_Strict):
    name: str  # of a class of objects, an object or a background; "" of all pictures
    pictures: int = Field(ge=1)
    top1: Share
    top5: Share


class Class(_Strict):
    """Which of the model's classes are right for a class of objects."""

    name: str
    classes: tuple[str, ...]
    relation: Literal["=", "<"]


class Predicted(_Strict):
    """One picture."""

    image: str
    of: str  # class of the object
    foreground: str
    background: str
    guesses: tuple[str, ...] = Field(max_length=GUESSES)  # the model's classes, best first
    probabilities: tuple[Share, ...]  # of them
    right: tuple[bool, ...]  # whether they are right


class Result(_Strict):
    run: str
    step: int = Field(ge=0)
    checkpoint: str  # SHA-256
    architecture: str
    parameters: int = Field(ge=1)
    upstream: str  # what the run's network was trained on before
    folder: str  # of the pictures
    digest: str  # BLAKE2b-128 of their manifest
    in_context: InContext | None
    classes: tuple[Class, ...]
    all: Accuracy
    by_class: tuple[Accuracy, ...]
    by_foreground: tuple[Accuracy, ...]
    by_background: tuple[Accuracy, ...]
    pictures: tuple[Predicted, ...] = Field(min_length=1)


def accuracy(name: str, pictures: Iterable[Predicted]) -> Accuracy:
    """Of these pictures, at least one."""
    found = list(pictures)
    first = sum(any(one.right[:1]) for one in found)
    five = sum(any(one.right[:GUESSES]) for one in found)
    return Accuracy(name=name, pictures=len(found), top1=first / len(found), top5=five / len(found))


def grouped(pictures: Iterable[Predicted], key: Callable[[Predicted], str]) -> tuple[Accuracy, ...]:
    """Of each group, by its name."""
    groups: dict[str, list[Predicted]] = {}
    for one in pictures:
        groups.setdefault(key(one), []).append(one)
    return tuple(accuracy(name, groups[name]) for name in sorted(groups))


def measured(pictures: tuple[Predicted, ...]) -> dict[str, Any]:
    """The accuracies of a Result."""
    return {
        "all": accuracy("", pictures),
        "by_class": grouped(pictures, lambda one: one.of),
        "by_foreground": grouped(pictures, lambda one: one.foreground),
        "by_background": grouped(pictures, lambda one: one.background),
        "pictures": pictures,
    }


def dump(result: Result) -> str:
    """The text of the file: the same result gives the same bytes."""
    values = result.model_dump(mode="json")
    pictures = ",\n".join(json.dumps(one) for one in values.pop("pictures"))
    head = json.dumps(values, indent=1)
    return f'{MARK}{head[1:-2]},\n "pictures": [\n{pictures}\n]}}\n'


def read(file: Path) -> Result:
    """Raises FileError, naming the place in the file, and OSError."""
    content = read_bytes(file)
    if not content.startswith(MARK.encode()):
        raise FileError(f"{file}: not what `hpcscale robustness evaluate` writes")
    try:
        result = Result.model_validate_json(b"{" + content[len(MARK) :])
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise FileError(f"{file}: {place}: {first['msg']}; found {str(first['input'])!r:.80}") from None
    for one in result.pictures:
        if not len(one.guesses) == len(one.probabilities) == len(one.right):
            raise FileError(f"{file}: {one.image!r:.80}: guesses, probabilities and right differ in number")
    return result


def as_text(result: Result) -> str:
    """Tables for people: in context and out of it, then by class of objects, object and background."""
    inside = result.in_context
    name = f"in context ({inside.set}, step {inside.step})" if inside else "in context (not evaluated)"
    top = [number(inside.top1), number(inside.top5)] if inside else [None, None]
    rows = [[name, *top], [f"out of context, {result.all.pictures} pictures", *_cells(result.all)]]
    parts = [table([f"{shown(result.run)}, step {result.step}", "top-1", "top-5"], rows)]
    right = {one.name: " ".join([one.relation, ", ".join(one.classes)]) for one in result.classes}
    for head, group in (
        ("class of the object", result.by_class),
        ("object", result.by_foreground),
        ("background", result.by_background),
    ):
        lines = [
            [shown(f"{one.name} {right[one.name]}" if group is result.by_class else one.name),
             one.pictures, *_cells(one)]
            for one in group
        ]  # fmt: skip
        parts.append(table([head, "pictures", "top-1", "top-5"], lines))
    return "\n\n".join(parts)


def _cells(one: Accuracy) -> list[str | None]:
    return [number(one.top1), number(one.top5)]
