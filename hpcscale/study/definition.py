"""The file of a study: axes, and stages that are commands of hpcscale.

In: TOML. Out: a `Study`, checked. Every combination of the values of its axes is a cell of a stage:

    out = "study"                       # folder of all that is made, beside the file
    [given]
    recipe = "small.toml"
    [axes]
    size = [3000, 30000]
    seed = [0, 1]
    [stages.pretrain]
    run = "train {here} --config {recipe} --set selection.size={size} --set train.seed={seed}"
    [stages.probe]
    run = "transfer probe {pretrain} --config probe.toml --out {here}"
    [stages.report]
    over = []
    run = "report {probe*} --out {here}/report.md"

`{size}` is the value of an axis, `{recipe}` one for all cells, `{here}` the folder of the cell, `{pretrain}`
that of the cell of an earlier stage with the same values, `{probe*}` those of all its cells that agree, a
word each. A stage depends on what it names.
"""

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, Strict, model_validator

from hpcscale import config, sections
from hpcscale.sections import Place, Section

NAME = r"[a-z][a-z0-9_]*"
HERE = "here"
CELLS = "cells"  # folder of the records of cells, so no name of a stage
STUDIES = config.RECIPES / "studies"
TRAIN = "train"  # the command whose cells are jobs of their own, on several nodes
SLOT = re.compile(rf"\{{({NAME})(\*?)\}}")
Value = str | int | float | bool
Values = Annotated[tuple[Value, ...], Strict(False), Field(min_length=1)]


class Stage(Section):
    # A command of hpcscale without its name, words quoted as for a shell. No shell runs it.
    run: Annotated[str, Field(min_length=1)]
    # Axes whose values make its cells; None: those that it and the stages that it names have.
    over: Annotated[tuple[str, ...], Strict(False)] | None = None
    # Of its jobs on a cluster, as `hpcscale submit` takes them; nodes and ranks are of `train` alone.
    nodes: int = Field(1, ge=1, le=100_000)
    ranks_per_node: Annotated[int, Field(ge=1, le=1024)] | None = None
    time: str | None = None


class Speed(Section):
    """What one GPU does, measured (`hpcscale bench`) or stated: what other networks do follows from their
    multiply-adds."""

    model: str
    side: int = Field(224, ge=1, le=config.SIDE)  # of a picture, pixels
    pictures_per_second: float = Field(gt=0.0)

    @model_validator(mode="after")
    def consistent(self) -> "Speed":
        config.Model(name=self.model)  # type: ignore[arg-type]
        return self


class Report(Section):
    """What `study report` tells of the results of one stage, of trainings or transfers."""

    stage: str
    # As `report` names it: top1, map100, AP, mIoU ...
    metric: str = "top1"
    # Axis over which means and standard errors are taken.
    seeds: str | None = None
    # Axis of numbers of pictures: curves, the papers' line, and the forecast are over it.
    size: str | None = None
    # Numbers of pictures for which a forecast is wanted.
    at: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Strict(False)] = ()


