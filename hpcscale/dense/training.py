"""`hpcscale train` and `evaluate` of a dense task: opens what a recipe names, hands the Job to train.loop.

In: a Dense configuration and a run folder. Out: what the loop writes, and evaluations (findings.py).
"""

import hashlib
import json
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hpcscale import config, ranks, tasks
from hpcscale.annotations import reader
from hpcscale.annotations.objects import most_points
from hpcscale.config import ConfigError
from hpcscale.data import same
from hpcscale.data.manifest import AnnotationTable, DataError
from hpcscale.data.order import Whole
from hpcscale.data.store import DataSet, open_data
from hpcscale.dense import backbones, batches, detection, findings, people, pose, segmentation, truths
from hpcscale.dense.batches import Batch, Seen, Wanted
from hpcscale.dense.order import Order
from hpcscale.evaluate import detections
from hpcscale.evaluate.kept import Kind, measure
from hpcscale.inputs.crops import Steps
from hpcscale.inputs.mending import Tell, on_stderr
from hpcscale.models import checkpoint, device, surgery
from hpcscale.models.device import precision
from hpcscale.models.networks import evaluating
from hpcscale.train import loop, optim, process
from hpcscale.train.job import Job
from hpcscale.train.process import Process

WHICH = "validation"


class Task(NamedTuple):
    """What a dense task is made of, beside its configuration; detection.py, segmentation.py, pose.py build
    one."""

    model: nn.Module  # on the CPU
    body: nn.Module  # the part that `model.init` starts
    wanted: Wanted
    # losses(seen, device): means over these pictures, whose sum is trained; in the model's training mode.
    losses: Callable[[list[Seen], torch.device], Mapping[str, Tensor]]
    # find(seen, device): what the model finds in one picture, as plain values for JSON.
    find: Callable[[Seen, torch.device], list[dict[str, Any]]]
    kind: Kind  # of what it finds


class Inputs(NamedTuple):
    data: DataSet
    table: AnnotationTable
    ids: NDArray[np.int64]  # (n,) samples that are trained on
    objects: NDArray[np.int64] | None  # (n,) one object of each, if these are trained on
    evaluated: DataSet | None


def train(settings: tasks.Dense, run: Path) -> None:
    """Train as the configuration says, or go on with it (collective). Raises what process.start, open_inputs
    and loop.run do."""
    with process.start(settings, run) as here:
        inputs = open_inputs(here.settings)
        loop.run(build(here, inputs), here)


def evaluate_run(run: Path, tell: Tell = on_stderr) -> Path:
    """Evaluate the newest checkpoint of a run on `data.validation` (collective). Returns the folder of the
    evaluation. Raises ConfigError, CheckpointError, DataError and DeviceError."""
    settings = same.settings(config.read_as(run / "config.json", tasks.Dense), tasks.Dense)
    inputs = open_inputs(settings)
    if inputs.evaluated is None:
        raise ConfigError(f"{run}: its configuration has no data.validation to evaluate on")
    task, found = _task(settings, inputs.table, inputs.evaluated), checkpoint.find(run)
    checkpoint.restore(task.model.state_dict(), checkpoint.load(found)[0], found.file)
    here = device.choose(settings.train.device)
    task.model.to(here)
    return _assess(task, settings, inputs.evaluated, here, tell, run, found.step)[0]


def open_inputs(settings: tasks.Dense) -> Inputs:
    """Open all that the configuration names, and check that it goes together. Raises ConfigError and
    DataError."""
    config.samples_of_rank(settings, ranks.size())
    data = open_data(settings.data.train)
    table = reader.table_of(data)
    ids, objects = _trained_on(settings, data)
    if not len(ids):
        raise DataError(f"{data.folder}: no picture is left to train on: none has what the task learns")
    evaluated = open_data(settings.data.validation) if settings.data.validation else None
    if evaluated is not None:
        names, others = _names(table), _names(reader.table_of(evaluated))
        if names != others:
            odd = sorted(set(names) ^ set(others)) or others
            raise DataError(
                f"{evaluated.folder}: its classes are not those of {data.folder}: {', '.join(odd)[:200]}"
            )
        points = most_points(table.categories)
        if settings.detector and settings.detector.name == "keypoint_rcnn" and points != detections.POINTS:
            raise DataError(
                f"{evaluated.folder}: {points} key points; only COCO's {detections.POINTS} can be judged: "
                "leave data.validation out"
            )
    return Inputs(data, table, ids, objects, evaluated)


def _names(table: AnnotationTable) -> list[str]:
    return [category.name for category in table.categories]


