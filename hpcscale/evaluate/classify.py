"""Evaluation: a model and batches in, metrics and per-sample results out, and a folder that keeps them.

Stands between `pipeline` (batches), `checkpoint` (weights) and `metrics` (the numbers). The training loop
calls `evaluate_set` on every rank; `hpcscale evaluate` calls `evaluate_run`, which reads everything from a
run folder. Every rank evaluates its own part of the samples in float32, keeps the best classes of each (about
1 KB a sample), and the parts are gathered and sorted by sample before anything is averaged. So the metrics do
not depend on the number of ranks beyond what the batch size does to the last bit of a convolution.
"""

from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from hpcscale import config, ranks
from hpcscale.config import Config, Which
from hpcscale.data import same
from hpcscale.evaluate import evaluations, metrics, ranking
from hpcscale.evaluate.metrics import Metrics, Results
from hpcscale.evaluate.ranking import Ranked
from hpcscale.evaluate.sets import EvaluateError, NoSet, Subset, default_set, open_set
from hpcscale.inputs import pipeline
from hpcscale.labels import vocabulary
from hpcscale.labels.targets import Targets
from hpcscale.labels.vocabulary import Vocabulary
from hpcscale.models import networks
from hpcscale.models.checkpoint import NoCheckpoint
from hpcscale.models.networks import evaluating
from hpcscale.models.slices import slice_of
from hpcscale.samples.chosen import open_vocabulary

PICTURES = 24  # kept as thumbnails
SIDE = 128  # of a thumbnail, pixels


class Evaluation(NamedTuple):
    """The same on every rank."""

    metrics: Metrics
    baseline: Metrics  # of the class frequencies as scores of every picture, by the same code
    results: Results  # per sample, all ranks
    precisions: NDArray[np.float64]  # (classes,) average precision, reading (a); NaN without positives
    baseline_precisions: NDArray[np.float64]
    thumbnail_samples: NDArray[np.int64]  # (m,)
    thumbnails: NDArray[np.uint8]  # (m, side, side, 3)


def evaluate(
    model: nn.Module,
    batches: Iterable[pipeline.Batch],
    targets: Targets,
    loss: Literal["logistic", "softmax"],
    weights: NDArray[np.float64],
    candidates: NDArray[np.int32],
    pictures: NDArray[np.int64],
) -> Evaluation:
    """Evaluate the model on this rank's batches, together with all other ranks (collective).

    targets: rows of the kind that `loss` compares with; where the classifier is divided over ranks
    (models/slices.py), of this rank's classes and for the batches of all ranks. weights: (classes,) of the
    weighted averages, and scores of the baseline: samples of each class in the training data. candidates:
    (c,) rising, the classes that can be the truth of a sample; only they compete for top-1 and top-5, because
    an ancestor of the truth should score at least as high as the truth. pictures: sample ids of which a
    thumbnail is kept. A sample that comes twice counts once. The model is left in the mode it was in. Raises
    EvaluateError on all ranks where a score is not a number, naming samples.
    """
    parts = [_empty(weights.size, candidates.size)]
    shown, thumbnails = [np.zeros(0, np.int64)], [np.zeros((0, SIDE, SIDE, 3), np.uint8)]
    with evaluating(model), torch.no_grad():  # tensors of inference_mode could not travel between ranks
        for batch, ranked in ranking.ranked(model, batches, targets, loss, candidates):
            parts.append(_keep(batch, ranked, targets))
            for row in np.flatnonzero(np.isin(batch.samples, pictures)):
                shown.append(batch.samples[row : row + 1])
                thumbnails.append(_thumbnails(batch.images[row : row + 1]))
    results = _gather(_join(parts))
    broken = results.samples[~np.isfinite(results.scores).all(1)]
    if broken.size:
        raise EvaluateError(
            f"scores that are not finite at {broken.size} samples, ids {broken[:10].tolist()}"
        )
    shown_samples, first = np.unique(ranks.gather(np.concatenate(shown)), return_index=True)
    baseline = metrics.constant(results, weights, candidates)
    return Evaluation(
        metrics.measure(results, weights),
        metrics.measure(baseline, weights),
        results,
        metrics.average_precisions(results, weights.size)[0],
        metrics.average_precisions(baseline, weights.size)[0],
        shown_samples,
        ranks.gather(np.concatenate(thumbnails))[first],
    )


def evaluate_set(
    model: nn.Module, settings: Config, subset: Subset, labels: Vocabulary, batch: int, device: torch.device
) -> Evaluation:
    """Evaluate the model on a set of its configuration, `batch` samples of a rank at a time (collective)."""
    data, samples = subset.data, subset.samples
    mine = np.array_split(samples, ranks.size())[ranks.rank()]
    own = slice_of(model)
    most, classes = (batch * ranks.size(), own.classes) if own else (batch, None)
    targets = Targets(labels, data.tags, settings.loss.name, most, classes)
    selected = vocabulary.tag_classes(labels, data.tags)
    candidates = np.unique(selected[selected >= 0])
    pictures = samples[np.linspace(0, samples.size - 1, min(PICTURES, samples.size)).astype(int)]
    with closing(
        pipeline.evaluate_batches(data, mine, config.seen(settings), batch=batch, device=device)
    ) as batches:
        return evaluate(
            model, batches, targets, settings.loss.name, frequencies(labels), candidates, pictures
        )


