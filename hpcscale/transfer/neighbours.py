"""Nearest neighbours by cosine: how well features tell classes apart with nothing trained on them.

The k nearest training rows vote for their labels, equally, or each with exp(cosine / 0.07) as in Wu et al.
2018, section 3.4. Of rows at one distance, which is in millionths (dedup/cosine.py), the first are nearer. Of
labels with equally many votes the one whose nearest row is nearest wins.
"""

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from hpcscale.files import Usage
from hpcscale.progress import Progress, none
from hpcscale.transfer.probe import Features, Labels

Weighting = Literal["equal", "cosine"]
TEMPERATURE = 0.07
QUERIES = 2048  # rows asked for at a time


def predict(
    x: Features,
    y: Labels,
    test: Features | None,
    k: int,
    weighting: Weighting = "equal",
    progress: Progress = none,
) -> NDArray[np.int64]:
    """The label of each row of `test` by the k nearest of x (n, d) with labels y (n,)  # (rows of test,)

    test None: of each row of x, by the others. Raises Usage if there are not so many neighbours.
    """
    from hpcscale.dedup import cosine  # faiss only where it is needed

    most = len(x) - (test is None)
    if not 1 <= k <= most:
        raise Usage(f"k must be from 1 to the {most} neighbours that there are, found {k}")
    base, asked = _unit(x), _unit(x if test is None else test)
    found = np.empty(len(asked), np.int64)
    for start in range(0, len(asked), QUERIES):
        queries = asked[start : start + QUERIES]
        block = max(1, cosine.FLOATS // base.shape[1])
        parts = (base[first : first + block] for first in range(0, len(base), block))
        rows, far = cosine.nearest(
            queries, parts, k, start if test is None else None, torch.get_num_threads()
        )
        near = 1 - far / cosine.UNIT
        votes = np.exp((near - 1) / TEMPERATURE) if weighting == "cosine" else np.ones_like(near)
        found[start : start + len(queries)] = _elected(y[rows].astype(np.int64), votes)
        progress("neighbours", start + len(queries), len(asked))
    return found


def _elected(labels: NDArray[np.int64], votes: NDArray[np.float64]) -> NDArray[np.int64]:
    """labels, votes (n, k), nearest first -> the label with most votes, of equal ones the first  # (n,)"""
    total = np.zeros_like(votes)
    for column in range(labels.shape[1]):
        total += (labels == labels[:, column, None]) * votes[:, column, None]
    return np.take_along_axis(labels, total.argmax(1)[:, None], 1)[:, 0]


def _unit(x: Features) -> NDArray[np.float32]:
    """Rows of length 1; one of zeros stays, at distance 1 of all."""
    lengths = np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)
    unit: NDArray[np.float32] = (x / np.maximum(lengths, np.finfo(np.float64).tiny)).astype(np.float32)
    return unit
