"""The best classes of a classifier that is divided over ranks are those of the whole one, ties included."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_classify import CANDIDATES, CLASSES, SAMPLES, WEIGHTS, Labels, batches_of
from torch import Tensor, nn

from hpcscale import ranks
from hpcscale.evaluate import classify
from hpcscale.evaluate.metrics import Results
from hpcscale.models import slices
from hpcscale.models.backbone import Network

FEATURES = 6


class Table(Network):
    """Features of sample i are row i of a table of small integers: logits are exact, and often equal."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        chance = torch.Generator().manual_seed(7)
        self.table = torch.randint(-3, 4, (SAMPLES, FEATURES), generator=chance).float()
        self.fc = nn.Linear(FEATURES, classes)
        for parameter in self.fc.parameters():
            parameter.data = torch.randint(-2, 3, parameter.shape, generator=chance).float()

    def features(self, images: Tensor) -> Tensor:
        return self.table[((images[:, 0, 0, 0] + 1) * 127.5).round().long()]


class Own(Labels):
    """Rows of some classes alone, in as many as there are."""

    def __init__(self, loss: str, classes: range) -> None:
        self.loss, self.kept = loss, classes

    def rows(self, offsets: Any, ids: Any) -> Any:
        rows = super().rows(offsets, ids)
        if self.loss == "softmax":
            rows /= np.maximum(1, rows.sum(1, keepdims=True))
        return rows[:, self.kept.start : self.kept.stop]


def evaluated(loss: Any, divided: bool) -> Results:
    """By this rank's part of the samples: none for the last of several."""
    model = Table(CLASSES)
    classes = slices.cut(model).classes if divided else range(CLASSES)
    sharing = max(1, ranks.size() - 1)
    parts = [*np.array_split(np.arange(SAMPLES), sharing), np.zeros(0, int)]
    batches = batches_of(parts[ranks.rank()], 5)
    targets: Any = Own(loss, classes)
    return classify.evaluate(model, batches, targets, loss, WEIGHTS, CANDIDATES, np.zeros(1)).results


@pytest.mark.slow
@pytest.mark.parametrize("count", [3, 4])
def test_row_15_the_best_of_all_slices_are_the_best(tmp_path: Path, count: int) -> None:
    """Losses, the hundred best classes with their scores, and guesses, of samples in batches of any sizes.
    Slices of 44 classes and 33: fewer than a hundred, the last of four has 31."""
    code = f"""
import sys
import torch
sys.path = {sys.path}
from hpcscale import ranks
from test_ranking import evaluated
ranks.init()
found = [list(map(torch.from_numpy, evaluated(loss, True))) for loss in ("logistic", "softmax")]
if ranks.rank() == 0:
    torch.save(found, {str(tmp_path / "found")!r})
"""
    assert ranks.launch([sys.executable, "-c", code], count) == 0
    for loss, found in zip(("logistic", "softmax"), torch.load(tmp_path / "found"), strict=True):
        wanted = evaluated(loss, False)
        assert len(np.unique(wanted.scores)) < wanted.scores.size / 20  # ties
        for name, field, each in zip(Results._fields, found, wanted, strict=True):
            if name == "losses":
                np.testing.assert_allclose(field, each, rtol=1e-6)
            else:
                np.testing.assert_array_equal(field, each)


def test_row_15_one_slice_is_ranked_as_the_whole() -> None:
    for loss in ("logistic", "softmax"):
        found, wanted = evaluated(loss, True), evaluated(loss, False)
        assert all(np.array_equal(*pair) for pair in zip(found, wanted, strict=True))