class Study(Section):
    # Folder of all that is made, beside the file.
    out: Place = Path("study")
    # Values for all cells, such as the folder of a data set.
    given: dict[str, Value] = Field(default_factory=dict)
    axes: dict[str, Values] = Field(default_factory=dict)
    # Values that go along with those of an axis, such as a number of steps with one of pictures.
    along: dict[str, dict[str, Values]] = Field(default_factory=dict)
    # Combinations that are left out: every cell with all of these values.
    skip: Annotated[tuple[dict[str, Value], ...], Strict(False)] = ()
    stages: Annotated[dict[str, Stage], Field(min_length=1)]
    speed: Speed | None = None
    report: Report | None = None

    @model_validator(mode="after")
    def consistent(self) -> "Study":
        names = [*self.given, *self.axes, *self.stages, *companions(self)]
        for name in names:
            if not re.fullmatch(NAME, name) or name in (HERE, CELLS):
                raise ValueError(
                    f"{name!r:.80} is no name of an axis or stage: small letters, digits and _, but not "
                    f"'{HERE}' or '{CELLS}'"
                )
            if names.count(name) > 1:
                raise ValueError(f"{name} is the name of two: of [given], an axis, [along] or a stage")
        for axis, values in self.axes.items():
            if len(set(map(str, values))) < len(values):
                raise ValueError(f"axes.{axis}: a value stands twice")
        for axis, others in self.along.items():
            for name, along in others.items():
                if len(along) != len(self.axes.get(axis, ())):
                    raise ValueError(
                        f"along.{axis}.{name}: {len(along)} values, of an axis of "
                        f"{len(self.axes.get(axis, ()))}"
                    )
        for entry in self.skip:
            for axis, value in entry.items():
                if value not in self.axes.get(axis, ()):
                    raise ValueError(f"skip: {axis} = {value!r:.80} is no value of an axis")
        earlier: dict[str, tuple[str, ...]] = {}
        for name, stage in self.stages.items():
            earlier[name] = self._check(name, stage, earlier)
        if self.report:
            self._check_report(self.report)
        return self

    def _check_report(self, report: Report) -> None:
        if report.stage not in self.stages:
            raise ValueError(
                f"report.stage: {report.stage!r:.80} is no stage; there are {', '.join(self.stages)}"
            )
        over = axes_of(self, report.stage)
        for key in ("seeds", "size"):
            axis = getattr(report, key)
            if axis is not None and axis not in over:
                raise ValueError(
                    f"report.{key}: {axis!r:.80} is no axis of {report.stage}: {', '.join(over)}"
                )
        sizes = self.axes.get(report.size or "", ())
        if any(type(value) is not int or value < 1 for value in sizes):
            raise ValueError(f"report.size: axes.{report.size} must be numbers of pictures")
        if report.at and report.size is None:
            raise ValueError("report.at: a forecast needs report.size")

    def _check(self, name: str, stage: Stage, earlier: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
        """The axes of a stage."""
        where = f"stages.{name}"
        over = axes_of(self, name)
        if unknown := set(over) - self.axes.keys():
            raise ValueError(f"{where}.over: {min(unknown)} is no axis; there are {', '.join(self.axes)}")
        try:
            words = shlex.split(stage.run)
        except ValueError as error:
            raise ValueError(f"{where}.run: {error}") from None
        found = [slot for word in words for slot in SLOT.findall(word)]
        if (HERE, "") not in found:
            raise ValueError(f"{where}.run: names {{here}} nowhere, the folder of what it makes")
        if words[0] == TRAIN and words[1] != f"{{{HERE}}}":
            raise ValueError(f"{where}.run: a training is of its own folder: train {{here}} ...")
        if words[0] != TRAIN and (stage.nodes > 1 or stage.ranks_per_node):
            raise ValueError(f"{where}: nodes and ranks_per_node are of train; found {words[0]:.80}")
        for slot, star in found:
            known = {*over, *self.given, *(one for one, axis in companions(self).items() if axis in over)}
            if slot == HERE or (slot in known and not star):
                continue
            if slot not in earlier:
                raise ValueError(
                    f"{where}.run: {{{slot}{star}}} is none of its axes and no earlier stage; there are "
                    f"{', '.join((*over, *earlier)) or 'none'}"
                )
            if not star and (more := set(earlier[slot]) - set(over)):
                raise ValueError(
                    f"{where}.run: {{{slot}}} has a cell for each {min(more)}, this stage has not: "
                    f"{{{slot}*}} names them all"
                )
        if wrong := [word for word in words if "*}" in word and not SLOT.fullmatch(word)]:
            raise ValueError(f"{where}.run: {wrong[0]:.80}: a name with * is a word of its own")
        return over


def axes_of(study: Study, name: str) -> tuple[str, ...]:
    """The axes of a stage, in the order of the file: those that it states, or those of all that it names."""
    stage = study.stages[name]
    if stage.over is not None:
        return tuple(axis for axis in study.axes if axis in stage.over) + tuple(
            axis for axis in stage.over if axis not in study.axes
        )
    named: set[str] = set()
    for slot, star in SLOT.findall(stage.run):
        if slot in study.axes:
            named.add(slot)
        elif slot in companions(study):
            named.add(companions(study)[slot])
        elif slot in study.stages and slot != name and not star:
            named |= set(axes_of(study, slot)) if _before(study, slot, name) else set()
    return tuple(axis for axis in study.axes if axis in named)


def companions(study: Study) -> dict[str, str]:
    """The names that go along with an axis -> that axis."""
    return {name: axis for axis, others in study.along.items() for name in others}


def values_at(study: Study, at: Mapping[str, Value]) -> dict[str, Value]:
    """All values that a command may name, at these of its axes."""
    found = {**study.given, **at}
    for name, axis in companions(study).items():
        if axis in at:
            found[name] = study.along[axis][name][study.axes[axis].index(at[axis])]
    return found


def _before(study: Study, one: str, other: str) -> bool:
    order = list(study.stages)
    return order.index(one) < order.index(other)


def combinations(study: Study, over: tuple[str, ...]) -> Iterator[dict[str, Value]]:
    """Every combination of values of these axes, the last axis fastest, but for those that are left out."""

    def extended(at: dict[str, Value], rest: tuple[str, ...]) -> Iterator[dict[str, Value]]:
        if not rest:
            yield at
            return
        for value in study.axes[rest[0]]:
            yield from extended({**at, rest[0]: value}, rest[1:])

    for at in extended({}, over):
        if not any(entry.items() <= at.items() for entry in study.skip):
            yield at


def load(file: Path, overrides: Iterable[str] = ()) -> Study:
    """The file, with overrides as `given.data=packed/mine`. Raises ConfigError, which lists all problems."""
    values: dict[str, Any] = sections.read_toml(sections.find(file, STUDIES))
    for override in overrides:
        sections.override_into(values, override)
    return sections.check(Study, values, str(file))
