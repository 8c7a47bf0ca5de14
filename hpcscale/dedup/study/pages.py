"""A calibration as files: calibration.csv, calibration.md and calibration.png.

In: what was measured. Out: every point of every curve (CSV), tables for people (MD), and the curves
over the radius (PNG). The same calibration gives the same bytes.
"""

import csv
import io
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from hpcscale.dedup.study.planted import TRANSFORMATIONS
from hpcscale.dedup.study.recall import Calibration, upper_bound
from hpcscale.files import PNG, check_output, marked, write_file
from hpcscale.report.figures import COLORS, STYLE, save
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
    """Raises OutputError if `write` would replace a file that is not ours."""
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
        rates = [*curve.recall(), curve.false_pairs / curve.pairs]
        counts = [len(curve.copies)] * len(TRANSFORMATIONS) + [curve.pairs]
        for name, values, pairs in zip([*TRANSFORMATIONS, FALSE], rates, counts, strict=True):
            for radius, value in enumerate(values.tolist()):
                rows.writerow([curve.method, name, curve.shown(radius), f"{value:.6g}", pairs])
    return out.getvalue()


def text(calibration: Calibration) -> str:
    """The Markdown page."""
    blocks = (_about, _radii, _recalls, _left_out, _closest)
    return "\n\n".join("\n".join(block(calibration)) for block in blocks) + "\n"


def _about(c: Calibration) -> list[str]:
    lines = [
        TITLE,
        "",
        f"{c.pictures} pictures, drawn with seed {c.seed} from {c.total}; {len(TRANSFORMATIONS)} changes of "
        "each. Recall is the share of changed copies within the radius of their original. False pairs are "
        "pairs of different originals within it.",
    ]
    if c.network:
        lines += ["", f"Features (rmac, mean; radius is 1 - cosine): {c.network}."]
    return lines


def _radii(c: Calibration) -> list[str]:
    """The default and the recommended radius of each method, with their false pairs."""
    lines = [
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
            cells += [curve.shown(radius), str(false), f"{bound:.1e}"]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _recalls(c: Calibration) -> list[str]:
    """Recall of every change at the default radius of each method, and at the recommended one."""
    lines: list[str] = []
    for title, radii in (
        ("at the default radius", [curve.default for curve in c.curves]),
        ("at the recommended radius", [curve.recommended() for curve in c.curves]),
    ):
        used = [(curve, at) for curve, at in zip(c.curves, radii, strict=True) if at is not None]
        heads = [f"{curve.method} {curve.shown(at)}" for curve, at in used]
        lines += ["", f"## Recall {title}, %", "", f"| change | {' | '.join(heads)} |"]
        lines.append("|---|" + "---:|" * len(used))
        recalls = [curve.recall()[:, at] for curve, at in used]
        for row, name in enumerate(TRANSFORMATIONS):
            lines.append(f"| {name} | {' | '.join(f'{100 * recall[row]:.1f}' for recall in recalls)} |")
    return lines[1:]


def _left_out(c: Calibration) -> list[str]:
    return [
        "## What was left out",
        "",
        f"- PDQ: {c.low_quality[0]} originals of quality below 50 are left out, and {c.low_quality[1]} "
        "changed copies of the others fell below it and count as missed (see `dedup search --min-quality`).",
        f"- Exact duplicates (equal pixels), left out before all else: {len(c.duplicates)}.",
        *(f"  - {markdown(kept)} = {markdown(other)}" for kept, other in c.duplicates),
        f"- Unreadable pictures: {len(c.unreadable)}.",
        *(f"  - {markdown(name)}: {markdown(reason)}" for name, reason in c.unreadable),
    ]


def _closest(c: Calibration) -> list[str]:
    return [
        "## The closest pairs of originals",
        "",
        "Look at them: a near-duplicate among them is no false pair, and the radius may be larger.",
        "",
        "| method | distance | one | other |",
        "|---|---:|---|---|",
        *(
            f"| {curve.method} | {curve.shown(distance)} | {markdown(one)} | {markdown(other)} |"
            for curve in c.curves
            for one, other, distance in curve.closest
        ),
    ]


def _plot(calibration: Calibration, file: Path) -> None:
    """One panel per method: mean recall of each family of changes, and the rate of false pairs."""
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
        save(figure, file)
