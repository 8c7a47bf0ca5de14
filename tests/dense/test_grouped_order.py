"""Batches of one shape: what is trained on stays the same, in another order, a pure function of the place."""

import numpy as np
import pytest

from hpcscale import tasks
from hpcscale.config import ConfigError
from hpcscale.data.order import Whole
from hpcscale.dense.order import Order

COUNT, BATCH, GROUPED = 101, 4, 8


def orders() -> tuple[Order, Order]:
    """Of pictures of random shapes; as they are drawn, and grouped."""
    shapes = np.random.default_rng(0).uniform(0.5, 2, COUNT)
    plain = Order(np.arange(COUNT) * 2, Whole(COUNT, 3))
    return plain, plain._replace(shapes=shapes, grouped=GROUPED, batch=BATCH)


def test_every_window_has_the_pictures_that_it_had() -> None:
    plain, grouped = orders()
    length = BATCH * GROUPED
    for window in range(10):
        places = np.arange(window * length, (window + 1) * length)
        pairs = [sorted(zip(*(each.tolist() for each in order.at(places)), strict=True))
                 for order in (plain, grouped)]  # fmt: skip
        assert pairs[0] == pairs[1]


def test_pictures_of_a_batch_are_alike_and_batches_come_in_a_random_order() -> None:
    plain, grouped = orders()
    places = np.arange(50 * BATCH * GROUPED)
    spreads, middles = [], []
    for order in (plain, grouped):
        shapes = grouped.shapes[order.at(places)[0]].reshape(-1, BATCH)
        spreads.append(np.ptp(shapes, axis=1).mean())
        middles.append(shapes.mean(axis=1))
    assert spreads[1] < spreads[0] / 4
    rising = np.diff(middles[1].reshape(-1, GROUPED), axis=1) > 0
    assert 0.4 < rising.mean() < 0.6  # sorted batches would rise always


def test_a_place_gives_the_same_alone_and_beside_others() -> None:
    _, grouped = orders()
    places = np.random.default_rng(1).permutation(1000)
    rows, epochs = grouped.at(places)
    alone = [grouped.at(places[n : n + 1]) for n in range(len(places))]
    assert rows.tolist() == [row[0] for row, _ in alone]
    assert epochs.tolist() == [epoch[0] for _, epoch in alone]


def test_it_is_off_unless_a_detector_wants_it(recipes, tmp_path) -> None:
    assert tasks.load(recipes["faster_rcnn"]).data.grouped == 1
    assert tasks.load(recipes["faster_rcnn"], ["data.grouped=8"]).data.grouped == 8
    with pytest.raises(ConfigError, match=r"data\.grouped: is of a detector"):
        tasks.load(recipes["deeplab"], ["data.grouped=8"])
