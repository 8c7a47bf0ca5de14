"""samples/noise.py: labels become others by the closed form, the same for a sample in every batch."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.noise import replaced

from hpcscale import config
from hpcscale.config import ConfigError
from hpcscale.data.order import identities, keyed
from hpcscale.samples.noise import Noise

COUNTS = np.array([70, 20, 10])
# q(j | i) = f_j / (1 - f_i), without j = i.
CLOSED = np.array([[0, 2 / 3, 1 / 3], [7 / 8, 0, 1 / 8], [7 / 9, 2 / 9, 0]])


def pictures(count: int, seed: int = 0) -> np.ndarray:
    digests = np.random.default_rng(5).integers(0, 256, (count, 16), dtype=np.uint8)
    return keyed(identities(digests), seed)


def csr(rows: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    return np.cumsum([0, *map(len, rows)]), np.array([c for row in rows for c in row], np.int32)


def lists(offsets: np.ndarray, classes: np.ndarray) -> list[list[int]]:
    return [part.tolist() for part in np.split(classes, offsets[1:-1])] if offsets.size > 1 else []


def noisy(
    share: float, rows: list[list[int]], duplicates: str = "merge", counts: np.ndarray = COUNTS
) -> list:
    noise = Noise(config.Noise(share=share, duplicates=duplicates), counts)
    offsets, classes = noise(pictures(len(rows)), *csr(rows))
    assert offsets.dtype == np.int64
    assert classes.dtype == np.int32
    return lists(offsets, classes)


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5, 1.0])
@pytest.mark.parametrize("of", [0, 1, 2])
def test_row_08_label_noise_follows_the_closed_form(of: int, share: float) -> None:
    n = 40_000
    found = np.array(noisy(share, [[of]] * n))[:, 0]
    changed = found[found != of]
    assert abs(changed.size - share * n) <= 4 * np.sqrt(n * share * (1 - share))  # binomial; exact at 1
    expected = CLOSED[of] * changed.size
    seen = np.bincount(changed, minlength=3)
    assert seen[of] == 0
    some = expected > 0
    assert ((seen - expected)[some] ** 2 / expected[some]).sum() < 15  # chi-square, 1 degree: p < 0.0002


def test_row_08_label_noise_of_share_0_changes_nothing_and_of_share_1_everything() -> None:
    rows = [[i % 3] for i in range(3000)]
    assert noisy(0.0, rows) == rows
    assert all(before != after for before, after in zip(rows, noisy(1.0, rows), strict=True))


def test_the_marginal_distribution_is_that_of_the_counts_where_labels_are_many() -> None:
    """With 1000 classes and a long tail the replacements are as the clean labels."""
    counts = (1e6 / np.arange(1, 1001)).astype(np.int64)
    found = np.array(noisy(1.0, [[999]] * 100_000, counts=counts))[:, 0]
    share = counts[:999] / counts[:999].sum()
    seen = np.bincount(found, minlength=999)
    statistic = ((seen - share * 100_000) ** 2 / (share * 100_000)).sum()
    assert abs(statistic - 998) < 4 * np.sqrt(2 * 998)
    assert (seen[:50] > 0).all()


ROWS = st.lists(st.sets(st.integers(0, 5), max_size=6).map(sorted), max_size=12)
SOME = st.lists(st.integers(0, 40), min_size=6, max_size=6).filter(lambda counts: sum(map(bool, counts)) > 1)


@settings(max_examples=150, deadline=None)
@given(ROWS, SOME, st.sampled_from([0.0, 0.1, 0.5, 1.0]), st.sampled_from(["merge", "resample"]))
def test_noise_is_what_the_slow_oracle_says(
    rows: list[list[int]], counts: list[int], share: float, duplicates: str
) -> None:
    found = noisy(share, rows, duplicates, np.array(counts))
    ids = pictures(len(rows)).tolist()
    assert found == [replaced(i, row, counts, share, duplicates) for i, row in zip(ids, rows, strict=True)]


def test_counts_beyond_32_bits_are_drawn_from_whole() -> None:
    counts = np.array([1 << 33, 1 << 40, 1 << 41])
    rows = [[0], [1], [2], [0, 1]] * 500
    expected = [
        replaced(i, row, counts.tolist(), 0.5) for i, row in zip(pictures(2000).tolist(), rows, strict=True)
    ]
    assert noisy(0.5, rows, counts=counts) == expected


@pytest.mark.parametrize("duplicates", ["merge", "resample"])
def test_a_sample_gets_the_same_noise_in_every_batch(duplicates: str) -> None:
    rng = np.random.default_rng(3)
    counts = np.array([500, 300, 100, 50, 20, 5])
    rows = [sorted(rng.choice(6, rng.integers(0, 4), replace=False).tolist()) for _ in range(200)]
    noise = Noise(config.Noise(share=0.5, duplicates=duplicates), counts)
    every = pictures(200)
    whole = lists(*noise(every, *csr(rows)))
    assert whole != rows
    picked = rng.permutation(200)
    for part in np.split(picked, [1, 24, 24, 90]):
        assert lists(*noise(every[part], *csr([rows[i] for i in part]))) == [whole[i] for i in part]
    assert lists(*noise(pictures(200, seed=1), *csr(rows))) != whole


def test_merge_may_shrink_a_sample_but_never_empties_it_and_resample_keeps_its_size() -> None:
    counts = np.array([500, 300, 100, 50, 20, 5])
    rows = [[0, 1, 3], [1, 2], [4]] * 300
    merged = noisy(0.5, rows, "merge", counts)
    again = noisy(0.5, rows, "resample", counts)
    assert any(len(after) < len(before) for before, after in zip(rows, merged, strict=True))
    assert min(map(len, merged)) == 1
    for before, after in zip(rows, again, strict=True):
        assert len(before) == len(after) == len(set(after))
    new = sum(len(set(after) - set(before)) for before, after in zip(rows, again, strict=True))
    assert abs(new - 900) < 4 * np.sqrt(1800 * 0.25)  # what is replaced is never one that the sample had


def test_resample_merges_where_a_sample_has_every_class() -> None:
    found = noisy(1.0, [[0, 1, 2]] * 100, "resample")
    assert found == noisy(1.0, [[0, 1, 2]] * 100, "merge")
    assert {len(row) for row in found} == {2, 3}


def test_noise_needs_two_classes_with_samples() -> None:
    with pytest.raises(ConfigError, match=r"noise\.share is 0\.1, but 1 of 3 classes"):
        Noise(config.Noise(share=0.1), np.array([0, 9, 0]))
    assert lists(*Noise(config.Noise(), np.array([0, 9, 0]))(pictures(1), *csr([[1]]))) == [[1]]
