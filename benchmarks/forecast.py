"""Forecasts of real learning curves, against what came later: error of each law, coverage of intervals.

The 72 curves of Alabdulmohsin et al. 2022 (`benchmark.vision.csv`): error of linear probes with 5, 10 or 25
examples a class, against examples seen in pretraining. HPCSCALE_CURVES names the file, if it is not in
shared/data beside the clone; without it there is a message and no table.

A case says which part of a curve is fitted and which is held out: the published split, or all up to a tenth
or a thirtieth of the largest size against all above; and how many sizes of the fitted part there are, evenly
spaced in their logarithm, as in a study that trains a network for each. Curves that `forecast.check` refuses
in a case are left out. Two things are scored: RMSE of the log error on a curve's held-out points, and the
share of those points within the interval.
"""

import csv
import os
from collections import defaultdict
from pathlib import Path

import numpy as np

from hpcscale.study import fits, forecast

BESIDE = Path(__file__).resolve().parents[2] / "shared/data/learning-curves/benchmark.vision.csv"
FILE = Path(os.environ.get("HPCSCALE_CURVES", BESIDE))
LEVEL = 0.8
SHARES = (None, 10, 30)  # held out: sizes above this part of the largest; None: as published
CASES = [(share, None) for share in SHARES]  # share, and how many sizes are fitted; None: all
CASES += [(share, count) for share in SHARES for count in (5, 6, 8, 12)]
POWERS = (0.5, 0.75, 1.0)  # tried before one was taken


def run() -> str:
    if not FILE.is_file():
        return f"## Forecasts\n\nLeft out: {FILE} is not there (HPCSCALE_CURVES names it).\n"
    curves = read(FILE)
    scored = {case: _scores(curves, *case) for case in CASES}
    return "\n".join([_laws(curves), _coverage(scored), _groups(scored), _powers(scored)])


def read(file):
    """Name of each curve: (sizes, errors, fitted), (points,) each, by size."""
    found = defaultdict(list)
    with file.open(newline="") as stream:
        for row in csv.DictReader(stream):
            point = float(row["Seen Examples"]), float(row["Loss"]), row["Training"] == "1"
            found[row["Task"], row["Model"]].append(point)
    tables = {name: np.array(sorted(points, key=lambda point: point[0])) for name, points in found.items()}
    return {name: (table[:, 0], table[:, 1], table[:, 2] == 1) for name, table in tables.items()}


def split(curve, share, count):
    """Sizes and errors that are fitted, sizes and errors that are held out."""
    sizes, errors, fitted = curve
    if share is not None:
        fitted = sizes <= sizes.max() / share
    chosen = np.flatnonzero(fitted)
    if count is not None and chosen.size:
        logs = np.log(sizes[chosen])
        wanted = np.linspace(logs[0], logs[-1], count)
        chosen = chosen[np.unique(np.abs(logs[:, None] - wanted).argmin(0))]
    return sizes[chosen], errors[chosen], sizes[~fitted], errors[~fitted]


def _scores(curves, share, count):
    """Of each curve that is not refused: what is needed to score it with any power."""
    found = {}
    for name, curve in curves.items():
        sizes, errors, later, truth = split(curve, share, count)
        try:
            forecast.check(sizes, errors)
        except forecast.PointsError:
            continue
        law = forecast.choose(sizes, errors)
        missed = np.log(truth) - np.log(law(later))
        found[name] = law, forecast.look_back(sizes, errors), later / sizes.max(), missed
    return found


def _held(score, power=forecast.POWER):
    """Whether each held-out point is within the interval, and half the interval's width in log error."""
    law, past, times, missed = score
    half = np.log(forecast.interval(law, past, times, LEVEL, power)[1])
    return np.abs(missed) <= half, half


def _laws(curves):
    laws = {
        "line of the papers": fits.fit_line,
        "power law with floor": fits.fit_power,
        "M4, chance 1": lambda sizes, errors: fits.fit_m4(sizes, errors, 1.0),
        "M4, chance fitted": fits.fit_m4,
    }
    lines = ["## Error of the laws on the published held-out part", ""]
    lines += ["| law | median RMSE of the log error | mean | worst |", "|---|---:|---:|---:|"]
    for name, fit in laws.items():
        found = []
        for curve in curves.values():
            sizes, errors, later, truth = split(curve, None, None)
            predicted = np.maximum(fit(sizes, errors)(later), 1e-3)  # a line may fall below zero
            found.append(_rmse(np.log(truth) - np.log(predicted)))
        lines.append(f"| {name} | {np.median(found):.4f} | {np.mean(found):.4f} | {max(found):.3f} |")
    return "\n".join([*lines, ""])


def _rmse(missed):
    return float(np.sqrt(np.mean(missed**2)))


def _coverage(scored):
    lines = [f"## Coverage of intervals of {100 * LEVEL:g} %", ""]
    lines += [
        "| held out | sizes | curves | median RMSE | points held | mean over curves | median half width |"
    ]
    lines += ["|---|---|---:|---:|---:|---:|---:|"]
    for (share, count), scores in scored.items():
        held = [_held(score) for score in scores.values()]
        points = np.concatenate([inside for inside, _ in held]).mean()
        each = np.mean([inside.mean() for inside, _ in held])
        width = np.median([np.median(half) for _, half in held])
        error = np.median([_rmse(missed) for *_, missed in scores.values()])
        start = f"| {_part(share)} | {count or 'all'} | {len(held)} | {error:.4f} "
        lines.append(f"{start}| {points:.3f} | {each:.3f} | {width:.3f} |")
    return "\n".join([*lines, ""])


def _part(share):
    return "as published" if share is None else f"above 1/{share}"


def _groups(scored):
    """Coverage by the data set that is probed, of the published split."""
    lines = ["| data set, published split | points held | mean over curves |", "|---|---:|---:|"]
    for group, scores in _by_group(scored[CASES[0]]).items():
        held = [_held(score)[0] for score in scores]
        lines.append(
            f"| {group} | {np.concatenate(held).mean():.3f} | {np.mean([one.mean() for one in held]):.3f} |"
        )
    return "\n".join([*lines, ""])


def _by_group(scores):
    found = defaultdict(list)
    for name, score in scores.items():
        found[name[0].partition("_")[0]].append(score)
    return found


def _powers(scored):
    """The one number that was chosen on these curves, chosen again without those that it is scored on."""
    groups = _by_group(scored[CASES[0]])

    def coverage(chosen, power):
        return np.concatenate([_held(score, power)[0] for score in chosen]).mean()

    lines = ["## The power, cross-validated", "", f"| power | {' | '.join(map(_part, SHARES))} |"]
    lines.append("|---|" + "---:|" * len(SHARES))
    for power in POWERS:
        every = [coverage(list(scored[share, None].values()), power) for share in SHARES]
        lines.append(f"| {power:g} | {' | '.join(f'{value:.3f}' for value in every)} |")
    lines += [
        "",
        "| left out | power chosen on the others | points held of those left out |",
        "|---|---:|---:|",
    ]
    inside = []
    for group, own in groups.items():
        others = [score for name, scores in groups.items() if name != group for score in scores]
        best = min(POWERS, key=lambda power: abs(coverage(others, power) - LEVEL))
        inside += [_held(score, best)[0] for score in own]
        lines.append(f"| {group} | {best:g} | {coverage(own, best):.3f} |")
    lines.append(f"| together | | {np.concatenate(inside).mean():.3f} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    print(run())
