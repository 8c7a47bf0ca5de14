"""A calibration as files: calibration.csv, calibration.md and calibration.png.

In: what calibrate.py measured. Out: every point of every curve (CSV), the tables that a person reads (MD) and
the curves over the radius (PNG). The same calibration gives the same bytes.
"""

import csv
import io
import math
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from hpcscale.dedup.study.calibrate import Calibration, Curve
from hpcscale.dedup.study.planted import TRANSFORMATIONS
from hpcscale.files import PNG, check_output, marked, write_file
from hpcscale.report.figures import COLORS, STYLE
from hpcscale.text import markdown

FALSE = "(different originals)"  # in the CSV's column of transformations
HEADS = ("method", "originals", "pairs", "radius", "false pairs", "rate at most",
         "recommended", "false pairs", "rate at most")  # fmt: skip
RULE = (
    "Recommended is the largest radius with at most one false pair per million pairs of originals; where "
    "there are fewer than a million, with none seen."
)
FAMILIES = {
    "JPEG": "JPEG", "resize": "resize", "grey": "tone", "brightness": "tone", "contrast": "tone",
    "gamma": "tone", "blur,": "blur", "text": "text", "border": "border", "crop": "crop",
    "flip": "flip, turn", "rotate": "flip, turn",
}  # fmt: skip
TITLE = "# Recall of planted near-duplicates"
COLUMNS = ("method", "transformation", "radius", "recall", "pairs")
MARKS = {"calibration.csv": ",".join(COLUMNS).encode(), "calibration.md": TITLE.encode(),
         "calibration.png": PNG}  # fmt: skip


def check(folder: Path, source: Path) -> None:
    """Refuse what `write` would not be allowed to replace. Raises OutputError."""
    for name, mark in MARKS.items():
        check_output(folder / name, [source], marked(mark))


def write(calibration: Calibration, folder: Path) -> None:
    write_file(folder / "calibration.csv", _table(calibration).encode("utf-8", "surrogateescape"))
    write_file(folder / "calibration.md", text(calibration).encode("utf-8", "surrogateescape"))
    _plot(calibration, folder / "calibration.png")


def _table(calibration: Calibration) -> str:
    out = io.StringIO()
    rows = csv.writer(out, lineterminator="\n")
    rows.writerow(COLUMNS)
    for curve in calibration.curves:
        shares = [*curve.recall(), curve.false_pairs / curve.pairs]
        counts = [len(curve.copies)] * len(TRANSFORMATIONS) + [curve.pairs]
        for name, values, pairs in zip([*TRANSFORMATIONS, FALSE], shares, counts, strict=True):
            for radius, value in enumerate(values.tolist()):
                rows.writerow([curve.method, name, shown(curve, radius), f"{value:.6g}", pairs])
    return out.getvalue()


def text(calibration: Calibration) -> str:
    """The Markdown page."""
    c = calibration
    lines = [
        TITLE,
        "",
        f"{c.pictures} pictures, drawn with seed {c.seed} from {c.total}; {len(TRANSFORMATIONS)} changes of "
        "each. Recall is the share of changed copies within the radius of their original. False pairs are "
        "pairs of different originals within it.",
        "",
    ]
    if c.network:
        lines += [f"Features (rmac, mean; radius is 1 - cosine): {c.network}.", ""]
    lines += [
        f"{RULE} The bound is that of a 95 % confidence (Poisson, one-sided) on the rate; it takes pairs for "
        "independent, and the radius was chosen on the same pairs, so it is optimistic. A search of m "
        "pictures against n makes m x n pairs: ten thousand against a million find 10,000 false pairs at one "
        "per million, so large searches want a radius well below the recommended one, or a second method.",
        "",
        f"| {' | '.join(HEADS)} |",
        "|---" + "|---:" * (len(HEADS) - 1) + "|",
    ]
    for curve in c.curves:
        cells = [curve.method, str(len(curve.copies)), f"{curve.pairs:,}"]
        for radius in (curve.default, curve.recommended()):
            if radius is None:
                cells += ["none", "", ""]
                continue
            false = int(curve.false_pairs[radius])
            bound = upper_bound(false) / curve.pairs
            cells += [shown(curve, radius), str(false), f"{bound:.1e}"]
        lines.append(f"| {' | '.join(cells)} |")
    for title, radii in (
        ("at the default radius", [curve.default for curve in c.curves]),
        ("at the recommended radius", [curve.recommended() for curve in c.curves]),
    ):
        used = [(curve, at) for curve, at in zip(c.curves, radii, strict=True) if at is not None]
        heads = [f"{curve.method} {shown(curve, at)}" for curve, at in used]
        lines += ["", f"## Recall {title}, %", "", f"| change | {' | '.join(heads)} |"]
        lines.append("|---|" + "---:|" * len(used))
        recalls = [curve.recall()[:, at] for curve, at in used]
        for row, name in enumerate(TRANSFORMATIONS):
            lines.append(f"| {name} | {' | '.join(f'{100 * recall[row]:.1f}' for recall in recalls)} |")
    lines += ["", "## What was left out", ""]
    lines.append(
        f"- PDQ: {c.low_quality[0]} originals of quality below 50 are left out, and {c.low_quality[1]} "
        "changed copies of the others fell below it and count as missed (see `dedup search --min-quality`)."
    )
    lines.append(f"- Exact duplicates (equal pixels), left out before all else: {len(c.duplicates)}.")
    lines += [f"  - {markdown(kept)} = {markdown(other)}" for kept, other in c.duplicates]
    lines.append(f"- Unreadable pictures: {len(c.unreadable)}.")
    lines += [f"  - {markdown(name)}: {markdown(reason)}" for name, reason in c.unreadable]
    lines += ["", "## The closest pairs of originals", "",
              "Look at them: a near-duplicate among them is no false pair, and the radius may be larger.", "",
              "| method | distance | one | other |", "|---|---:|---|---|"]  # fmt: skip
    for curve in c.curves:
        for one, other, distance in curve.closest:
            lines.append(
                f"| {curve.method} | {shown(curve, distance)} | {markdown(one)} | {markdown(other)} |"
            )
    return "\n".join(lines) + "\n"


