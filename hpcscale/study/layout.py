"""Filled tables as Markdown, CSV and LaTeX.

In: a Table and its Cells. Out: text; the same cells give the same text. A cell reads: what was measured ± its
standard error / what the paper prints / the difference. Where runs were audited for near-duplicates, a column
more: the same without them / their number. A number that is not there is a dash, and the reason stands below.
"""

import csv
import io
import re
from collections.abc import Mapping, Sequence

from hpcscale.evaluate.evaluations import safe
from hpcscale.report.tables import table as columns_of
from hpcscale.study.papers import Table
from hpcscale.study.tables import Cell, difference, middle, spread
from hpcscale.text import markdown, shown

DASH = "–"
DIGITS = {"%": 2}  # after the point; other units are counts
CSV_HEAD = ["table", "row", "column", "unit", "seeds", "measured", "spread", "paper", "difference",
            "without_near_duplicates", "near_duplicates", "reason"]  # fmt: skip
# By what a file is known to be ours.
MARKS = {
    "md": b"<!-- hpcscale papers fill -->",
    "tex": b"% hpcscale papers fill",
    "csv": ",".join(CSV_HEAD).encode(),
}
SPREADS = {
    "mean": "mean of seeds ± its standard error",
    "median": "median of seeds ± their standard deviation",
}
LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{",
    "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "|": r"\textbar{}", "±": r"$\pm$", "−": "$-$", "–": "--", "×": r"$\times$",
}  # fmt: skip


def as_markdown(table: Table, cells: Sequence[Cell]) -> str:
    head, rows = _grid(table, cells)
    head, rows = [*map(markdown, head)], [[*map(markdown, row)] for row in rows]
    parts = [
        f"# {markdown(table.about.title)}",
        MARKS["md"].decode(),
        f"{markdown(table.about.source)}. {legend(table)}",
    ]
    parts.append(columns_of(head, rows))
    if notes := footnotes(table, cells):
        parts.append("\n".join(f"- {markdown(note)}" for note in notes))
    return "\n\n".join(parts) + "\n"


def as_latex(table: Table, cells: Sequence[Cell]) -> str:
    """A table environment; needs the package booktabs."""
    head, rows = _grid(table, cells)
    lines = [
        MARKS["tex"].decode(),
        "% needs \\usepackage{booktabs}; wide tables also \\usepackage{graphicx} and \\resizebox",
    ]
    lines += [r"\begin{table}", r"  \centering"]
    lines.append(
        rf"  \caption{{{latex(table.about.title)}. {latex(table.about.source)}. {latex(legend(table))}}}"
    )
    lines += [
        rf"  \label{{tab:{table.name}}}",
        rf"  \begin{{tabular}}{{l{'r' * (len(head) - 1)}}}",
        r"    \toprule",
    ]
    lines.append(_line(head))
    lines.append(r"    \midrule")
    lines += map(_line, rows)
    lines += [r"    \bottomrule", r"  \end{tabular}"]
    lines += [rf"  \par\footnotesize {latex(note)}." for note in footnotes(table, cells)]
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def as_csv(table: Table, cells: Sequence[Cell]) -> str:
    """A line for each cell; numbers with six digits."""
    statistic = table.about.statistic
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(CSV_HEAD)
    for cell in cells:
        named = [table.name, *map(safe, map(shown, (cell.row, cell.column))), cell.unit, len(cell.values)]
        measured = middle(cell.values, statistic) if cell.values else None
        dedup = middle(cell.dedup, statistic) if cell.dedup else None
        numbers = [
            _six(measured),
            _six(spread(cell.values, statistic)),
            safe(cell.paper.text) if cell.paper else "",
            _six(difference(cell, statistic)),
            _six(dedup),
            "" if not cell.duplicates else _counts(cell.duplicates),
        ]
        writer.writerow([*named, *numbers, safe(shown("; ".join(cell.reasons)))])
    return stream.getvalue()


def legend(table: Table) -> str:
    """What a cell says, in words."""
    text = f"Each cell: {SPREADS[table.about.statistic]} / the paper's number / the difference"
    units = dict.fromkeys(table.units.values())
    return f"{text}. Unit: {', '.join(units)}."


def footnotes(table: Table, cells: Sequence[Cell]) -> list[str]:
    """Reasons of dashes and remarks, each with the cells that it is about."""
    about: dict[str, dict[str, list[str]]] = {}
    for cell in cells:
        for reason in cell.reasons:
            about.setdefault(reason, {}).setdefault(cell.row, []).append(cell.column)
        if cell.paper and cell.paper.remark:
            about.setdefault(f"the paper's number: {cell.paper.remark}", {}).setdefault(cell.row, []).append(
                cell.column
            )
    return [f"{_places(rows, table)}: {reason}" for reason, rows in about.items()]


def latex(text: str) -> str:
    r"""A text escaped for LaTeX: & is \&, and no character is a command."""
    return "".join(LATEX.get(character, character) for character in shown(text))


def _grid(table: Table, cells: Sequence[Cell]) -> tuple[list[str], list[list[str]]]:
    """The head and the rows as text."""
    by_place = {(cell.row, cell.column): cell for cell in cells}
    audited = {cell.column for cell in cells if cell.dedup}
    head = [""]
    for column in table.columns:
        head += [column] + [f"{column}, without near-duplicates / their number"] * (column in audited)
    rows = []
    for row in table.rows:
        texts = [row]
        for column in table.columns:
            cell = by_place[row, column]
            texts += [_cell(cell, table)] + [_audit(cell, table)] * (column in audited)
        rows.append(texts)
    return head, rows


def _cell(cell: Cell, table: Table) -> str:
    statistic = table.about.statistic
    printed = cell.paper.text if cell.paper else DASH
    change = difference(cell, statistic)
    digits = DIGITS.get(cell.unit, 0)
    told = DASH if change is None else f"{change:+.{digits}f}"
    return f"{_measured(cell.values, statistic, digits)} / {printed} / {told}"


def _audit(cell: Cell, table: Table) -> str:
    count = _counts(cell.duplicates) if cell.duplicates else DASH
    return f"{_measured(cell.dedup, table.about.statistic, DIGITS.get(cell.unit, 0))} / {count}"


def _measured(values: Sequence[float], statistic: str, digits: int) -> str:
    if not values:
        return DASH
    around = spread(values, statistic)
    return f"{middle(values, statistic):.{digits}f}" + (
        f" ± {around:.{digits}f}" if around is not None else ""
    )


def _counts(duplicates: Sequence[int]) -> str:
    """Numbers of near-duplicates: one, as a rule, since seeds are judged on the same pictures."""
    return ", ".join(map(str, dict.fromkeys(duplicates)))


def _six(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _line(texts: Sequence[str]) -> str:
    """A row of a tabular; a hyphen before a number is a minus sign."""
    return "    " + " & ".join(latex(re.sub(r"(?<!\w)-(?=\d)", "−", text)) for text in texts) + r" \\"


def _places(rows: Mapping[str, Sequence[str]], table: Table) -> str:
    """The cells of a reason, in few words."""
    alike = {tuple(columns) for columns in rows.values()}
    if len(alike) == 1 and len(rows) == len(table.rows) > 1:
        (columns,) = alike
        return "all" if len(columns) == len(table.columns) else ", ".join(columns)
    return ", ".join(
        row if len(columns) == len(table.columns) > 1 else f"{row} ({', '.join(columns)})"
        for row, columns in rows.items()
    )
