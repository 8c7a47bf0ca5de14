"""The pictures of a class by how typical they are: k-means over features, bins of the distance.

In: features of the pictures of a class. Out: a sheet, which the page noise.html shows. Each picture lies at
the distance to the nearest centroid (Euclidean; features have length 1, so it is from 0 to 2). Sun et al.
2017 (figure 2) quantise the distances and do not say how. Here each bin has the same number of pictures, give
or take one, so that a bin is a known share of the class: if the last of five looks wrong, a fifth is.
"""

import warnings
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

FEW = 4  # pictures for each cluster and for each bin: classes with fewer are left out


class Look(NamedTuple):
    """How a class is looked at."""

    clusters: int = 5
    bins: int = 5
    tiles: int = 12  # of each bin that are shown, from its nearest picture to its farthest
    most: int = 500  # pictures of a class that are used: those with the smallest digests of their files

    @property
    def least(self) -> int:
        """Pictures that a class needs."""
        return FEW * max(self.clusters, self.bins)


LOOK = Look()


class Clustered(NamedTuple):
    clusters: NDArray[np.int32]  # (n,) of each picture
    distances: NDArray[np.float64]  # (n,) to the nearest centroid


def cluster(features: NDArray[np.float32], clusters: int) -> Clustered:
    """k-means, the best of four starts with fixed seeds; features (n, d), at least as many as clusters.

    Clusters are numbered from the largest on.
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer different pictures than clusters
        found = KMeans(clusters, n_init=4, random_state=0).fit(features)
    distances = found.transform(features).min(1).astype(np.float64)
    order = np.argsort(-np.bincount(found.labels_, minlength=clusters), kind="stable")
    ranks = np.empty(clusters, np.int32)
    ranks[order] = np.arange(clusters, dtype=np.int32)
    return Clustered(ranks[found.labels_], distances)


def bins(distances: NDArray[np.float64], samples: NDArray[np.int64], count: int) -> list[NDArray[np.int64]]:
    """Rows from the nearest to the farthest, cut into `count` bins of equal size, give or take one.

    Of equally far ones, the lower sample comes first.
    """
    return np.array_split(np.lexsort((samples, distances)), count)


def sheet(name: str, total: int, samples: NDArray[np.int64], found: Clustered, look: Look) -> dict[str, Any]:
    """What the page knows of a class; the tiles of its bins are samples as yet."""
    columns: list[dict[str, Any]] = []
    sizes = np.bincount(found.clusters, minlength=look.clusters).tolist()
    for rows in bins(found.distances, samples, look.bins):
        tiles = rows[np.linspace(0, len(rows) - 1, min(look.tiles, len(rows))).round().astype(np.int64)]
        columns.append({
            "pictures": len(rows),
            "from": float(found.distances[rows[0]]),
            "to": float(found.distances[rows[-1]]),
            "clusters": np.bincount(found.clusters[rows], minlength=look.clusters).tolist(),
            "tiles": [
                {"sample": sample, "distance": distance, "cluster": number}
                for sample, distance, number in zip(samples[tiles].tolist(), found.distances[tiles].tolist(),
                                                    found.clusters[tiles].tolist(), strict=True)
            ],
        })  # fmt: skip
    return {"name": name, "total": total, "used": len(samples), "clusters": sizes, "bins": columns}
