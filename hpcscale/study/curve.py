"""Points of a study as a CSV, and what a forecast from them says.

In: a UTF-8 CSV with commas and a line of names, among them `examples` and `error` (a share, not percent);
other columns are passed over. Each further line is one trained network; lines with the same number of
examples are seeds. Out: a `Forecast` as text for people and as JSON.
"""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hpcscale.files import FileError, read_text
from hpcscale.study.fits import FORMULAE, Array
from hpcscale.study.forecast import MEASURED, Forecast, PointsError, forecast, wrong

COLUMNS = ("examples", "error")
MOST = 1 << 24  # bytes of a file


def read(file: Path) -> tuple[Array, Array]:
    """Sizes and errors, (points,) each, in the order of the file. Raises FileError, naming the line."""
    rows = csv.reader(io.StringIO(read_text(file, MOST).removeprefix("\ufeff"), newline=""), strict=True)
    try:
        head = [name.strip() for name in next(rows, [])]
        if any(head.count(name) != 1 for name in COLUMNS):
            raise ValueError(f"columns {', '.join(head)!r:.80}, expected examples and error, with commas")
        places = [head.index(name) for name in COLUMNS]
        found = [_point(row, places) for row in rows if any(cell.strip() for cell in row)]
    except (ValueError, csv.Error) as error:
        raise FileError(f"{file}: line {rows.line_num}: {error}") from None
    points = np.array(found, np.float64).reshape(-1, 2)
    return points[:, 0], points[:, 1]


def _point(row: list[str], places: Sequence[int]) -> tuple[float, float]:
    values = []
    for name, place in zip(COLUMNS, places, strict=True):
        text = row[place] if place < len(row) else ""
        try:
            values.append(float(text))
        except ValueError:
            raise ValueError(f"{name} {text!r:.40}, expected a number") from None
    if said := wrong(*values):
        raise ValueError(said)
    return values[0], values[1]


def forecast_file(file: Path, at: Sequence[float], level: float, chance: float | None) -> Forecast:
    """`forecast` of the points in a file. Raises FileError, and PointsError, which names the file."""
    sizes, errors = read(file)
    try:
        return forecast(sizes, errors, at, level, chance)
    except PointsError as error:
        raise PointsError(f"{file}: {error}") from None


def as_json(found: Forecast) -> dict[str, Any]:
    """`at`, `estimate`, `low` and `high` are those of the first size asked for; `forecasts` has them all."""
    line = found.line
    rows = [estimate._asdict() for estimate in found.estimates]
    return {
        "model": found.law.name,
        "parameters": found.law.parameters,
        "level": found.level,
        **rows[0],
        "forecasts": rows,
        "cuts": len(found.missed),
        "warnings": warnings(found),
        "points": [
            dict(zip((*COLUMNS, "fit", "residual", "line"), row, strict=True)) for row in _table(found)
        ],
        "line": {
            "intercept": line.intercept,
            "slope": line.slope,
            "slope_error": line.slope_error,
            "r2": line.r2,
            "deviations": found.deviations,
        },
    }


def warnings(found: Forecast) -> list[str]:
    reach = MEASURED * float(found.sizes.max())
    if all(one.at <= reach for one in found.estimates):
        return []
    return [
        f"beyond {reach:,.0f} examples, {MEASURED:g} times the largest size, nobody has measured how often "
        "such intervals hold"
    ]


def _table(found: Forecast) -> list[list[float]]:
    """Of each point: examples, error, the law there, log(error) - log(law), the papers' line there."""
    columns = [
        found.sizes,
        found.errors,
        found.law(found.sizes),
        found.law.residuals,
        found.line(found.sizes),
    ]
    table: list[list[float]] = np.stack(columns, 1).tolist()
    return table


def as_text(found: Forecast) -> str:
    law, line = found.law, found.line
    share = f"{100 * found.level:g} %"
    said = [
        f"With {one.at:,.0f} examples the error should be about {one.estimate:.4g}; a measurement should lie "
        f"between {one.low:.4g} and {one.high:.4g} with a probability of {share}."
        for one in found.estimates
    ] + [f"Warning: {text}." for text in warnings(found)]
    sizes = np.unique(found.sizes)
    values = ", ".join(f"{name} {value:.4g}" for name, value in law.parameters.items())
    said += [
        "",
        f"Fitted to {found.sizes.size} points of {sizes.size} sizes, {sizes[0]:,.0f} to {sizes[-1]:,.0f} "
        f"examples: {law.name}, {FORMULAE[law.name]}, with {values}.",
        f"Points lie {100 * law.sd:.2g} % around it. The interval also has what {len(found.missed)} "
        "forecasts of the largest sizes from the smaller ones missed.",
        "",
        f"{'examples':>18}{'error':>10}{'fit':>10}{'residual':>10}{'line':>10}",
    ]
    said += [
        f"{size:18,.0f}{error:10.4f}{fit:10.4f}{residual:+10.4f}{straight:10.4f}"
        for size, error, fit, residual, straight in _table(found)
    ]
    error = "" if line.slope_error is None else f", standard error {line.slope_error:.2g}"
    r2 = "" if line.r2 is None else f", R2 {line.r2:.4f}"
    said += [
        "residual: log(error) - log(fit)",
        "",
        f"The line of the papers: error = {line.intercept:.4g} {line.slope:+.4g} * log10(examples)"
        f"{error}{r2}.",
        "It is the figure that the papers draw, not a forecast: beyond the points it is far off.",
        *(f"{name}: {text}" for name, text in found.deviations.items()),
    ]
    return "\n".join(said)
