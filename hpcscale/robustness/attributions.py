"""Whose pictures they are, and under which licence: of each composed picture, both that it is made of.

In: `attributions.csv` or `.tsv` in the folders of foregrounds and backgrounds, or files that are named; the
columns are COLUMNS, others are passed over. Out: `attributions.csv` of the composed pictures.
"""

import csv
import io
from collections.abc import Iterable, Iterator
from pathlib import Path

from hpcscale.evaluate.evaluations import safe
from hpcscale.files import FileError
from hpcscale.robustness.columns import DELIMITERS, Row, read_rows

COLUMNS = ("image", "title", "author", "source", "licence")
NEEDED = ("image", "licence")
FILE = "attributions.csv"
SHOWN = 5  # names in a message


def read(file: Path) -> dict[str, Row]:
    """The attribution of each picture by its name. Raises FileError, also where a picture has two."""
    found: dict[str, Row] = {}
    for line, row in read_rows(file, NEEDED):
        if row["image"] in found:
            raise FileError(f"{file}:{line}: {row['image']!r:.80} has an attribution already")
        found[row["image"]] = row
    return found


def of_parts(names: Iterable[str], folder: Path, file: Path | None, needed: bool) -> dict[str, Row]:
    """The attributions of the pictures of a folder. file: None looks in the folder.

    Raises FileError where a picture has none, if `needed`; without, it is left out.
    """
    file = file or _beside(folder)
    if file is None and needed:
        raise FileError(
            f"{folder}: has neither attributions.csv nor attributions.tsv; write one with the columns "
            f"{', '.join(COLUMNS)}, or name one, or say --without-attribution"
        )
    found = read(file) if file else {}
    if needed and (missing := [name for name in names if name not in found]):
        more = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
        raise FileError(
            f"{file}: no attribution of {', '.join(map(repr, missing[:SHOWN]))}{more}; add rows, or say "
            "--without-attribution"
        )
    return found


def _beside(folder: Path) -> Path | None:
    files = [file for ending in DELIMITERS if (file := folder / f"attributions{ending}").exists()]
    if len(files) > 1:
        raise FileError(f"{folder}: holds {files[0].name} and {files[1].name}; keep one, or name one")
    return files[0] if files else None


def text(
    pictures: Iterable[tuple[str, str, str]], foregrounds: dict[str, Row], backgrounds: dict[str, Row]
) -> str:
    """CSV with a row for each picture: its name, foreground and background. Cells of a part without an
    attribution are empty."""
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, lineterminator="\n", quoting=csv.QUOTE_ALL)
    kinds = ("foreground", "background")
    writer.writerow(
        ["image", *(column for kind in kinds for column in (kind, *(f"{kind}_{c}" for c in COLUMNS[1:])))]
    )
    for image, foreground, background in pictures:
        cells = [*_cells(foreground, foregrounds), *_cells(background, backgrounds)]
        writer.writerow([image, *map(safe, cells)])
    return stream.getvalue()


def _cells(name: str, found: dict[str, Row]) -> Iterator[str]:
    yield name
    yield from (found.get(name, {}).get(column, "") for column in COLUMNS[1:])
