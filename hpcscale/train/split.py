"""Training with a classifier that is divided over ranks (models/slices.py): its losses, and its state.

In: logits of a slice for the samples of all ranks. Out: losses that add up over ranks to those of the whole
classifier. On disk a classifier is whole, so that any number of ranks, and all that read checkpoints, can
read it; a row of optimizer state goes with its row of weights.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from hpcscale import ranks
from hpcscale.models import slices
from hpcscale.train import loss


def softmax(logits: Tensor, targets: Tensor) -> Tensor:
    """This rank's part of `loss.softmax` of all classes (collective)."""
    return loss.softmax(logits, targets) + slices.shift(loss.wide(logits), targets).sum()


# Classes do not meet in the logistic loss: its parts add up as they are.
LOSSES = {"logistic": loss.logistic, "softmax": softmax}


def rows_of(name: str, divided: Mapping[str, int]) -> int:
    """Rows, when whole, of a tensor of a state; 0 if ranks do not divide it. divided: `slices.divided`.
    Optimizer state is named after its parameter."""
    return divided.get(name) or divided.get(name.rpartition(".")[0]) or 0


def whole(state: Mapping[str, Tensor], divided: Mapping[str, int]) -> dict[str, Tensor]:
    """The state with all rows of what is divided, on rank 0 (collective); on others nobody may read it.

    Rows come in pieces, so that no other rank ever holds more than a slice beside its own.
    """
    return {
        name: _joined(tensor, rows) if (rows := rows_of(name, divided)) else tensor
        for name, tensor in state.items()
    }


def _joined(own: Tensor, rows: int) -> Tensor:
    if ranks.size() == 1:
        return own
    piece = math.ceil(len(own) / ranks.size())
    kept = len(own) if ranks.rank() == 0 else 0
    joined = torch.empty(ranks.size(), kept, *own.shape[1:], dtype=own.dtype)
    for first in range(0, len(own), piece):
        found = ranks.gather_rows(own[first : first + piece])
        if kept:
            joined[:, first : first + piece] = slices.by_rank(found)
    return joined.flatten(0, 1)[:rows]


def shapes(state: Mapping[str, Tensor], divided: Mapping[str, int]) -> dict[str, Tensor]:
    """The state with tensors in the place of what is divided that have the whole shape, and no memory."""
    return {
        name: tensor.new_empty(rows, *tensor.shape[1:], device="meta")
        if (rows := rows_of(name, divided))
        else tensor
        for name, tensor in state.items()
    }


def spread(state: Mapping[str, Tensor], stored: Mapping[str, Tensor], divided: Mapping[str, int]) -> None:
    """Give each rank its rows of what is divided (collective). stored: the whole tensors, of rank 0."""
    for name, own in state.items():
        if not (rows := rows_of(name, divided)):
            continue
        for rank in range(ranks.size()):
            block = range(rows)[rank * len(own) : (rank + 1) * len(own)]
            sent = torch.empty_like(own[: len(block)])
            if ranks.rank() == 0:
                sent.copy_(stored[name][block.start : block.stop])
            ranks.broadcast([sent])
            if ranks.rank() == rank:
                own.detach()[: len(block)] = sent
