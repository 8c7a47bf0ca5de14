"""Classification of weakly labelled pictures: builds the Job of `hpcscale train`.

In: the configuration of a run, which names a data set and a vocabulary. Out: a Job for loop.py.
"""

import sys
from collections.abc import Callable, Generator, Mapping
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hpcscale import config, ranks
from hpcscale.config import Config, ConfigError
from hpcscale.data import same
from hpcscale.data.order import identities, keyed
from hpcscale.data.store import DataSet, open_data
from hpcscale.evaluate import classify
from hpcscale.evaluate.sets import Subset, default_set, open_set
from hpcscale.inputs import pipeline
from hpcscale.inputs.crops import Steps, side_of
from hpcscale.inputs.mending import Tell
from hpcscale.labels.targets import OwnClasses, Targets
from hpcscale.labels.vocabulary import Vocabulary
from hpcscale.models import networks, slices, surgery
from hpcscale.models.backbone import Network
from hpcscale.models.device import precision
from hpcscale.models.preprocessing import Normalized, preprocessing
from hpcscale.models.shapes import SHAPES
from hpcscale.samples.chosen import Chosen, choose, open_vocabulary
from hpcscale.train import loop, optim, process, regularization, split
from hpcscale.train.job import Job
from hpcscale.train.loss import LOSSES
from hpcscale.train.process import Process


class Inputs(NamedTuple):
    """What a run reads."""

    data: DataSet
    vocabulary: Vocabulary
    chosen: Chosen
    evaluated: Subset | None  # None: only evaluated by hand


def train(settings: Config, run: Path) -> None:
    """Train as the configuration says, or go on with it (collective).

    Raises what process.start, open_inputs and loop.run do.
    """
    with process.start(settings, run) as here:
        # Before anything is made: what cannot be used leaves no trace.
        inputs = open_inputs(here.settings)
        job = build(here, inputs)
        if ranks.rank() == 0:
            for line in surgery.lines(job.facts.get("init", {})):
                print(line, file=sys.stderr, flush=True)
        loop.run(job, here)


def open_inputs(settings: Config) -> Inputs:
    """Open all that the configuration names, and check that it goes together; walks the data, at most once.

    Raises ConfigError, DataError, VocabularyError and EvaluateError.
    """
    samples, model = config.samples_of_rank(settings, ranks.size()), settings.model
    small = settings.input.crop <= model.output_stride and samples == settings.train.accumulate
    if small and not SHAPES[model.name].preactivated:
        raise ConfigError(
            f"train.batch is {settings.train.batch} for {ranks.size()} ranks and input.crop "
            f"{settings.input.crop}: one value per channel is too few for the last batch normalisation; "
            "choose a larger batch or crop"
        )
    if settings.train.mixup and samples == settings.train.accumulate:
        raise ConfigError(
            f"train.mixup is {settings.train.mixup}, but a rank has one sample at a time, and none to mix it "
            f"with (train.batch {settings.train.batch}, {ranks.size()} ranks, train.accumulate {samples}): "
            "choose a larger batch, or 0"
        )
    data = open_data(settings.data.train)
    side_of(data, settings.input)
    vocabulary = open_vocabulary(settings)
    chosen = choose(settings, data, vocabulary)
    which = default_set(settings)
    if which == "train":
        return Inputs(data, vocabulary, chosen, None)
    evaluated = open_set(settings, which, vocabulary, data, chosen)
    side_of(evaluated.data, config.seen(settings))
    return Inputs(data, vocabulary, chosen, evaluated)


