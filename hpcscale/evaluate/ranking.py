"""What a network says of batches: the loss of each sample, and its best classes; used by classify.evaluate.

In: a network and the batches of this rank. Out: `Ranked`, batch by batch. Where the classifier is divided
over ranks (models/slices.py), every rank scores its classes for the samples of all ranks, and only the best
of each slice travel to the rank of a sample, where they are merged.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from hpcscale import ranks
from hpcscale.evaluate.metrics import TOP
from hpcscale.inputs.pipeline import Batch
from hpcscale.labels.targets import Targets
from hpcscale.models import slices
from hpcscale.models.backbone import Network
from hpcscale.models.preprocessing import Normalized

GUESSES = 5  # for top-5


class Ranked(NamedTuple):
    """Of n samples, on the device."""

    losses: Tensor  # (n,) float32
    scores: Tensor  # (n, k) float32, falling: of the `TOP` best classes
    classes: Tensor  # (n, k)
    guesses: Tensor  # (n, g) the best of the candidates, best first


def ranked(
    model: nn.Module, batches: Iterable[Batch], targets: Targets, loss: str, candidates: NDArray[np.int32]
) -> Iterator[tuple[Batch, Ranked]]:
    """Every batch with what the model says of it. With a divided classifier, collective: until no rank has a
    batch."""
    among, normalized = torch.from_numpy(candidates), Normalized()
    if (own := slices.slice_of(model)) is not None:
        assert isinstance(model, Network)
        yield from _divided(model, own, batches, targets, loss, among, normalized)
        return
    for batch in batches:
        logits = model(normalized(batch.images, batch.values)).float()
        rows = torch.from_numpy(targets.rows(batch.tag_offsets, batch.tag_ids)).to(logits.device)
        classes, guessed = torch.arange(logits.shape[1], device=logits.device), among.to(logits.device)
        guesses = _best(logits[:, guessed], guessed, GUESSES)[1]
        yield batch, Ranked(_losses(logits, rows, loss), *_best(logits, classes, TOP), guesses)


def _divided(
    model: Network,
    own: slices.Slice,
    batches: Iterable[Batch],
    targets: Targets,
    loss: str,
    among: Tensor,
    normalized: Normalized,
) -> Iterator[tuple[Batch, Ranked]]:
    device = own.weight.device
    classes = torch.arange(own.classes.start, own.classes.stop, device=device)
    mine = among[(among >= own.classes.start) & (among < own.classes.stop)].to(device)
    for batch, most in _together(batches):
        features = torch.zeros(most, own.in_features, device=device)
        labels = np.zeros(1, np.int64), np.zeros(0, np.int32)
        if batch is not None:
            shown = normalized(batch.images, batch.values)
            features[: len(batch.samples)] = model.features(shown).float()
            labels = batch.tag_offsets, batch.tag_ids
        logits = own(features)
        rows = torch.from_numpy(targets.rows(*slices.all_labels(*labels, most))).to(device)
        losses = _losses(logits, rows, loss)
        if loss == "softmax":
            losses = losses + slices.shift(logits, rows)
        found = (
            slices.summed(losses),
            *_merged(logits, classes, min(TOP, own.all_classes)),
            _merged(logits[:, mine - own.classes.start], mine, min(GUESSES, len(among)))[1],
        )
        if batch is not None:
            yield batch, Ranked(*(field[: len(batch.samples)] for field in found))


def _together(batches: Iterable[Batch]) -> Iterator[tuple[Batch | None, int]]:
    """This rank's next batch, None if it has no more, and how many samples the largest of all ranks has; ends
    when no rank has one (collective)."""
    left = iter(batches)
    while True:
        batch = next(left, None)
        most = ranks.gather(np.array([0 if batch is None else len(batch.samples)])).max()
        if not most:
            return
        yield batch, int(most)


def _losses(logits: Tensor, rows: Tensor, loss: str) -> Tensor:
    """(n,) of each sample."""
    if loss == "softmax":
        return F.cross_entropy(logits, rows, reduction="none")
    return F.binary_cross_entropy_with_logits(logits, rows, reduction="none").sum(1)


def _best(scores: Tensor, classes: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """The `most` best of scores (n, m), falling, and their classes, (m,) or (n, m); of equal scores the first
    comes first."""
    # A stable sort costs under a hundredth of the network.
    order = torch.sort(scores, dim=1, descending=True, stable=True).indices[:, :most]
    return scores.gather(1, order), classes.expand_as(scores).gather(1, order)


def _merged(scores: Tensor, classes: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Scores (ranks * n, m) of this rank's classes for the samples of all ranks -> the best of all classes
    for this rank's n samples, as `_best` (collective). `most`, alike on all ranks, is at most the number of
    all classes."""
    found, chosen = _best(scores, classes, most)
    lacking = (0, most - found.shape[1])  # a slice may have fewer
    found = ranks.exchange_rows(F.pad(found, lacking, value=-torch.inf))
    chosen = ranks.exchange_rows(F.pad(chosen, lacking, value=-1))
    # Rank by rank, so that of equal scores the lower class comes first.
    found, chosen = (slices.by_rank(each).transpose(0, 1).flatten(1) for each in (found, chosen))
    return _best(found, chosen, most)