def evaluate_run(run: Path, which: Which | None = None, batch: int | None = None) -> Path:
    """Evaluate the newest checkpoint of a run folder and write `RUN/evaluations/<set>-<step>/` (collective).

    which: by default `default_set`. batch: samples of one rank at a time, by default its share of the
    training batch. Rank 0 writes the folder (`evaluations.save`); there is no other effect. Raises
    ConfigError, also where data or vocabulary are not those that were trained on, VocabularyError,
    DataError, CheckpointError, DeviceError or EvaluateError, before anything is written.
    """
    try:
        trained = networks.load(run)
    except NoCheckpoint:
        raise NoSet(f"{run}: no checkpoint to evaluate; `hpcscale train {run}` writes them") from None
    settings, found = trained.settings, trained.checkpoint
    labels = open_vocabulary(settings)
    subset = open_set(settings, which or default_set(settings), labels)
    chosen = subset.chosen.digest if subset.chosen else None
    contents = same.fingerprint(labels, subset.data, chosen)
    same.refuse_others(found.metadata, contents, found.file)
    batch = batch or max(1, settings.train.batch // ranks.size())
    evaluation = evaluate_set(trained.model, settings, subset, labels, batch, trained.device)
    if ranks.rank() == 0:
        save(evaluation, run, subset, found.step, labels)
    ranks.barrier()  # collective: when any rank returns, the folder is there
    return folder_of(run, subset.which, found.step)


def save(evaluation: Evaluation, run: Path, subset: Subset, step: int, labels: Vocabulary) -> Path:
    """Write the folder of an evaluation made after `step` steps, and return it; one rank calls it."""
    results, data = evaluation.results, subset.data
    weights = frequencies(labels)
    positives = np.bincount(results.labels, minlength=weights.size).tolist()
    columns = (
        (value if value == value else "" for value in precisions.tolist())  # NaN: no positives
        for precisions in (evaluation.precisions, evaluation.baseline_precisions)
    )
    summary = {
        "set": subset.which,
        "step": step,
        "data": str(data.folder),
        "digest": data.digest,
        "unreadable": subset.samples.size - results.samples.size,
        "metrics": evaluation.metrics,
        "baseline": evaluation.baseline,
    }
    rows = zip(
        range(weights.size),
        labels.classes,
        weights.astype(int).tolist(),
        positives,
        *columns,
        strict=True,
    )
    folder = folder_of(run, subset.which, step)
    thumbnails = (evaluation.thumbnail_samples, evaluation.thumbnails)
    names, digests = data.names(results.samples), data.source_digests(results.samples)
    evaluations.save(folder, summary, list(rows), results, names, thumbnails, digests)
    return folder


def folder_of(run: Path, which: Which, step: int) -> Path:
    """Where an evaluation of a run is kept."""
    return run / "evaluations" / f"{which}-{step:08d}"


def frequencies(labels: Vocabulary) -> NDArray[np.float64]:
    """(classes,) samples of each class, ancestors included, in the data the vocabulary was built on."""
    return np.array(labels.counts, np.float64)


def _keep(batch: pipeline.Batch, ranked: Ranked, targets: Targets) -> Results:
    """What is kept of a batch. Waits for the device once for every field."""
    offsets, labels = targets.labels(batch.tag_offsets, batch.tag_ids)
    return Results(
        samples=batch.samples,
        losses=ranked.losses.cpu().numpy(),
        truths=targets.truths(batch.tag_offsets, batch.tag_ids),
        guesses=ranked.guesses.int().cpu().numpy(),
        classes=ranked.classes.int().cpu().numpy(),
        scores=ranked.scores.cpu().numpy(),
        label_offsets=offsets,
        labels=labels,
    )


def _empty(classes: int, candidates: int) -> Results:
    """No samples, with the dtypes and widths of _keep: a rank may have nothing to evaluate."""
    k, g = min(metrics.TOP, classes), min(5, candidates)
    return Results(
        samples=np.zeros(0, np.int64),
        losses=np.zeros(0, np.float32),
        truths=np.zeros(0, np.int32),
        guesses=np.zeros((0, g), np.int32),
        classes=np.zeros((0, k), np.int32),
        scores=np.zeros((0, k), np.float32),
        label_offsets=np.zeros(1, np.int64),
        labels=np.zeros(0, np.int32),
    )


def _join(parts: list[Results]) -> Results:
    rows = [np.concatenate(fields) for fields in zip(*(part[:6] for part in parts), strict=True)]
    counts = np.concatenate([np.diff(part.label_offsets) for part in parts])
    labels = np.concatenate([part.labels for part in parts])
    return Results._make([*rows, np.append(0, np.cumsum(counts)), labels])


def _gather(local: Results) -> Results:
    """The results of all ranks by rising sample id, each sample once (collective, eight gathers)."""
    rows = [ranks.gather(field) for field in local[:6]]
    counts = ranks.gather(np.diff(local.label_offsets))
    joined = Results._make([*rows, np.append(0, np.cumsum(counts)), ranks.gather(local.labels)])
    return metrics.select(joined, np.unique(joined.samples, return_index=True)[1])


def _thumbnails(images: Tensor) -> NDArray[np.uint8]:
    """images (n, 3, h, w) uint8 -> (n, SIDE, SIDE, 3)."""
    small = F.interpolate(images.float(), size=(SIDE, SIDE), mode="bilinear", antialias=True)
    return small.round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()  # waits
