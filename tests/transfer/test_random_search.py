"""Random search: draws, the curve, and trials of the whole command."""

import csv
import json
import math
from itertools import count, islice
from math import comb
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from grounds import Grounds, plan

from hpcscale import config
from hpcscale.config import ConfigError
from hpcscale.transfer.search import _write_curve, draw, saturation, search
from hpcscale.transfer.settings import Search
from hpcscale.transfer.trials import Outcome

DRAWS = [draw(Search(seed=5), trial) for trial in range(2000)]


def shares(key: str) -> dict[object, float]:
    values = [one[key] for one in DRAWS]
    return {value: values.count(value) / len(values) for value in sorted(set(values))}


def test_row_42_draws_follow_the_space_of_the_supplement() -> None:
    """Kolmogorov-Smirnov at 1e-3 for what is continuous, five deviations for what is not."""
    spaces = {"schedule.lr": (1e-4, 1e-1), "optimizer.weight_decay": (1e-6, 1e-1)}
    for key, (low, high) in spaces.items():
        places = [math.log(one[key] / low) / math.log(high / low) for one in DRAWS]
        assert scipy.stats.kstest(places, "uniform").pvalue > 1e-3, key
    assert scipy.stats.kstest([one["model.dropout"] / 0.7 for one in DRAWS], "uniform").pvalue > 1e-3
    wanted = {
        "train.steps": (500, 1000, 2000, 4000, 8000, 16000),
        "train.mixup": (0.0, 0.05, 0.1, 0.2, 0.4),
        "input.crop": (64, 128, 192, 256, 320, 384),
    }
    for key, values in wanted.items():
        found, expected = shares(key), 1 / len(values)
        assert tuple(found) == values
        limit = 5 * math.sqrt(expected * (1 - expected) / len(DRAWS))
        assert max(abs(share - expected) for share in found.values()) < limit
    for one in DRAWS:
        assert one["input.resize"] == one["input.crop"]
        assert one["optimizer.decay_to"] == "initial"
        assert one["schedule.at"] == [round(share * one["train.steps"]) for share in (0.3, 0.6, 0.9)]


def test_row_42_keys_are_drawn_independently_and_purely() -> None:
    keys = (
        "schedule.lr",
        "optimizer.weight_decay",
        "model.dropout",
        "train.steps",
        "train.mixup",
        "input.crop",
    )
    table = np.array([[one[key] for key in keys] for one in DRAWS])
    ranks = scipy.stats.spearmanr(table).statistic
    assert abs(ranks - np.eye(6)).max() < 5 / math.sqrt(len(DRAWS))
    assert [draw(Search(seed=5), trial) for trial in (7, 3)] == [DRAWS[7], DRAWS[3]]
    assert draw(Search(seed=6), 3) != DRAWS[3]
    assert draw(Search(seed=5, trials=3), 3) == DRAWS[3]
    golden = {"schedule.lr": 0.009662, "train.steps": 500}
    assert {key: round(value, 6) for key, value in DRAWS[0].items() if key in golden} == golden


def test_row_42_the_curve_is_the_mean_of_the_best_so_far() -> None:
    """E[max of n of N] = sum of x_(i) C(i - 1, n - 1) / C(N, n), over the sorted scores."""
    scores = np.random.default_rng(0).random(12).round(1).tolist()
    ordered, total = sorted(scores), len(scores)
    for n, (mean, error) in zip(count(1), saturation(scores, orderings=20_000), strict=False):
        exact = sum(x * comb(i, n - 1) for i, x in enumerate(ordered)) / comb(total, n)
        assert abs(mean - exact) <= 5 * error + 1e-12
    means = [mean for mean, _ in saturation(scores)]
    assert means == sorted(means)
    assert saturation(scores)[-1] == (pytest.approx(max(scores)), pytest.approx(0))
    assert saturation(scores, seed=1) == saturation(scores, seed=1) != saturation(scores, seed=2)


def test_row_42_each_target_has_orderings_of_its_own(grounds: Grounds, tmp_path: Path) -> None:
    """Else errors of a mean over targets would not follow from theirs."""
    outcomes = [Outcome(n, {}, {"top1": n / 8}) for n in range(7)] + [Outcome(7, {}, {}, "loss is NaN")]
    for name in ("a", "b"):
        _write_curve(outcomes, plan(grounds, f"target.name={name}", method="search"), tmp_path / name)
    one, other = (list(csv.reader((tmp_path / name).open()))[1:] for name in ("a", "b"))
    assert one[0][1:] != other[0][1:]
    assert one[-1] == other[-1] == ["8", "0.750000", "0.000000"]


def test_row_42_a_search_trains_what_it_draws(grounds: Grounds, tmp_path: Path) -> None:
    keys = ("search.trials=3", "search.steps=[2, 3]", "search.resolution=[32, 40]", "train.batch=6")
    settings = plan(grounds, *keys, method="search")
    assert search(settings, tmp_path, (1, 2)) is None
    assert [folder.name for folder in sorted((tmp_path / "trials").iterdir())] == ["001"]
    found = search(settings, tmp_path)
    assert found is not None
    assert (found["method"], found["trials"]) == ("search", 3)
    lines = [json.loads(line) for line in (tmp_path / "trials.jsonl").read_text().splitlines()]
    assert [line["keys"] for line in lines] == [draw(settings.own.search, trial) for trial in range(3)]
    last = config.read(tmp_path / "last-0" / "config.json")
    assert last.model.dropout == found["keys"]["model.dropout"]
    assert (last.optimizer.decay_to, last.data.held_out) == ("initial", 0.0)
    trial = config.read(tmp_path / "trials" / "000" / "config.json")
    assert trial.data.held_out == 0.2
    rows = list(csv.reader((tmp_path / "curve.csv").open()))
    assert rows[0] == ["trials", "mean", "standard_error"]
    assert float(rows[3][1]) == pytest.approx(max(line["metrics"]["top1"] for line in lines), abs=1e-6)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("search.lr=[0.1, 0.01]", r"search.*'lr' is the lowest and the highest value, found \[0.1, 0.01\]"),
        ("search.dropout=[0.0, 1.0]", "'dropout' is the lowest and the highest value"),
        ("search.steps=[]", "search.steps"),
        ("search.trials=0", "search.trials"),
    ],
)
def test_a_space_that_cannot_be_drawn_from_is_refused(grounds: Grounds, override: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        plan(grounds, override, method="search")


def test_more_trials_leave_the_others_as_they_are() -> None:
    assert list(islice((draw(Search(trials=9), trial) for trial in count()), 5)) == [
        draw(Search(trials=5), trial) for trial in range(5)
    ]
