"""Figures of runs on composed pictures (Kolesnikov et al. 2020, supplement F): accuracy in context against
accuracy out of it, and the five guesses of single pictures.

In: files of result.py, of the same pictures. Out: an SVG or PNG; the same files give the same bytes. The area
of a mark grows with the network's parameters, its shape and colour say what it was trained on before. Bars
have a logarithmic scale of probability: dark where a guess is right, hatched where it is wrong. Nothing is
told by colour alone.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from hpcscale.data.jpeg import BadPicture
from hpcscale.files import PNG, FileError, Usage, check_output, marked, read_bytes
from hpcscale.ingest.transcode import upright
from hpcscale.report.figures import COLORS, label, save, style
from hpcscale.robustness import result
from hpcscale.robustness.result import Predicted, Result

SVG = b"<dc:title>hpcscale</dc:title>"
ENDINGS = {".svg": SVG, ".png": PNG}
SHAPES = "osD^vPX*"
SMALLEST, LARGEST = 40.0, 420.0  # area of a mark, square points
LETTERS, LEGEND = 24, 40
FLOOR = 1e-6  # of the scale of probabilities
RIGHT, WRONG = "#004d40", "#f2d8c9"
RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
SIDE, WIDTH = 1.9, 3.1  # of a picture, and of the bars beside it, inches


def plot(files: Sequence[Path], out: Path, pictures: Sequence[str] = ()) -> None:
    """Draw accuracies, or with `pictures`, names of images, the guesses of these: a row for each, a column
    for each file. Raises Usage, and FileError where files are of different pictures, have no accuracy in
    context or lack a picture."""
    if out.suffix not in ENDINGS:
        raise Usage(f"{out}: the name must end in {' or '.join(ENDINGS)}")
    check_output(out, files, marked(ENDINGS[out.suffix]))
    results = [result.read(file) for file in files]
    for file, one in zip(files, results, strict=True):
        if one.digest != results[0].digest:
            raise FileError(f"{file}: is of other pictures than {files[0]}")
    with style():
        save(_bars(files, results, pictures) if pictures else _scatter(files, results), out)


def area(parameters: int, most: int) -> float:
    """Of a mark, square points: with the square root of the parameters, from SMALLEST to LARGEST."""
    return SMALLEST + (LARGEST - SMALLEST) * math.sqrt(parameters / most)


def _scatter(files: Sequence[Path], results: Sequence[Result]) -> Figure:
    for file, one in zip(files, results, strict=True):
        if one.in_context is None or one.in_context.top1 is None:
            raise FileError(
                f"{file}: has no accuracy in context; `hpcscale evaluate` the run, then judge it again"
            )
    figure = Figure(figsize=(7.2, 4.8), layout="constrained")
    axes = figure.subplots()
    most = max(one.parameters for one in results)
    upstreams = sorted({one.upstream for one in results})
    marks: dict[str, dict[str, Any]] = {
        name: {"marker": SHAPES[index % len(SHAPES)], "color": COLORS[index % len(COLORS)]}
        for index, name in enumerate(upstreams)
    }
    # Large ones first, so that none is hidden.
    for one in sorted(results, key=lambda one: (-one.parameters, one.run)):
        assert one.in_context is not None
        assert one.in_context.top1 is not None
        axes.scatter(
            100 * one.in_context.top1, 100 * one.all.top1, s=area(one.parameters, most),
            edgecolors="white", linewidths=0.8, zorder=3, **marks[one.upstream],
        )  # fmt: skip
    axes.margins(0.12)
    axes.set(xlabel="top-1 in context, %", ylabel="top-1 out of context, %")
    shapes = [
        Line2D([], [], linestyle="", markersize=8, label=label(name, LEGEND), **marks[name])
        for name in upstreams
    ]
    sizes = {one.architecture: one.parameters for one in results}
    circles = [
        Line2D([], [], linestyle="", marker="o", markerfacecolor="none", markeredgecolor="#444444",
               markersize=math.sqrt(area(parameters, most)), label=f"{name}, {parameters / 1e6:.1f}M")
        for name, parameters in sorted(sizes.items(), key=lambda item: (item[1], item[0]))
    ]  # fmt: skip
    head = Line2D([], [], linestyle="", label="network, parameters")
    figure.legend(
        handles=[*shapes, head, *circles], title="trained before on", loc="outside right upper",
        frameon=False, alignment="left", labelspacing=1.0,
    )  # fmt: skip
    return figure


def _bars(files: Sequence[Path], results: Sequence[Result], pictures: Sequence[str]) -> Figure:
    found = []
    for file, one in zip(files, results, strict=True):
        by_name = {each.image: each for each in one.pictures}
        if missing := [name for name in pictures if name not in by_name]:
            raise FileError(
                f"{file}: no picture {missing[0]!r:.200}; they are called as {one.pictures[0].image!r:.200}"
            )
        found.append([by_name[name] for name in pictures])
    least = min(each.probabilities[-1] for column in found for each in column if each.probabilities)
    # Below the least, so that its bar is seen; a power of ten.
    low = min(0.1, 10.0 ** (math.ceil(math.log10(max(least, FLOOR))) - 1))
    size = (SIDE + WIDTH * len(results), 0.35 + SIDE * len(pictures))
    figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(w_pad=0.1))  # inches
    cells = figure.subplots(
        len(pictures), 1 + len(results), squeeze=False, width_ratios=[SIDE, *[WIDTH] * len(results)]
    )
    for row, name in enumerate(pictures):
        _picture(cells[row, 0], Path(results[0].folder) / name, found[0][row])
        for column, one in enumerate(results):
            _guesses(cells[row, 1 + column], found[column][row], low)
            if row == 0:
                cells[0, 1 + column].set_title(label(one.run, LEGEND), fontsize=10)
            if row == len(pictures) - 1:
                cells[row, 1 + column].set_xlabel("probability")
    return figure


def _picture(axes: Axes, file: Path, one: Predicted) -> None:
    try:
        image = upright(read_bytes(file)).convert("RGB")
    except BadPicture as error:
        raise FileError(f"{file}: {error}") from None
    image.thumbnail((256, 256))
    axes.axis("off")
    axes.imshow(np.asarray(image))
    axes.set_title(label(one.of, LETTERS), fontsize=10)


def _guesses(axes: Axes, one: Predicted, low: float) -> None:
    """Bars from the top down, each with its class within the axes' left."""
    places = range(len(one.guesses))
    axes.set_xscale("log")
    axes.set(xlim=(low, 1), ylim=(result.GUESSES - 0.4, -0.6))
    for place, name, probability, right in zip(
        places, one.guesses, one.probabilities, one.right, strict=True
    ):
        face: dict[str, Any] = (
            {"color": RIGHT} if right else {"facecolor": WRONG, "edgecolor": "#8a6a55", "hatch": "////"}
        )
        axes.barh(place, max(probability - low, 0), left=low, height=0.42, align="edge", **face)
        text = f"{'✓ ' if right else ''}{label(name, LETTERS)}"
        axes.text(0.01, place - 0.08, text, transform=axes.get_yaxis_transform(), fontsize=8,
                  weight="bold" if right else "normal")  # fmt: skip
    axes.set_yticks([])
    axes.spines["left"].set_visible(True)
    axes.xaxis.set_major_locator(LogLocator(numticks=8))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(_power)
    axes.tick_params(labelsize=8)


def _power(value: float, place: float) -> str:
    """A power of ten as a tick shows it."""
    power = round(math.log10(value))
    return f"{value:g}" if power > -3 else "10" + str(power).translate(RAISED)