def build(here: Process[Config], inputs: Inputs) -> Job:
    """The Job of a run (collective)."""
    settings, train_, device = here.settings, here.settings.train, here.device
    data, vocabulary, chosen, evaluated = inputs
    torch.manual_seed(train_.seed)
    contents = same.fingerprint(vocabulary, data, chosen.digest)
    contents |= {"preprocessing": preprocessing(settings, data.stored_size)}
    model = networks.build(settings.model, len(vocabulary.classes))
    init = surgery.begin(model, settings.model, here.run, contents)
    surgery.freeze(model.train(), settings.model)
    held = slices.cut(model) if settings.model.slices == "ranks" else None
    model.to(device)
    at_once = config.samples_of_rank(settings, ranks.size())  # in an evaluation
    rows = _target_rows(settings, inputs, device, held)
    loss_of = (split.LOSSES if held else LOSSES)[settings.loss.name]
    normalized = Normalized()

    def batches(step: int, tell: Tell) -> Generator[pipeline.Batch, None, None]:
        rest = train_.steps - step
        steps = Steps(step, rest, train_.batch, ranks.rank(), ranks.size(), train_.accumulate)
        return pipeline.train_batches(data, chosen.order, settings.input, steps, train_.seed, device, tell)

    def loss(batch: pipeline.Batch) -> Tensor:
        images, targets = normalized(batch.images, batch.values), rows(batch)
        if train_.mixup:
            images, targets = _mixed(settings, batch.number, images, targets)
        with precision(train_.precision, device):
            logits = _logits(settings, batch.number, model, images)
        loss: Tensor = loss_of(logits, targets) / train_.batch
        return loss

    def assess(step: int) -> tuple[str, Mapping[str, Any]]:
        assert evaluated is not None
        evaluation = classify.evaluate_set(model, settings, evaluated, vocabulary, at_once, device)
        if ranks.rank() == 0:
            classify.save(evaluation, here.run, evaluated, step, vocabulary)
        return evaluated.which, evaluation.metrics

    return Job(
        model,
        optim.build(model, settings.optimizer),
        batches,
        loss,
        assess if evaluated else None,
        contents | ({"init": init["sha256"]} if init else {}),
        data.names,
        local=tuple(p for p in held.parameters() if p.requires_grad) if held else (),
        facts={"data": chosen.counts()} | ({"init": init} if init else {}),
    )


def _mixed(settings: Config, number: int, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """MixUp of this rank's batch of that number: images (n, 3, h, w), and targets (n, classes), or those of
    all ranks' samples (ranks * n, classes) where the classifier is divided."""
    seed, parts, n = settings.train.seed, settings.train.accumulate, len(images)
    step, part = divmod(number, parts)
    share = regularization.share(settings.train.mixup, seed, step)
    blocks = [rank * parts + part for rank in range(ranks.size())]
    own = [blocks[ranks.rank()]]
    compared = blocks if settings.model.slices == "ranks" else own
    return (
        regularization.mixed(images, regularization.partners(seed, step, own, n), share),
        regularization.mixed(targets, regularization.partners(seed, step, compared, n), share),
    )


def _logits(settings: Config, number: int, model: Network, images: Tensor) -> Tensor:
    """Of this rank's batch of that number, in training."""
    features, parts = model.features(images), settings.train.accumulate
    if settings.model.dropout:
        step, part = divmod(number, parts)
        first = (ranks.rank() * parts + part) * len(images)
        features = regularization.dropped(features, settings.model.dropout, settings.train.seed, step, first)
    logits: Tensor = model.classifier(features)
    return logits


def _target_rows(
    settings: Config, inputs: Inputs, device: torch.device, held: slices.Slice | None = None
) -> Callable[[pipeline.Batch], Tensor]:
    """Of a batch: what its logits are compared with, (n, classes) float32 on the device.

    held: of a divided classifier; then rows are of all ranks' samples and of its classes (collective).
    """
    data, vocabulary, noise = inputs.data, inputs.vocabulary, inputs.chosen.noise
    own = OwnClasses(vocabulary, data.tags)
    parts = settings.train.accumulate
    most = config.samples_of_rank(settings, ranks.size()) // parts * (ranks.size() if held else 1)
    classes = held.classes if held else range(len(vocabulary.classes))
    tags = None if noise else data.tags  # noise replaces classes, not tags
    # Buffers in turn, for two steps: a GPU may still copy the rows of the step before.
    buffers = torch.zeros(2 * parts, most, len(classes), pin_memory=device.type == "cuda")
    turns = cycle(
        (Targets(vocabulary, tags, settings.loss.name, most, classes, one.numpy()), one) for one in buffers
    )

    def rows(batch: pipeline.Batch) -> Tensor:
        targets, buffer = next(turns)
        labels = batch.tag_offsets, batch.tag_ids
        if noise is not None:
            pictures = identities(data.source_digests(batch.samples))
            labels = noise(keyed(pictures, settings.noise.seed), *own.classes(*labels))
        if held:
            labels = slices.all_labels(*labels, len(batch.samples))
        targets.rows(*labels)
        on_device: Tensor = buffer[: len(labels[0]) - 1].to(device, non_blocking=True)
        return on_device

    return rows
