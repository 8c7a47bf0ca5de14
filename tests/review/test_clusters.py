"""k-means within a class and bins of distance: blobs that are known, against scikit-learn and by hand."""

from itertools import pairwise

import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.datasets import make_blobs

from hpcscale.review.clusters import Look, bins, cluster, sheet


def blobs(seed: int, sizes=(40, 25, 10), d: int = 16):
    """Features of length 1 around far centres, and which centre each is of."""
    centres = np.eye(d)[: len(sizes)] * 10
    points, truth = make_blobs(list(sizes), d, centers=centres, cluster_std=0.3, random_state=seed)
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32), truth


@pytest.mark.parametrize("seed", range(4))
def test_row_10_clusters_are_the_blobs_and_distances_those_of_scikit_learn(seed: int) -> None:
    features, truth = blobs(seed)
    found = cluster(features, 3)
    assert (found.clusters == truth).all()  # blobs and clusters are both numbered from the largest on
    centroids = np.array([features[truth == c].astype(np.float64).mean(0) for c in range(3)])
    nearest = np.linalg.norm(features[:, None] - centroids, axis=2).min(1)
    assert found.distances == pytest.approx(nearest, abs=1e-5)
    theirs = KMeans(3, n_init=4, random_state=0).fit(features).transform(features).min(1)
    assert found.distances == pytest.approx(theirs, abs=1e-6)
    assert all((one == other).all() for one, other in zip(found, cluster(features, 3), strict=True))


def test_row_10_what_belongs_to_no_cluster_is_in_the_last_bin() -> None:
    features, _ = blobs(1)
    random = np.random.default_rng(0)
    odd = random.choice(len(features), 9, replace=False)
    features[odd] = random.normal(size=(9, 16))
    features[odd] /= np.linalg.norm(features[odd], axis=1, keepdims=True)
    rows = bins(cluster(features, 3).distances, np.arange(len(features)), 5)[-1]
    assert set(odd) <= set(rows.tolist())


@pytest.mark.parametrize(("n", "count"), [(75, 5), (76, 5), (79, 5), (40, 7), (3, 3), (9, 1)])
def test_row_10_bins_are_monotone_and_hold_every_picture_once(n: int, count: int) -> None:
    distances = np.random.default_rng(n).integers(0, 30, n) / 10  # with ties
    samples = np.random.default_rng(1).permutation(1000)[:n].astype(np.int64)
    found = bins(distances, samples, count)
    assert sorted(np.concatenate(found).tolist()) == list(range(n))
    sizes = [len(rows) for rows in found]
    assert len(sizes) == count
    assert max(sizes) - min(sizes) <= 1
    for near, far in pairwise(found):
        assert distances[near].max() <= distances[far].min()
    order = np.concatenate(found)
    keys = list(zip(distances[order].tolist(), samples[order].tolist(), strict=True))
    assert keys == sorted(keys)


def test_equal_pictures_are_no_fault() -> None:
    found = cluster(np.ones((20, 4), np.float32) / 2, 5)
    assert (found.clusters == 0).all()
    assert found.distances == pytest.approx(np.zeros(20))


def test_a_sheet_shows_some_of_every_bin() -> None:
    features, _ = blobs(2)
    samples = np.arange(100, 175, dtype=np.int64)
    found = cluster(features, 3)
    look = Look(3, 5, 4)
    page = sheet("dog", 9000, samples, found, look)
    assert (page["name"], page["total"], page["used"]) == ("dog", 9000, 75)
    assert page["clusters"] == [40, 25, 10]
    assert [one["pictures"] for one in page["bins"]] == [15] * 5
    assert np.array([one["clusters"] for one in page["bins"]]).sum(0).tolist() == page["clusters"]
    assert [len(one["tiles"]) for one in page["bins"]] == [4] * 5
    tiles = [tile for one in page["bins"] for tile in one["tiles"]]
    assert len({tile["sample"] for tile in tiles}) == 20
    for one in page["bins"]:
        for tile in one["tiles"]:
            row = tile["sample"] - 100
            assert one["from"] <= tile["distance"] <= one["to"]
            assert (tile["distance"], tile["cluster"]) == (found.distances[row], found.clusters[row])
    assert page["bins"][0]["tiles"][0]["distance"] == found.distances.min()
    assert page["bins"][4]["tiles"][3]["distance"] == found.distances.max()
    every = sheet("dog", 9000, samples, found, look._replace(tiles=1000))
    shown = [tile["sample"] for one in every["bins"] for tile in one["tiles"]]
    assert sorted(shown) == samples.tolist()
