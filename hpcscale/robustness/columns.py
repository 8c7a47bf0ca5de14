"""Small tables with named columns, which users write: CSV or TSV files, as docs/robustness.md specifies them.

In: a file whose first row names its columns. Out: its rows, cells by column.
"""

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

from hpcscale.files import FileError, read_text

DELIMITERS = {".csv": ",", ".tsv": "\t"}

Row = dict[str, str]


def read_rows(file: Path, needed: Sequence[str]) -> Iterator[tuple[int, Row]]:
    """The number of each row's last line, and its cells, without white space around them. Empty rows are
    passed over. Raises FileError, with the line, where a column of `needed` is missing or empty in a row, a
    column is named twice or a row is longer or shorter than the first; and OSError.
    """
    if file.suffix not in DELIMITERS:
        raise FileError(f"{file}: the name must end in {' or '.join(DELIMITERS)}")
    text = io.StringIO(read_text(file).removeprefix("\ufeff"), newline="")
    rows = csv.reader(text, delimiter=DELIMITERS[file.suffix], strict=True)
    columns: list[str] = []
    try:
        for row in rows:
            cells = [cell.strip() for cell in row]
            if not any(cells):
                continue
            if columns:
                yield rows.line_num, _cells(columns, cells, needed)
                continue
            columns = cells
            if missing := [column for column in needed if column not in columns]:
                raise ValueError(f"the first row must name the columns {', '.join(missing)}: {cells!r:.80}")
            if len(set(columns)) < len(columns):
                raise ValueError(f"the first row names a column twice: {cells!r:.80}")
    except (ValueError, csv.Error) as error:
        raise FileError(f"{file}:{rows.line_num}: {error}") from None
    if not columns:
        raise FileError(f"{file}: empty; its first row must name the columns {', '.join(needed)}")


def _cells(columns: list[str], cells: list[str], needed: Sequence[str]) -> Row:
    if len(cells) != len(columns):
        raise ValueError(f"{len(cells)} cells, the first row has {len(columns)}")
    row = dict(zip(columns, cells, strict=True))
    if empty := [column for column in needed if not row[column]]:
        raise ValueError(f"{empty[0]} is empty")
    return row
