"""Statistics of classes as text, files and plots: what samples/statistics.py measured, as plain values, in.

`write` makes a folder: stats.json (the summary), stats.md (tables for people), classes.csv (a row for every
class), frequency.png and labels.png. The same statistics give the same bytes.
"""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from hpcscale.evaluate.evaluations import FORMULA
from hpcscale.files import PNG, check_output, marked, write_file
from hpcscale.report.figures import COLORS, save, style
from hpcscale.report.tables import table
from hpcscale.text import markdown

Columns = Mapping[str, Sequence[Any] | NDArray[Any]]
COLUMNS = ("class", "own", "closed", "depth", "natural", "sqrt", "uniform")
SAMPLINGS = COLUMNS[4:]
TITLE = "# Statistics of classes"
# How a file begins that is ours.
MARKS = {
    "stats.json": b'{\n "statistics of": ',
    "stats.md": TITLE.encode(),
    "classes.csv": ",".join(f'"{name}"' for name in COLUMNS).encode(),
    "frequency.png": PNG,
    "labels.png": PNG,
}
ROWS = 16  # of a histogram in text; what is beyond is summed up
# What Sun et al. 2017 say of JFT-300M, sections 1 and 3. Unlabelled pictures are not in it.
JFT = {
    "samples": "300 million",
    "labels": "375 million",
    "labels_per_picture": "1.26",
    "classes": "18,291",
    "below_100": "more than 3,000",
    "below_20": "about 2,000",
    "depth": "12",
    "fan_out": "2,876",
}
FACTS = {
    "samples": "samples",
    "unlabelled": "samples without a class, left out",
    "labelled": "samples counted below",
    "labels": "labels",
    "labels_per_picture": "labels per picture",
    "labels_per_picture_closed": "labels per picture, with ancestors",
    "classes": "classes",
    "without_samples": "classes without samples",
    "below_20": "classes with fewer than 20 samples",
    "below_100": "classes with fewer than 100 samples",
    "depth": "depth of the hierarchy, edges",
    "fan_out": "most children of a class",
    "fan_out_mean": "mean children of a class that has some",
}


def check(folder: Path, inputs: Iterable[Path | None]) -> None:
    """Raises OutputError if `write` would replace a file that is not ours."""
    for name, mark in MARKS.items():
        check_output(folder / name, inputs, marked(mark))


def write(folder: Path, about: str, summary: Mapping[str, Any], columns: Columns) -> None:
    """about: what the statistics are of, for the reader."""
    content = json.dumps({"statistics of": about, **summary}, indent=1, ensure_ascii=False) + "\n"
    write_file(folder / "stats.json", content.encode("utf-8", "surrogateescape"))
    plots = "![Frequency of classes](frequency.png)\n\n![Labels per picture](labels.png)\n"
    page = f"{TITLE}\n\n{markdown(about)}\n\n{text(summary)}\n\n{plots}"
    write_file(folder / "stats.md", page.encode("utf-8", "surrogateescape"))
    write_file(folder / "classes.csv", _table(columns).encode("utf-8", "surrogateescape"))
    with style():
        save(_frequencies(columns), folder / "frequency.png")
        save(_labels(summary), folder / "labels.png")


def text(summary: Mapping[str, Any]) -> str:
    """Markdown tables that can be read on a terminal."""
    whole = [summary["whole"]] if "whole" in summary else []
    facts = [
        [name, *(_number(each[key]) for each in (summary, *whole)), JFT.get(key)]
        for key, name in FACTS.items()
    ]
    parts = [
        table(["", "here", *["whole set"] * len(whole), "JFT-300M"], facts),
        _change(summary) if whole else "",
        _samplings(summary),
        _ends("Classes by samples", summary["closed"]),
        _ends("Classes by samples with a tag of their own", summary["own"]),
        _histogram("Labels per picture", "labels", {"pictures": summary["labels_per_picture_histogram"],
                   "with ancestors": summary["labels_per_picture_closed_histogram"]}),
        _histogram("Hierarchy", "edges below a root", {"classes": summary["depth_histogram"]}),
        _histogram("", "children", {"classes": summary["fan_out_histogram"]}),
        _pairs(summary),
    ]  # fmt: skip
    return "\n\n".join(part for part in parts if part)


def _change(summary: Mapping[str, Any]) -> str:
    noise = f", and {summary['noise']:.4g} of the labels were replaced" if summary["noise"] else ""
    return (
        f"{summary['labelled'] / max(1, summary['whole']['labelled']):.4g} of the labelled samples are "
        f"selected{noise}. {summary['moved']:.4g} of the labels are of other classes than in the whole set "
        "(half the sum of the differences of all shares), whose entropy is "
        f"{summary['whole']['entropy']:.3f} bits."
    )


