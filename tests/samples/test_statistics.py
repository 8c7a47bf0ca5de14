"""Statistics of classes: counts, histograms, pairs, what a sampling makes of them, against slow oracles."""

from collections import Counter
from itertools import combinations

import numpy as np
import pytest

from hpcscale.config import Sampling
from hpcscale.labels import hierarchy
from hpcscale.labels.vocabulary import Vocabulary
from hpcscale.samples import statistics
from hpcscale.samples.statistics import measure

TREE = ("thing", "fruit", "apple", "pear", "dog")
PARENTS = ((), (0,), (1,), (1,), (0,))


def flat(classes: int) -> Vocabulary:
    return vocabulary(tuple(f"c{c}" for c in range(classes)), ((),) * classes)


def vocabulary(names, parents) -> Vocabulary:
    nothing = tuple(() for _ in names)
    return Vocabulary(names, parents, nothing, dict(zip(names, range(len(names)), strict=True)), (), 0, 0, {})


def rows(lists, chunk=7):
    """The walk over samples of these classes, `chunk` at a time."""

    def walked():
        for begin in range(0, len(lists), chunk):
            yield hierarchy.csr(lists[begin : begin + chunk])

    return walked


def drawn(seed: int, samples: int, classes: int, most: int = 5):
    """Samples of none to `most` classes, the first classes far more often."""
    random = np.random.default_rng(seed)
    shares = 1 / np.arange(1, classes + 1) ** 1.5
    return [
        sorted(random.choice(classes, random.integers(0, most + 1), False, shares / shares.sum()).tolist())
        for _ in range(samples)
    ]


def bits(times) -> float:
    shares = np.array([value for value in times if value]) / sum(times)
    return -sum(share * np.log2(share) for share in shares)


