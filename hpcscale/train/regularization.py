"""MixUp and dropout: what chance does to the batch of a step; used by train.pretrain.

In: pictures, target rows or features of a batch, and which step. Out: the same, mixed or thinned out.

All is a pure function of the seed, the step and the place in the global batch, so a run that goes on draws
the same, and so do two ranks and one rank in two parts. A block is what passes through the network at once:
part p of rank r is block r * parts + p.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hpcscale.data.order import permute, words

# Separate the streams that come from one seed.
SHARE, PARTNER, DROP = 0x5348415245, 0x504152544E4552, 0x44524F50
ATTEMPTS = 64  # of a draw from Beta, each of which is good with a probability of at least a half


def share(alpha: float, seed: int, step: int) -> float:
    """The share of a step's MixUp, in [0, 1], from Beta(alpha, alpha) with alpha in (0, 1].

    One for all ranks and parts. By Jöhnk 1964: u^(1/alpha) / (u^(1/alpha) + v^(1/alpha)), u and v uniform,
    of the first pair where the two powers add up to at most 1; in logarithms, since powers become too small.
    """
    drawn = words(seed ^ SHARE, [np.array([step], np.uint64)], 2 * ATTEMPTS)
    logs = np.log((drawn.reshape(ATTEMPTS, 2) + 0.5) / 2.0**64) / alpha
    one, other = logs[np.argmax(np.exp(logs).sum(axis=1) <= 1.0)]
    return float(0.5 + 0.5 * np.tanh(0.5 * (one - other)))


def partners(seed: int, step: int, blocks: Sequence[int], rows: int) -> NDArray[np.int64]:
    """With which row each row is mixed: a permutation inside each block, of `rows` rows  # (blocks * rows,)

    A row may be its own partner, as in BiT.
    """
    count = len(blocks)
    keys = words(seed ^ PARTNER, [np.full(count, step, np.uint64), np.array(blocks, np.uint64)], 1)[:, 0]
    inside = permute(np.tile(np.arange(rows), count), rows, np.repeat(keys, rows))
    return inside + np.repeat(np.arange(count) * rows, rows)


def mixed(values: Tensor, partners: NDArray[np.int64], share: float) -> Tensor:
    """share * values + (1 - share) * those of the partners, along the first axis; new memory, same layout.

    Zhang et al. 2018, section 2, on pictures and on targets with one share. Both losses are linear in their
    targets, so this is the mix of the two losses that BiT computes.
    """
    return torch.lerp(values[_there(partners, values.device)], values, share)


def dropped(features: Tensor, rate: float, seed: int, step: int, first: int) -> Tensor:
    """Features (n, f), each zero with probability `rate`, in [0, 1), and else divided by 1 - rate, so that
    means stay (Srivastava et al. 2014, section 10). first: place of the first row in the global batch."""
    n, width = features.shape
    rows = np.arange(first, first + n, dtype=np.uint64)
    found = words(seed ^ DROP, [np.full(n, step, np.uint64), rows], width) < np.uint64(int(rate * 2.0**64))
    return features.masked_fill(_there(found, features.device), 0.0) / (1.0 - rate)


def _there(array: NDArray[np.int64] | NDArray[np.bool_], device: torch.device) -> Tensor:
    """On the device, without waiting for a GPU: it copies from pinned memory."""
    tensor = torch.from_numpy(array)
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)