def _trained_on(settings: tasks.Dense, data: DataSet) -> tuple[NDArray[np.int64], NDArray[np.int64] | None]:
    if settings.pose:
        return people.trained_on(data, settings.pose)
    everything = np.arange(data.samples, dtype=np.int64)
    column = "class_map" if settings.segmenter else "boxes"
    offsets, _ = data.annotations(column, everything)  # DataError tells what is there
    if settings.data.empty == "keep" and not settings.segmenter:
        return everything, None
    return np.flatnonzero(np.diff(offsets)), None


def _task(settings: tasks.Dense, table: AnnotationTable, evaluated: DataSet | None) -> Task:
    """Raises ConfigError, and of a pose what people.given does."""
    if settings.pose:
        return Task(*pose.build(settings, settings.pose, table, evaluated))
    if settings.segmenter:
        return Task(*segmentation.build(settings, settings.segmenter))
    assert settings.detector is not None
    return Task(*detection.build(settings, settings.detector, table))


def _digest(*columns: NDArray[np.int64] | None) -> str:
    parts = (column.astype("<i8").tobytes() for column in columns if column is not None)
    return hashlib.sha256(b"".join(parts)).hexdigest()


def _order(settings: tasks.Dense, inputs: Inputs) -> Order:
    ids, grouped = inputs.ids, settings.data.grouped
    shapes = None
    if grouped > 1:
        height, width = inputs.data.sizes(ids).astype(np.float64).T
        shapes = height / width
    whole = Whole(len(ids), settings.train.seed)
    return Order(ids, whole, inputs.objects, shapes, grouped, settings.train.batch)


def build(here: Process[tasks.Dense], inputs: Inputs) -> Job:
    """The Job of a run (collective)."""
    settings, train_ = here.settings, here.settings.train
    data, table, ids, objects, evaluated = inputs
    torch.manual_seed(train_.seed)
    task = _task(settings, table, evaluated)
    contents = same.agreed(
        {
            "data": data.digest,
            "classes": hashlib.sha256("\n".join(_names(table)).encode()).hexdigest(),
            "dropped": _digest(ids, objects),
            "versions": same.versions(),
        }
    ) | backbones.stated(settings.model, settings.input.values)
    init = surgery.begin(task.body, settings.model, here.run, contents)
    ranks.broadcast(task.model.state_dict().values())
    surgery.freeze(task.model.train(), settings.model)
    task.model.to(here.device)
    order = _order(settings, inputs)

    def of_rank(step: int, tell: Tell) -> Generator[Batch, None, None]:
        rest = train_.steps - step
        steps = Steps(step, rest, train_.batch, ranks.rank(), ranks.size(), train_.accumulate)
        return batches.training_batches(data, order, settings, steps, task.wanted, tell)

    def loss(batch: Batch) -> Tensor:
        # Samplers of anchors draw from torch's own generator, which a resumed run must find as it was.
        torch.manual_seed(batch.seed)
        with precision(train_.precision, here.device):
            losses = task.losses(batch.seen, here.device)
        return torch.stack([*losses.values()]).sum() * (len(batch.seen) / train_.batch)

    def assess(step: int) -> tuple[str, Mapping[str, Any]]:
        assert evaluated is not None
        return WHICH, _assess(task, settings, evaluated, here.device, on_stderr, here.run, step)[1]

    return Job(
        task.model,
        optim.build(task.model, settings.optimizer),
        of_rank,
        loss,
        assess if evaluated is not None else None,
        contents | ({"init": init["sha256"]} if init else {}),
        data.names,
        facts={"data": {"samples": data.samples, "trained_on": len(ids)}} | ({"init": init} if init else {}),
    )


def _assess(
    task: Task, settings: tasks.Dense, data: DataSet, device: torch.device, tell: Tell, run: Path, step: int
) -> tuple[Path, dict[str, float | None]]:
    """Evaluate on all pictures, ranks share them, and keep what was found (collective). Returns the folder
    and the metrics."""
    samples = np.arange(data.samples, dtype=np.int64)
    mine = samples[ranks.rank() :: ranks.size()]
    found: list[dict[str, Any]] = []
    with evaluating(task.model), torch.no_grad():
        for seen in batches.whole_pictures(data, mine, settings.input, task.wanted, tell):
            found += task.find(seen, device)
    found = findings.gather(found)
    folder, text = findings.folder_of(run, WHICH, step), b""
    if ranks.rank() == 0:
        truth = None if task.kind == "segmentation" else truths.of_data(data, samples)
        measured = measure(task.kind, truth, found)
        findings.save(folder, WHICH, step, data, task.kind, truth, measured, found)
        text = json.dumps(measured.metrics).encode()
    metrics: dict[str, float | None] = json.loads(ranks.gather(np.frombuffer(text, np.uint8)).tobytes())
    return folder, metrics