def test_row_10_the_long_tail_of_a_zipf_distribution_is_counted() -> None:
    counts = [2000 // rank for rank in range(1, 301)]  # single labels: class c has 2000 // (c + 1) samples
    lists = [[c] for c, times in enumerate(counts) for _ in range(times)] + [[]] * 5
    found = measure(rows(lists, 1000), flat(303), Sampling()).summary
    assert (found["samples"], found["labelled"], found["unlabelled"]) == (sum(counts) + 5, sum(counts), 5)
    # 2000 // rank < 20 from rank 101 on, < 100 from rank 21 on; three classes have none
    assert (found["classes"], found["without_samples"]) == (303, 3)
    assert (found["below_20"], found["below_100"]) == (203, 283)
    assert found["own"] == found["closed"]
    assert (found["own"]["below_20"], found["own"]["below_100"]) == (203, 283)
    assert found["own"]["top"][:3] == [
        {"class": "c0", "samples": 2000},
        {"class": "c1", "samples": 1000},
        {"class": "c2", "samples": 666},
    ]
    assert found["own"]["bottom"][0] == {"class": "c299", "samples": 6}
    assert found["labels_per_picture"] == 1.0
    assert found["entropy"] == pytest.approx(bits(counts), rel=1e-12)
    assert found["pairs"] == []


def test_row_10_histograms_add_up_and_ancestors_are_added() -> None:
    lists = [["apple"], ["apple", "pear"], ["dog"], [], ["fruit", "dog", "apple"]]
    ids = [sorted(map(TREE.index, names)) for names in lists]
    found = measure(rows(ids, 2), vocabulary(TREE, PARENTS), Sampling()).summary
    # apple, fruit, thing; apple, pear, fruit, thing; dog, thing; apple, dog, fruit, thing
    assert found["labels_per_picture"] == (1 + 2 + 1 + 3) / 4
    assert found["labels_per_picture_closed"] == (3 + 4 + 2 + 4) / 4
    assert found["labels_per_picture_histogram"] == [[0, 1], [1, 2], [2, 1], [3, 1]]
    assert found["labels_per_picture_closed_histogram"] == [[0, 1], [2, 1], [3, 1], [4, 2]]
    assert found["closed"]["top"][0] == {"class": "thing", "samples": 4}
    assert found["own"]["top"][0] == {"class": "apple", "samples": 3}
    assert (found["depth"], found["depth_histogram"]) == (2, [[0, 1], [1, 2], [2, 2]])
    assert (found["fan_out"], found["widest"], found["fan_out_mean"]) == (2, "thing", 2.0)
    assert found["fan_out_histogram"] == [[0, 3], [2, 2]]


@pytest.mark.parametrize("seed", range(5))
def test_row_10_sums_agree_whatever_the_chunks(seed: int) -> None:
    lists = drawn(seed, 200, 30)
    found = measure(rows(lists, 200), flat(30), Sampling(name="sqrt"))
    assert measure(rows(lists, 1), flat(30), Sampling(name="sqrt")).summary["pairs"] == found.summary["pairs"]
    for key in ("labels_per_picture_histogram", "labels_per_picture_closed_histogram"):
        histogram = found.summary[key]
        assert sum(number for _, number in histogram) == 200
        assert sum(value * number for value, number in histogram) == sum(map(len, lists))
    assert sum(found.columns["own"]) == found.summary["labels"] == sum(map(len, lists))
    for name in ("natural", "sqrt", "uniform"):
        assert sum(found.columns[name]) == pytest.approx(1, rel=1e-12)


def seen(lists, classes: int, name: str, method: str, threshold: float | None):
    """How often each class is seen, sample by sample."""
    own = Counter(c for row in lists for c in row)
    labelled = sum(bool(row) for row in lists)
    threshold = threshold or max(n / labelled for n in own.values())
    share = {c: threshold * labelled / n for c, n in own.items()}
    factor = {"natural": lambda x: 1.0, "sqrt": lambda x: max(1, x**0.5), "uniform": lambda x: max(1, x)}
    chance = {"sqrt": lambda n: n**0.5, "uniform": lambda n: 1.0}
    times = [0.0] * classes
    for row in filter(None, lists):
        if method == "repeat" or name == "natural":  # which comes as it comes, whatever the method
            often = max(factor[name](share[c]) for c in row)
        else:
            often = sum(chance[name](own[c]) / own[c] for c in row)
        for c in row:
            times[c] += often
    return times


@pytest.mark.parametrize("method", ["repeat", "two-stage"])
@pytest.mark.parametrize(("seed", "threshold"), [(0, None), (1, None), (2, 0.2)])
def test_row_10_a_sampling_makes_classes_more_even(method: str, seed: int, threshold: float | None) -> None:
    lists = drawn(seed, 300, 40)
    entropies = []
    for name in ("natural", "sqrt", "uniform"):
        given = threshold if name != "natural" and method == "repeat" else None
        sampling = Sampling(name=name, method=method, threshold=given)
        found = measure(rows(lists), flat(40), sampling)
        times = seen(lists, 40, name, method, threshold)
        assert found.columns[name] == pytest.approx(np.array(times) / sum(times), rel=1e-9)
        entropies.append(found.summary["entropy"])
        assert entropies[-1] == pytest.approx(bits(times), rel=1e-9)
    assert entropies == sorted(set(entropies))


def test_row_10_two_stages_of_single_labels_are_exactly_uniform_or_of_the_root() -> None:
    counts = [1, 4, 9, 400]
    lists = [[c] for c, times in enumerate(counts) for _ in range(times)]
    found = measure(rows(lists), flat(5), Sampling(name="uniform", method="two-stage"))
    assert found.summary["entropy"] == pytest.approx(2, abs=1e-12)
    assert found.summary["distributions"]["uniform"]["effective_classes"] == pytest.approx(4)
    assert found.columns["uniform"] == pytest.approx([0.25] * 4 + [0])
    assert found.columns["sqrt"] == pytest.approx(np.array([1, 2, 3, 20, 0]) / 26)


@pytest.mark.parametrize(("paired", "block"), [(1000, 1 << 22), (8, 3), (8, 1)])
def test_row_10_pairs_are_counted_with_their_lift(
    paired: int, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statistics, "PAIRED", paired)
    monkeypatch.setattr(statistics, "BLOCK", block)
    lists = drawn(3, 400, 25)
    own = Counter(c for row in lists for c in row)
    most = set(sorted(own, key=lambda c: (-own[c], c))[:paired])
    pairs = Counter(pair for row in lists for pair in combinations(sorted(most.intersection(row)), 2))
    labelled = sum(map(bool, lists))
    found = measure(rows(lists), flat(25), Sampling()).summary
    assert found["pairs_among"] == len(most)
    assert [one["samples"] for one in found["pairs"]] == [times for _, times in pairs.most_common(20)]
    for one in found["pairs"]:
        a, b = sorted(int(name[1:]) for name in one["classes"])
        assert one["samples"] == pairs[a, b]
        assert one["lift"] == pytest.approx(pairs[a, b] * labelled / (own[a] * own[b]))


def test_nothing_is_measured_without_a_fault() -> None:
    for lists in ([], [[], []]):
        found = measure(rows(lists), flat(3), Sampling(name="uniform")).summary
        assert (found["labelled"], found["entropy"], found["labels_per_picture"]) == (0, 0, 0)
        assert (found["below_20"], found["own"]["top"], found["pairs"]) == (3, [], [])
