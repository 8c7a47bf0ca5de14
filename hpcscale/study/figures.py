"""The papers' figures, drawn.

In: a description and points. Out: SVG and PNG; the same input gives the same bytes. One function for each
kind. Families differ in colour, marker and dash or hatch, so that a figure can be read in print without
colours. A point is the mean of its seeds, with bars of one standard error; open markers are what the paper
prints.
"""

import io
import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, NullFormatter

from hpcscale import names
from hpcscale.files import write_file
from hpcscale.report.figures import COLORS, label, save, style
from hpcscale.study import fits
from hpcscale.study.papers import Figure
from hpcscale.study.points import Point

MARKERS = "os^Dv<>P"
DASHES = ("-", "--", "-.", ":", (0, (6, 1, 1, 1, 1, 1)), (0, (1, 1)), (0, (8, 3)), (0, (3, 1, 1, 1)))
HATCHES = ("", "///", "...", "xxx", "\\\\\\", "ooo", "++", "--")
WIDTH, HEIGHT, ROW = 5.6, 3.5, 0.19  # of a figure without its legend, and of a row of that; inches
LEGEND = 44  # letters of a name
SHORT = 27  # letters of an entry of the legend that has another beside it
NEAR = 0.08  # of the x axis: ticks nearer to one another would overlap
SALT = "hpcscale"  # of the names of parts of an SVG, which else are drawn at random
SVG = b"hpcscale papers"  # our mark

BLACK: dict[str, Any] = {"color": "black", "marker": "o", "linestyle": ""}  # of printed numbers

Families = Mapping[str, Sequence[Point]]
Look = dict[str, Any]


def draw(figure: Figure, points: Sequence[Point], printed: Sequence[Point], stem: Path) -> list[Path]:
    """Write STEM.svg and STEM.png. printed: what the paper prints, of families that may have no points."""
    svg, png = (stem.with_name(f"{stem.name}.{ending}") for ending in ("svg", "png"))
    with style(), matplotlib.rc_context({"svg.hashsalt": SALT}):
        canvas = compose(figure, points, printed)
        save(canvas, png)
        content = io.BytesIO()
        canvas.savefig(content, format="svg", metadata={"Creator": SVG.decode(), "Date": None})
    write_file(svg, content.getvalue())
    return [svg, png]


def compose(figure: Figure, points: Sequence[Point], printed: Sequence[Point]) -> Canvas:
    """The figure, laid out and not yet drawn. At least one point, or one that is printed."""
    kinds: dict[str, Callable[..., list[Any]]] = {"lines": _lines, "bars": _bars, "scatter": _scatter}
    there = {point.family for point in [*points, *printed]}
    every = dict.fromkeys([*figure.families, *(point.family for point in points)])
    looks = {name: _look(index) for index, name in enumerate(every) if name in there}
    canvas = Canvas(layout="constrained")
    axes = canvas.subplots()
    own, theirs = _by_family(points, looks), _by_family(printed, looks)
    handles = kinds[figure.kind](axes, figure, own, theirs, looks)
    if printed:
        handles.append(_handle("printed in the paper (open)", BLACK, True))
    axes.set(xlabel=figure.x, ylabel=figure.y)
    axes.set_title(figure.title, fontsize=10)
    columns = 2 if max(len(handle.get_label()) for handle in handles) <= SHORT else 1
    canvas.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False, fontsize=9)
    canvas.set_size_inches(WIDTH, HEIGHT + ROW * math.ceil(len(handles) / columns))
    return canvas


def _lines(
    axes: Axes, figure: Figure, points: Families, printed: Families, looks: dict[str, Look]
) -> list[Any]:
    """y over x, a line for each family: through its points, or the log-linear one where the figure has it."""
    handles = []
    for family, look in looks.items():
        own, theirs = points.get(family, []), printed.get(family, [])
        told = _told(family)
        by_x = _by_x(own)
        marker = {**look, "linestyle": ""}
        if figure.curve:
            _draw_curves(axes, own, look)
        else:
            _draw_means(axes, by_x, marker)
        if figure.fit and len(by_x) > 1:
            line = fits.fit_line(*(np.array([getattr(point, key) for point in own]) for key in "xy"))
            ends = np.array([min(by_x), max(by_x)])
            axes.plot(ends, line(ends), **{**look, "marker": ""})
            told += f": {line.slope:+.2f} points per decade" + (
                "" if line.r2 is None else f", R² {line.r2:.3f}"
            )
        elif own and not figure.fit and not figure.curve:
            axes.plot([*by_x], [statistics.fmean(y) for y in by_x.values()], **{**look, "marker": ""})
        axes.plot([p.x for p in theirs], [p.y for p in theirs], **_open(marker))
        handles.append(_handle(told, look, not own))
    _x_axis(axes, figure, [p for of in (*points.values(), *printed.values()) for p in of])
    return handles


