"""The transfer demo can fail; its sets do not overlap. What it finds is for `make transfer-demo`."""

import numpy as np
import pytest

from hpcscale.demos import transfer


@pytest.mark.parametrize(
    ("pretrained", "random", "ahead"),
    [
        ([0.7, 0.72], [0.4, 0.41], True),
        ([0.7, 0.72], [0.69, 0.7], False),  # within the spread of the first
        ([0.7, 0.7], [0.4, 0.72], False),  # of the second
        ([0.4, 0.41], [0.7, 0.72], False),
    ],
)
def test_ahead_is_by_more_than_the_spread_of_seeds(
    pretrained: list[float], random: list[float], ahead: bool
) -> None:
    line, found = transfer.verdict("probe", pretrained, random)
    assert found == ahead
    assert line.startswith("probe: top-1 0.")


def test_pictures_of_each_class_are_taken_once() -> None:
    labels = np.repeat(np.arange(3), 7)
    pixels = np.arange(21, dtype=np.uint8)[:, None, None] * np.ones((1, 28, 28), np.uint8)
    many, few = transfer.of_each((pixels, labels), 0, 4), transfer.of_each((pixels, labels), 4, 6)
    assert np.bincount(many[1]).tolist() == [4, 4, 4]
    assert few[0][:, 0, 0].tolist() == [4, 5, 11, 12, 18, 19]
    assert not set(many[0][:, 0, 0].tolist()) & set(few[0][:, 0, 0].tolist())


def test_noise_is_of_the_stated_share() -> None:
    labels = np.zeros(20_000, np.int64)
    wrong = float((transfer.with_noise(labels) != labels).mean())
    assert wrong == pytest.approx(transfer.NOISE * 0.9, abs=0.01)  # a tenth of what is drawn is right


@pytest.mark.skipif(not transfer.FASHION.exists(), reason="needs Debian's dataset-fashion-mnist")
def test_fashion_mnist_is_read() -> None:
    pixels, labels = transfer.images("t10k")
    assert pixels.shape == (10_000, 28, 28)
    assert np.bincount(labels).tolist() == [1000] * 10
