"""A classifier whose classes are divided over ranks: features and label lists travel, logits never do.

In: the whole classifier, alike on all ranks. Out: a layer that holds the classes of this rank, and what ranks
must tell one another so that losses are those of the whole. Each of n ranks has ceil(classes / n) rows: Sun
et al. 2017 (section 4.1) cut 18,291 classes into 50 equal parts, which is 18,300 rows. The rows too many are
the last ones; they are zero, get no gradient, and no logit comes from them.
"""

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from hpcscale import ranks
from hpcscale.models.backbone import Network


class Slice(nn.Linear):
    """The rows of a classifier that are this rank's."""

    def __init__(self, whole: nn.Linear) -> None:
        """The weights of `whole`, and whether they are trained, stay as they are."""
        rows = math.ceil(whole.out_features / ranks.size())
        super().__init__(whole.in_features, rows, device="meta")  # draws no weights
        first = min(rows * ranks.rank(), whole.out_features)
        self.all_classes = whole.out_features
        self.classes = range(first, min(first + rows, whole.out_features))
        for name, tensor in whole.named_parameters():
            own = torch.zeros(rows, *tensor.shape[1:], dtype=tensor.dtype, device=tensor.device)
            own[: len(self.classes)] = tensor.detach()[first : self.classes.stop]
            setattr(self, name, nn.Parameter(own, tensor.requires_grad))

    def forward(self, features: Tensor) -> Tensor:
        """features (n, f) of this rank, n alike on all -> logits (ranks * n, classes of this rank) of all
        ranks' features, rank by rank (collective, and so is its gradient)."""
        everything = features
        if ranks.size() > 1:
            everything = _Gathered.apply(features)  # type: ignore[no-untyped-call]
        return F.linear(everything, self.weight, self.bias)[:, : len(self.classes)]


def cut(network: Network) -> Slice:
    """Keep this rank's slice of the classifier alone. The network's logits are then those of `Slice`."""
    network.fc = Slice(network.fc)
    return network.fc


def slice_of(model: nn.Module) -> Slice | None:
    """The slice of a network whose classifier is divided."""
    return next((module for module in model.modules() if isinstance(module, Slice)), None)


def divided(model: nn.Module) -> dict[str, int]:
    """The parameters of which each rank has rows of its own, by name: how many rows they have when whole."""
    return {
        f"{prefix}.{name}": module.all_classes
        for prefix, module in model.named_modules()
        if isinstance(module, Slice)
        for name, _ in module.named_parameters()
    }


class _Gathered(torch.autograd.Function):
    """Features of all ranks; a gradient goes back to the rank whose they are, summed over ranks in their
    order."""

    @staticmethod
    def forward(ctx: Any, features: Tensor) -> Tensor:
        return ranks.gather_rows(features)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return summed(gradient)


def summed(rows: Tensor) -> Tensor:
    """(ranks * n, ...), what this rank adds to the rows of each -> (n, ...), the sum of this rank's rows
    (collective)."""
    return by_rank(ranks.exchange_rows(rows)).sum(0)


def by_rank(rows: Tensor) -> Tensor:
    """(ranks * n, ...) -> (ranks, n, ...)."""
    return rows.view(ranks.size(), len(rows) // ranks.size(), *rows.shape[1:])


def shift(logits: Tensor, targets: Tensor) -> Tensor:
    """What the softmax losses (n,) of a slice's logits lack to those of all classes (collective).

    logits (n, classes of this rank) float32 or float64, targets alike. A slice alone would divide by its own
    sum of exponentials: ranks exchange the largest logarithm of these sums, then the sums themselves and
    those of the targets, three numbers a sample. The losses of all slices, shifted, add up to the whole.
    """
    least = torch.finfo(logits.dtype).min / 4  # of a slice without a class, where the logarithm is -inf
    own = torch.logsumexp(logits, 1).clamp(min=least)
    shifted: Tensor = _Shift.apply(own, targets.sum(1))  # type: ignore[no-untyped-call]
    return shifted


class _Shift(torch.autograd.Function):
    """share * (log of the sum over ranks of exp(own) - own); its gradient is that of the sum over ranks."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, share: Tensor) -> Tensor:
        largest = ranks.max_(own.clone())
        sums, shares = ranks.sum_(torch.stack([torch.exp(own - largest), share]))
        whole = largest + sums.log()
        ctx.save_for_backward(shares * torch.exp(own - whole) - share)
        shifted: Tensor = share * (whole - own)
        return shifted

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (slope,) = ctx.saved_tensors
        return gradient * slope, None


def all_labels(
    offsets: NDArray[np.int64], ids: NDArray[np.int32], rows: int
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Label lists of all ranks' samples, rank by rank, `rows` of each (collective, one gather): CSR in and
    out. A rank with fewer gets empty lists behind them."""
    if ranks.size() == 1 and len(offsets) == rows + 1:
        return offsets, ids
    lengths = np.zeros(rows, np.int64)
    lengths[: len(offsets) - 1] = np.diff(offsets)
    told = ranks.gather(np.concatenate([lengths, ids]))
    counts, found, at = [], [], 0
    while at < told.size:
        counts.append(told[at : at + rows])
        end = at + rows + int(counts[-1].sum())
        found.append(told[at + rows : end])
        at = end
    return np.append(0, np.cumsum(np.concatenate(counts))), np.concatenate(found).astype(np.int32)