def _bars(
    axes: Axes, figure: Figure, points: Families, printed: Families, looks: dict[str, Look]
) -> list[Any]:
    """A group of bars for each place, a bar of it for each family, from zero."""
    width = 0.8 / max(1, len(looks))
    handles: list[Any] = []
    for index, (family, look) in enumerate(looks.items()):
        shift = (index - (len(looks) - 1) / 2) * width
        hatch = HATCHES[MARKERS.index(look["marker"]) % len(HATCHES)]
        bar: Look = {"facecolor": (*matplotlib.colors.to_rgb(look["color"]), 0.65), "edgecolor": "black",
               "hatch": hatch, "linewidth": 0.8}  # fmt: skip
        for x, values in _by_x(points.get(family, [])).items():
            axes.bar(x + shift, statistics.fmean(values), width * 0.92, **bar)
            axes.errorbar(x + shift, statistics.fmean(values), _error(values), color="black", capsize=2)
        theirs = printed.get(family, [])
        axes.plot(
            [p.x + shift for p in theirs],
            [p.y for p in theirs],
            **{**_open(BLACK), "markerfacecolor": "white", "markersize": 7},
        )
        handles.append(Patch(label=_told(family), **bar))
    axes.set_xticks([*figure.places.values()], [label(name, LEGEND) for name in figure.places])
    axes.set_xlim(min(figure.places.values()) - 0.6, max(figure.places.values()) + 0.6)
    axes.grid(visible=False, axis="x")
    axes.set_ylim(bottom=0)
    return handles


def _scatter(
    axes: Axes, figure: Figure, points: Families, printed: Families, looks: dict[str, Look]
) -> list[Any]:
    """A point for each network, both axes measured, with its name beside it."""
    for family, look in looks.items():
        for p in points.get(family, []):
            axes.plot(p.x, p.y, **{**look, "linestyle": ""})
            axes.annotate(label(p.place, LEGEND), (p.x, p.y), (5, 4), textcoords="offset points", fontsize=8)
        theirs = printed.get(family, [])
        axes.plot([p.x for p in theirs], [p.y for p in theirs], **_open({**look, "linestyle": ""}))
    axes.margins(0.12)
    return [_handle(_told(family), {**look, "linestyle": ""}, False) for family, look in looks.items()]


def _draw_means(axes: Axes, by_x: Mapping[float, Sequence[float]], marker: Look) -> None:
    """Means with bars of one standard error, and each seed as a small dot."""
    for x, values in by_x.items():
        axes.errorbar(x, statistics.fmean(values), _error(values), capsize=2.5, **marker)
        if len(values) > 1:
            axes.plot(
                [x] * len(values),
                values,
                color=marker["color"],
                marker=".",
                markersize=4,
                alpha=0.5,
                linestyle="",
            )


def _draw_curves(axes: Axes, points: Sequence[Point], look: Look) -> None:
    """Each run as a curve of its own."""
    runs: dict[str, list[Point]] = defaultdict(list)
    for point in points:
        runs[f"{point.place} {point.seed}"].append(point)
    for run in runs.values():
        axes.plot([p.x for p in run], [p.y for p in run], **{**look, "markersize": 4})


def _x_axis(axes: Axes, figure: Figure, points: Sequence[Point]) -> None:
    """Its scale, and ticks where the points are."""
    named = {x: name for name, x in figure.places.items()}
    if figure.log:
        axes.set_xscale("log")
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: _count(x)))
    used = sorted({p.x for p in points})
    at = [math.log10(x) for x in used] if figure.log else used
    apart = all(b - a >= NEAR * (at[-1] - at[0]) for a, b in pairwise(at))
    if named or (figure.log and apart):
        axes.set_xticks(used, [label(named.get(x, _count(x)), LEGEND) for x in used])
        axes.minorticks_off()
    elif figure.curve:
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: _count(x)))
    axes.margins(x=0.08)


def _count(x: float) -> str:
    """30e6 is 30M, as names of data sets write it."""
    return names.rounded(round(x)) if 1 <= round(x) <= names.MOST else f"{x:g}"


def _look(index: int) -> Look:
    return {
        "color": COLORS[index % len(COLORS)],
        "marker": MARKERS[index % len(MARKERS)],
        "linestyle": DASHES[index % len(DASHES)],
        "markersize": 5.5,
    }


def _open(marker: Look) -> Look:
    """The same marker around one that may be in its place."""
    return {**marker, "markerfacecolor": "none", "markeredgewidth": 1.3, "markersize": 10, "zorder": 4}


def _told(family: str) -> str:
    """The name of a family in the legend; matplotlib leaves out those that begin with _."""
    return label(" " * family.startswith("_") + family, LEGEND)


def _handle(told: str, look: Look, opened: bool) -> Line2D:
    """An entry of the legend."""
    return Line2D([], [], label=told, **(_open(look) if opened else look))


def _by_family(points: Sequence[Point], order: Iterable[str]) -> Families:
    return {family: [point for point in points if point.family == family] for family in order}


def _by_x(points: Sequence[Point]) -> dict[float, list[float]]:
    found: dict[float, list[float]] = defaultdict(list)
    for point in sorted(points, key=lambda point: point.x):
        found[point.x].append(point.y)
    return dict(found)


def _error(values: Sequence[float]) -> float | None:
    """Standard error; None of one value."""
    return statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
