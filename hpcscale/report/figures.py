"""Figures of reports: what `runs.read` found in, PNG files out. The same input gives the same bytes.

The look of all other figures too, which may be SVG.
"""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hpcscale.config import SETS
from hpcscale.files import write_file
from hpcscale.report.runs import Evaluated, Picture, Run
from hpcscale.text import shown

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#555555")  # Okabe and Ito 2008
MARKS: dict[str, str] = dict(zip(SETS, "os^", strict=True))
RIGHT, WRONG = "#00734f", "#b03a00"
COLUMNS = 6  # of the picture sheet
WIDTH, HEIGHT, MARGIN = 2.15, 3.2, 0.08  # of one picture with its text, inches
LEGEND = 40  # letters shown of a run's name
LETTERS = {"bold": 23, "normal": 28}  # in a line of text
STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "text.parse_math": False,  # a name with dollar signs is not a formula
    "svg.hashsalt": "hpcscale",  # else names in an SVG are random
}


def curves(runs: list[Run], file: Path) -> bool:
    """Draw loss, mAP@100 and learning rate over steps. False, and no file, if there is nothing to draw."""
    file.unlink(missing_ok=True)
    if not any(run.steps or run.curves for run in runs):
        return False
    with style():
        figure = Figure(figsize=(8, 7.5), layout="constrained")
        loss, metric, rate = figure.subplots(3, 1, sharex=True, height_ratios=(3, 3, 1.2))
        for index, run in enumerate(runs):
            color = COLORS[index % len(COLORS)]
            steps = [event["step"] for event in run.steps]
            line: dict[str, Any] = {"color": color, "marker": "." if len(steps) < 3 else None}
            loss.plot(steps, [event["loss"] for event in run.steps], label=_legend(run.name), **line)
            rate.plot(steps, [event.get("lr", np.nan) for event in run.steps], **line)
            for name, points in run.curves.items():
                found = {step: m["map100"] for step, m in points.items() if m.get("map100") is not None}
                told = f"{_legend(run.name)}, {name}" if len(runs) > 1 else name
                shade = color if len(runs) > 1 else COLORS[list(MARKS).index(name)]
                metric.plot(list(found), list(found.values()), color=shade, marker=MARKS[name], label=told)
        values = [event["loss"] for run in runs for event in run.steps if event["loss"] > 0]
        if values and max(values) > 5 * min(values):
            loss.set_yscale("log")
            loss.yaxis.set_major_formatter("{x:g}")
            loss.yaxis.set_minor_formatter("{x:g}" if max(values) < 20 * min(values) else "")
        if len(runs) == 1:
            for evaluation in runs[0].evaluations:
                if evaluation.baseline.get("map100") is not None:
                    shade = COLORS[list(MARKS).index(evaluation.set)]
                    told = f"{evaluation.set}, class-frequency baseline"
                    metric.axhline(evaluation.baseline["map100"], color=shade, linestyle=":", label=told)
        loss.set_ylabel("training loss")
        metric.set(ylabel="mAP@100 by class, weighted", ylim=(0, 1.02))
        rate.set(ylabel="learning rate", xlabel="step")
        rate.set_ylim(bottom=0)
        for axes in (loss, metric) if len(runs) > 1 else (metric,):
            if axes.get_legend_handles_labels()[0]:
                axes.legend(frameon=False)
        save(figure, file)
    return True


def pictures(evaluation: Evaluated, file: Path) -> bool:
    """Draw pictures as the model saw them, with their truth and the five best guesses, right or wrong.

    False, and no file, if the evaluation kept no pictures.
    """
    file.unlink(missing_ok=True)
    if not evaluation.pictures:
        return False
    rows = -(-len(evaluation.pictures) // COLUMNS)
    with style():
        figure = Figure(figsize=(WIDTH * COLUMNS, HEIGHT * rows))
        for index, picture in enumerate(evaluation.pictures):
            row, column = divmod(index, COLUMNS)
            # The picture fills the width of its cell except a margin; the text fills the rest below it.
            side = WIDTH - 2 * MARGIN
            left, bottom = column * WIDTH + MARGIN, HEIGHT * (rows - row) - MARGIN - side
            across, up = WIDTH * COLUMNS, HEIGHT * rows
            _picture(figure.add_axes((left / across, bottom / up, side / across, side / up)), picture)
        save(figure, file)
    return True


@contextmanager
def style() -> Iterator[None]:
    """The look of all figures, within."""
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        # Letters that are missing in the font become boxes; a warning would help nobody.
        warnings.filterwarnings("ignore", "Glyph", UserWarning)
        warnings.filterwarnings("ignore", "Matplotlib currently does not support", UserWarning)
        yield


def label(text: str, most: int) -> str:
    """A name as a figure can show it: in one line, cut to `most` letters."""
    text = shown(text)
    return text if len(text) <= most else text[: most - 1] + "…"


def _legend(text: str) -> str:
    return label(" " * text.startswith("_") + text, LEGEND)  # matplotlib leaves out labels that begin with _


def _picture(axes: Axes, picture: Picture) -> None:
    axes.axis("off")
    axes.imshow(picture.pixels, interpolation="nearest")
    lines = [(picture.truth, "black", "bold")]
    for name, right in picture.guesses:
        lines.append((f"{'✓' if right else '✗'} {name}", RIGHT if right else WRONG, "normal"))
    for line, (text, color, weight) in enumerate(lines):
        text = label(text, LETTERS[weight])
        y = -0.03 - 0.085 * line
        axes.text(0, y, text, color=color, weight=weight, fontsize=9, va="top", transform=axes.transAxes)


def settle(figure: Figure) -> None:
    """Lay out a figure once, at round places. The solver of the layout does not always find the same last
    digits, and the names of parts of an SVG come of all digits."""
    if figure.get_layout_engine() is None:
        return
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axes in figure.axes:
        left, bottom, width, height = (round(value, 4) for value in axes.get_position(original=True).bounds)
        axes.set_position((left, bottom, width, height), which="original")
        axes.apply_aspect()


def save(figure: Figure, file: Path) -> None:
    """Write a figure with our mark in it: as SVG where the name of the file ends so, else as PNG."""
    settle(figure)
    content, svg = io.BytesIO(), file.suffix == ".svg"
    metadata = {"Creator": "hpcscale", "Date": None} if svg else {"Software": "hpcscale"}
    figure.savefig(content, format="svg" if svg else "png", dpi=110, metadata=metadata)
    write_file(file, content.getvalue())
