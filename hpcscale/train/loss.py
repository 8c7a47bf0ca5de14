"""Losses: logits and target rows in, the sum over the batch's samples out; train.loop divides by the global
batch.

Sums and not means, because a rank sees a part of the batch: the gradients of all ranks, each divided by the
global batch, add up to the gradient of the mean. All arithmetic is float32, whatever the network computes in.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def logistic(logits: Tensor, targets: Tensor) -> Tensor:
    """One binary cross-entropy per class, summed over classes and samples.

    logits (n, classes), targets (n, classes) float32 0 or 1 -> scalar. Classes that are not present are
    negative (Sun et al. 2017, section 4.1); the sum over classes is that of big_vision's sigmoid_xent. A
    sample without a class is negative for all classes.
    """
    _check(logits, targets)
    return F.binary_cross_entropy_with_logits(wide(logits), targets, reduction="sum")


def softmax(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy against a distribution over classes, summed over samples.

    logits (n, classes), targets (n, classes) float32, 1/k for each of a sample's k classes -> scalar (Mahajan
    et al. 2018, section 2.3). A sample without a class has a row of zeros: it adds nothing to loss and
    gradient, and still counts in the batch by which both are divided.
    """
    _check(logits, targets)
    return F.cross_entropy(wide(logits), targets, reduction="sum")


LOSSES = {"logistic": logistic, "softmax": softmax}


def wide(logits: Tensor) -> Tensor:
    """Logits as losses compute with them: float32, or float64 if they are."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _check(logits: Tensor, targets: Tensor) -> None:
    # Same shape and dtype: cross_entropy would take class indices, and binary_cross_entropy would broadcast.
    if logits.shape != targets.shape or not targets.is_floating_point():
        raise ValueError(
            f"targets must be floating point of shape {tuple(logits.shape)}, "
            f"found {targets.dtype} of shape {tuple(targets.shape)}"
        )