def shown(curve: Curve, radius: int) -> str:
    return str(radius) if curve.unit == 1 else f"{radius * curve.unit:.3f}"


def upper_bound(seen: int) -> float:
    """The largest Poisson mean that gives at most `seen` events with a probability of 5 %.

    Exact up to 200 (for 0 events 3.0); above, Wilson and Hilferty's approximation, good to 1e-4 there.
    """
    if seen > 200:
        k = seen + 1
        quantile = 1.6448536269514722  # of the normal distribution, at 95 %
        return float(k * (1 - 1 / (9 * k) + quantile / (3 * math.sqrt(k))) ** 3)
    low, high = float(seen), seen + 10 * math.sqrt(seen + 1)
    for _ in range(60):
        mean = (low + high) / 2
        below = sum(math.exp(i * math.log(mean) - mean - math.lgamma(i + 1)) for i in range(seen + 1))
        low, high = (mean, high) if below > 0.05 else (low, mean)
    return high


def _plot(calibration: Calibration, file: Path) -> None:
    """One panel a method: mean recall of each family of changes, and the rate of false pairs."""
    families = list(dict.fromkeys(FAMILIES.values()))
    of = np.array([families.index(FAMILIES[name.split()[0]]) for name in TRANSFORMATIONS])
    rows = -(-len(calibration.curves) // 2)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11, 3.4 * rows), layout="constrained")
        panels = figure.subplots(rows, 2, squeeze=False)
        for curve, panel in zip(calibration.curves, panels.flat, strict=False):
            recall = curve.recall()
            radii = np.arange(recall.shape[1]) * curve.unit
            for index, family in enumerate(families):
                color, style = COLORS[index % len(COLORS)], "-" if index < len(COLORS) else "--"
                panel.plot(radii, recall[of == index].mean(0), color=color, linestyle=style, label=family)
            panel.set(title=curve.method, xlabel="radius", ylabel="recall", ylim=(-0.02, 1.02))
            rate = panel.twinx()
            rates = np.where(curve.false_pairs, curve.false_pairs / curve.pairs, np.nan)
            rate.plot(radii, rates, color="black", linestyle=":", linewidth=2)
            rate.set(yscale="log", ylim=(0.3 / curve.pairs, 1), ylabel="false pairs (dotted)")
            rate.grid(False)
            for radius, style in ((curve.default, "-"), (curve.recommended(), "--")):
                if radius is not None:
                    panel.axvline(radius * curve.unit, color="grey", linestyle=style, linewidth=1)
        for panel in panels.flat[len(calibration.curves) :]:
            panel.axis("off")
        handles, labels = panels.flat[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(families), frameon=False,
                      title="vertical lines: default radius (solid), recommended (dashed)")  # fmt: skip
        content = io.BytesIO()
        figure.savefig(content, format="png", dpi=110, metadata={"Software": "hpcscale"})
    write_file(file, content.getvalue())
