"""What a study would do, before anything is done: cells, pictures, GPU-hours, disk.

In: cells, their states, and how a command is read. Out: a row a stage, and their text. GPU-hours are pictures
through a network's multiply-adds, at the speed that `[speed]` states for one of them; disk is what
checkpoints take. All three of trainings alone, and of what is still to do.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from hpcscale import config
from hpcscale.models import complexity, memory
from hpcscale.study.cells import Cell, Key
from hpcscale.study.definition import TRAIN, Speed, Study
from hpcscale.study.graph import Read
from hpcscale.study.state import State

CLASSES = 1000  # where a recipe does not say how many; they hardly change the multiply-adds


class Row(NamedTuple):
    stage: str
    cells: int
    done: int
    jobs: str  # as they would be submitted
    needs: tuple[str, ...]  # stages
    pictures: int | None  # that trainings read; None: the stage trains nothing
    gpu_hours: float | None  # None: no [speed], or none of a network that it is of
    disk: int | None  # bytes


def rows(study: Study, cells: Mapping[Key, Cell], states: Mapping[Key, State], read: Read) -> list[Row]:
    """A row for each stage, in order. Raises what `read` does for a command that is none."""
    found = []
    for name, stage in study.stages.items():
        its = [cell for cell in cells.values() if cell.stage == name]
        open_ = [cell for cell in its if states[cell.key].word != "done"]
        recipes = [read(cell.words).recipe for cell in its]
        trains = bool(its) and its[0].words[0] == TRAIN
        costs = [
            cost(study.speed, recipe)
            for cell, recipe in zip(its, recipes, strict=True)
            if trains and recipe is not None and cell in open_
        ]
        jobs = f"an array of {len(its)}" if open_ else "none"
        if trains and open_:
            each = f" of {stage.nodes} nodes" if stage.nodes > 1 else ""
            jobs = f"{len(open_)}{each}"
        hours = [hours for _, hours, _ in costs if hours is not None]
        found.append(
            Row(
                name,
                len(its),
                len(its) - len(open_),
                jobs,
                tuple(dict.fromkeys(need for cell in its for need, _ in cell.needs)),
                sum(pictures for pictures, _, _ in costs) if trains else None,
                sum(hours) if trains and len(hours) == len(costs) else None,
                sum(disk for _, _, disk in costs) if trains else None,
            )
        )
    return found


def cost(speed: Speed | None, recipe: config.Training) -> tuple[int, float | None, int]:
    """Pictures, GPU-hours and bytes of checkpoints of one training."""
    pictures = recipe.train.steps * recipe.train.batch
    side = recipe.input.crop if isinstance(recipe, config.Config) else None
    sizes = complexity.sizes(recipe.model, CLASSES, side or 224)
    kept = recipe.train.keep + len(recipe.train.keep_at)
    numbers = 1 + memory.STATE[recipe.optimizer.name]
    disk = kept * numbers * memory.WIDE * sizes.parameters
    if speed is None or side is None:
        return pictures, None, disk
    measured = complexity.sizes(config.Model(name=speed.model), CLASSES, speed.side)  # type: ignore[arg-type]
    rate = speed.pictures_per_second * measured.multiply_adds / sizes.multiply_adds
    return pictures, pictures / rate / 3600, disk


def as_text(found: list[Row]) -> str:
    """A table for the terminal."""
    lines = [("stage", "cells", "done", "jobs", "after", "pictures", "GPU-hours", "disk")]
    for row in found:
        lines.append(
            (
                row.stage,
                f"{row.cells:,}",
                f"{row.done:,}",
                row.jobs,
                ", ".join(row.needs) or "-",
                "-" if row.pictures is None else f"{row.pictures:,}",
                "-" if row.gpu_hours is None else f"{row.gpu_hours:,.1f}",
                "-" if row.disk is None else f"{row.disk / 1e9:,.1f} GB",
            )
        )
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def as_json(found: list[Row]) -> list[dict[str, Any]]:
    return [row._asdict() | {"needs": list(row.needs)} for row in found]