def _samplings(summary: Mapping[str, Any]) -> str:
    chosen, found = summary["sampling"], summary["distributions"]
    rows = [
        [f"{name} ←" if name == chosen["name"] else name, f"{values['entropy']:.3f}",
         f"{values['effective_classes']:,.1f}", f"{values['head']:.1%}", f"{values['tail']:.1%}"]
        for name, values in found.items()
    ]  # fmt: skip
    head = ["sampling", "entropy, bits", "as many even classes", "in the top 1 %", "in the rarer half"]
    how = f"How evenly classes are seen (method {chosen['method']}), counting each picture's own labels:"
    return f"{how}\n\n{table(head, rows)}"


def _ends(title: str, found: Mapping[str, Any]) -> str:
    pairs = [(end, one) for end in ("top", "bottom") for one in found[end]]
    rows = [[markdown(one["class"]), _number(one["samples"]), end] for end, one in pairs]
    below = f"{found['below_20']:,} have fewer than 20, {found['below_100']:,} fewer than 100"
    return f"{title}; {below}:\n\n{table(['class', 'samples', ''], rows)}"


def _histogram(title: str, axis: str, histograms: Mapping[str, list[tuple[int, int]]]) -> str:
    """Counts of several histograms side by side, the long end summed up."""
    columns = {name: dict(pairs) for name, pairs in histograms.items()}
    values = sorted({value for counts in columns.values() for value in counts})
    shown, beyond = values[:ROWS], values[ROWS:]
    rows: list[list[Any]] = [
        [str(value), *(_number(counts.get(value, 0)) for counts in columns.values())] for value in shown
    ]
    if beyond:
        sums = (sum(counts.get(value, 0) for value in beyond) for counts in columns.values())
        rows.append([f"{beyond[0]} to {beyond[-1]}", *map(_number, sums)])
    found = table([axis, *columns], rows)
    return f"{title}:\n\n{found}" if title else found


def _pairs(summary: Mapping[str, Any]) -> str:
    rows = [
        [" + ".join(map(markdown, pair["classes"])), _number(pair["samples"]), f"{pair['lift']:.2f}"]
        for pair in summary["pairs"]
    ]
    among = f"among the {summary['pairs_among']:,} most frequent classes"
    if not rows:
        return f"No two classes are on one picture, {among}."
    lift = "lift: how many times as often as if they came independently"
    return f"Classes on one picture, {among} ({lift}):\n\n" + table(["classes", "samples", "lift"], rows)


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.2f}"


def _table(columns: Columns) -> str:
    out = io.StringIO()
    # Text in quotes: else a carriage return in a name would end its row. A spreadsheet would compute a name
    # that begins as a formula does.
    rows = csv.writer(out, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    rows.writerow(COLUMNS)
    names = (f"'{name}" if name.startswith(FORMULA) else name for name in columns["class"])
    numbers = (np.asarray(columns[key]).tolist() for key in COLUMNS[1:])
    rows.writerows(zip(names, *numbers, strict=True))
    return out.getvalue()


def _frequencies(columns: Columns) -> Figure:
    """How often each class is seen, from the most to the least frequent, under every sampling."""
    figure = Figure(figsize=(8, 4.6), layout="constrained")
    axes = figure.subplots()
    for name, color in zip(SAMPLINGS, COLORS, strict=False):
        shares = np.sort(np.asarray(columns[name]))[::-1]
        shares = shares[shares > 0]
        mark = "." if shares.size < 50 else None
        axes.plot(np.arange(1, shares.size + 1), shares, color=color, label=name, marker=mark)
    axes.set(xscale="log", yscale="log", xlabel="rank of the class", ylabel="share of labels seen")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.legend(title="sampling", frameon=False)
    return figure


def _labels(summary: Mapping[str, Any]) -> Figure:
    """Both histograms side by side; the means are of pictures with a label."""
    figure = Figure(figsize=(8, 4.2), layout="constrained")
    axes = figure.subplots()
    both = (("labels_per_picture", "of their own"), ("labels_per_picture_closed", "with ancestors"))
    for (key, name), color, shift in zip(both, COLORS, (-0.2, 0.2), strict=False):
        values, pictures = np.array(summary[f"{key}_histogram"]).reshape(-1, 2).T
        told = f"{name}, mean {summary[key]:.2f}"
        axes.bar(values + shift, pictures, width=0.4, color=color, label=told, zorder=2)
    axes.set_xlim(left=-0.6, right=max(1, axes.get_xlim()[1]))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.set(xlabel="labels per picture", ylabel="pictures")
    axes.legend(frameon=False)
    return figure
