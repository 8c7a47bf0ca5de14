"""The folder of one evaluation, `RUN/evaluations/<set>-<step>/`: written by `evaluate`, read by reports and
audits.

- `metrics.json`: set, step, data folder, how many of the set's samples could not be decoded and are left out,
  metrics, and those of the class-frequency baseline (metrics.measure).
- `classes.csv`: a row for every class: id, name, samples in the training data, positives in this set, average
  precision (reading a; empty without positives), and that of the baseline.
- `samples.npz`: a row for every sample: the arrays of metrics.Results, `names`, the source ids, and `digests`
  (n, 16) uint8, BLAKE2b-128 of the original picture files. Older evaluations have no digests.
- `thumbnails.npz`: `samples` (m,) and `pixels` (m, side, side, 3) uint8 of some of the samples, as the model
  saw them.

Nothing is pickled or compressed. The folder is written aside and renamed, so it is whole or not there. Text
is UTF-8. In `classes.csv` a name that begins as a formula does, or with ', has a ' before it.

What is read may have been damaged or made by others: everything is checked, and FileError names the file.
"""

import csv
import io
import json
import math
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hpcscale.config import SETS
from hpcscale.evaluate.metrics import Results
from hpcscale.files import FileError, open_regular, read_json, read_text, sync

FILES = ("metrics.json", "classes.csv", "samples.npz", "thumbnails.npz")
COLUMNS = ("id", "name", "count", "positives", "average_precision", "baseline")
FORMULA = ("=", "+", "-", "@", "\t", "\r", "'")  # how a cell begins that a spreadsheet would compute
MOST = 1 << 53  # of a count: what float64 holds exactly
# dtype and dimensions of each array; a letter is a length, the same wherever it stands
SAMPLES = {
    "samples": ("<i8", "n"), "losses": ("<f4", "n"), "truths": ("<i4", "n"), "guesses": ("<i4", "ng"),
    "classes": ("<i4", "nk"), "scores": ("<f4", "nk"), "label_offsets": ("<i8", "o"), "labels": ("<i4", "l"),
    "names": ("U", "n"),
}  # fmt: skip
NAMED = {key: SAMPLES[key] for key in ("samples", "names")} | {"digests": ("u1", "nd")}
THUMBNAILS = {"samples": ("<i8", "m"), "pixels": ("u1", "mss3")}
OPTIONAL = "digests"


class Class(NamedTuple):
    """One row of classes.csv."""

    id: int
    name: str
    samples: int  # in the data of the vocabulary
    positives: int
    average_precision: float | None  # None: no positives
    baseline: float | None


class Summary(NamedTuple):
    """metrics.json."""

    set: str
    step: int
    metrics: dict[str, int | float | None]
    baseline: dict[str, int | float | None]
    data: str = ""  # folder of the data set, as it was when it was evaluated; "" in evaluations of others


def find(run: Path, which: str | None = None) -> tuple[str, int, Path]:
    """Set, step and folder of the newest evaluation of a set; by default of the first of SETS that has one.
    Raises FileError if there is none."""
    folders = {}
    for folder in sorted(run.glob("evaluations/*-*")):
        if found := re.fullmatch(r"(\w+)-([0-9]+)", folder.name):
            folders[found[1]] = int(found[2]), folder
    which = which or next((name for name in SETS if name in folders), None)
    if which is None or which not in folders:
        there = ", ".join(sorted(folders)) or "none"
        raise FileError(
            f"{run}: no evaluation of set {which or ' or '.join(SETS)}; there are: {there}. "
            f"`hpcscale evaluate {run}` makes one"
        )
    return which, *folders[which]


def safe(text: str) -> str:
    """A cell of CSV that no spreadsheet computes: with a ' before it, if it begins as a formula does."""
    return f"'{text}" if text.startswith(FORMULA) else text


def save(
    folder: Path,
    summary: dict[str, Any],
    classes: list[tuple[Any, ...]],
    results: Results,
    names: list[str],
    thumbnails: tuple[NDArray[np.int64], NDArray[np.uint8]],
    digests: NDArray[np.uint8] | None = None,
) -> None:
    """Write a folder, in place of the one that may be there; other files in it stay.

    summary: what goes into metrics.json; classes: rows of COLUMNS; thumbnails: sample ids and pixels.
    digests: (n, 16) of the original picture files, where they are known.
    """
    aside = folder.with_name(folder.name + ".part")
    _clear(aside)
    aside.mkdir(parents=True, exist_ok=True)
    (aside / "metrics.json").write_text(json.dumps(summary, indent=2) + "\n", "utf-8")
    with (aside / "classes.csv").open("w", encoding="utf-8", newline="") as stream:
        rows = ((c, safe(name), *rest) for c, name, *rest in classes)
        # Text in quotes: else a carriage return in a name would end its row.
        writer = csv.writer(stream, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
        writer.writerows([COLUMNS, *rows])
    arrays: dict[str, Any] = {"names": np.array(names, np.str_), **results._asdict()}
    if digests is not None:
        arrays["digests"] = digests
    np.savez(aside / "samples.npz", **arrays)
    np.savez(aside / "thumbnails.npz", samples=thumbnails[0], pixels=thumbnails[1])
    for file in [*aside.iterdir(), aside]:
        sync(file)
    _clear(folder)
    if folder.exists():
        for other in folder.iterdir():
            other.rename(aside / other.name)
        folder.rmdir()
    aside.rename(folder)


def _clear(folder: Path) -> None:
    for name in FILES:
        (folder / name).unlink(missing_ok=True)


def read(folder: Path) -> tuple[Results, list[str]]:
    """The per-sample results of an evaluation and the names of its samples. Raises FileError and OSError."""
    return _results(folder, len(read_classes(folder)))


def read_names(folder: Path) -> tuple[list[str], NDArray[np.uint8] | None]:
    """The names of the samples, and digests (n, 16) of their original picture files; None where an older
    version evaluated. Raises FileError and OSError."""
    arrays = _arrays(folder / "samples.npz", NAMED)
    return _names(folder / "samples.npz", arrays), arrays.get("digests")


def read_summary(folder: Path) -> Summary:
    """The metrics of an evaluation. Raises FileError and OSError."""
    file = folder / "metrics.json"
    values = read_json(file)
    if not isinstance(values, dict):
        raise FileError(f"{file}: expected an object, found {type(values).__name__}")
    name, step = values.get("set"), values.get("step")
    if not isinstance(name, str):
        raise FileError(f"{file}: 'set' must be a string, found {name!r:.80}")
    if type(step) is not int or not 0 <= step <= MOST:
        raise FileError(f"{file}: 'step' must be a number of steps, found {step!r:.80}")
    if not isinstance(data := values.get("data", ""), str):
        raise FileError(f"{file}: 'data' must be a folder, found {data!r:.80}")
    metrics, baseline = (_numbers(file, values, key) for key in ("metrics", "baseline"))
    return Summary(name, step, metrics, baseline, data)


def read_classes(folder: Path) -> list[Class]:
    """The classes of an evaluation, by id. Raises FileError and OSError."""
    file = folder / "classes.csv"
    rows = csv.reader(io.StringIO(read_text(file), newline=""), strict=True)
    classes: list[Class] = []
    try:
        if tuple(head := next(rows, [])) != COLUMNS:
            raise ValueError(f"the columns are {', '.join(head)[:80]!r}, expected {', '.join(COLUMNS)}")
        for row in rows:
            if len(row) != len(COLUMNS):
                raise ValueError(f"{len(row)} cells, expected {len(COLUMNS)}")
            c, samples, positives = (_count(row[place]) for place in (0, 2, 3))
            if c != len(classes):
                raise ValueError(f"class {c} stands where class {len(classes)} should")
            precisions = (_precision(cell) if cell else None for cell in row[4:])
            classes.append(Class(c, row[1].removeprefix("'"), samples, positives, *precisions))
    except (ValueError, csv.Error) as error:
        raise FileError(f"{file}:{rows.line_num}: {error}") from None
    return classes


def read_thumbnails(folder: Path) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Sample ids (m,) and pixels (m, side, side, 3). Raises FileError and OSError."""
    arrays = _arrays(folder / "thumbnails.npz", THUMBNAILS)
    return arrays["samples"], arrays["pixels"]


def _results(folder: Path, classes: int) -> tuple[Results, list[str]]:
    file = folder / "samples.npz"
    arrays = _arrays(file, SAMPLES)
    names = _names(file, arrays)
    results = Results(**arrays)
    if (np.diff(results.samples) <= 0).any():
        raise FileError(f"{file}: 'samples' do not rise")
    offsets = results.label_offsets
    if len(offsets) != len(names) + 1 or offsets[0] != 0 or offsets[-1] != len(results.labels):
        raise FileError(f"{file}: 'label_offsets' do not run from 0 to {len(results.labels)}")
    if (np.diff(offsets) < 0).any():
        raise FileError(f"{file}: 'label_offsets' fall")
    for key, least in (("truths", -1), ("guesses", 0), ("classes", 0), ("labels", 0)):
        ids = getattr(results, key)
        if ids.size and not least <= ids.min() <= ids.max() < classes:
            raise FileError(f"{file}: '{key}' holds {ids.min()} to {ids.max()}, there are {classes} classes")
    return results, names


def _names(file: Path, arrays: dict[str, Any]) -> list[str]:
    try:
        names: list[str] = arrays.pop("names").tolist()
    except ValueError:  # a number that is no character
        raise FileError(f"{file}: 'names' is not text") from None
    return names


def _arrays(file: Path, expected: Mapping[str, tuple[str, str]]) -> dict[str, Any]:
    """The arrays of an .npz file. No more memory than the file has bytes: a member is not compressed, and its
    shape is believed only if it has that many bytes."""
    arrays: dict[str, Any] = {}
    lengths: dict[str, int] = {"3": 3, "d": 16}
    try:
        with open_regular(file) as stream, zipfile.ZipFile(stream) as archive:
            for key, (dtype, dimensions) in expected.items():
                if key == OPTIONAL and f"{key}.npy" not in archive.namelist():
                    continue
                member = archive.getinfo(f"{key}.npy")
                if member.compress_type != zipfile.ZIP_STORED:
                    raise ValueError(f"'{key}' is compressed, which hpcscale does not write")
                arrays[key] = array = _array(io.BytesIO(archive.read(member)))
                kind = array.dtype.kind if dtype == "U" else array.dtype.newbyteorder("<").str.lstrip("<|")
                if kind != dtype.lstrip("<") or array.ndim != len(dimensions):
                    raise ValueError(f"'{key}' is {array.dtype} of {array.ndim} dimensions")
                for letter, length in zip(dimensions, array.shape, strict=True):
                    if lengths.setdefault(letter, length) != length:
                        raise ValueError(
                            f"'{key}' has the shape {array.shape}, which does not fit the others"
                        )
    except KeyError as error:
        raise FileError(f"{file}: {error.args[0]}") from None
    except (ValueError, EOFError, NotImplementedError, RuntimeError, zipfile.BadZipFile) as error:
        raise FileError(f"{file}: cannot be read: {error}") from None
    return arrays


def _array(stream: io.BytesIO) -> NDArray[Any]:
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"an array of version {version}")
    header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, by_column, dtype = header(stream)
    content = stream.read()
    if dtype.hasobject or not dtype.itemsize or math.prod(shape) * dtype.itemsize != len(content):
        raise ValueError(f"{len(content)} bytes are no array of {dtype} and shape {shape}")
    return np.frombuffer(content, dtype).reshape(shape, order="F" if by_column else "C")


def _numbers(file: Path, values: dict[str, Any], key: str) -> dict[str, int | float | None]:
    found = values.get(key)
    if not isinstance(found, dict):
        raise FileError(f"{file}: '{key}' must be an object of numbers, found {found!r:.80}")
    for name, value in found.items():
        number = value is None or (isinstance(value, int | float) and not isinstance(value, bool))
        if not number or (value is not None and not abs(value) <= MOST):
            raise FileError(f"{file}: {key}.{name} must be a number, found {value!r:.80}")
    return found


def _count(cell: str) -> int:
    if not (cell.isascii() and cell.isdecimal() and len(cell) < 17 and int(cell) <= MOST):
        raise ValueError(f"{cell[:80]!r} is not a count")
    return int(cell)


def _precision(cell: str) -> float:
    if not 0 <= float(cell) <= 1:
        raise ValueError(f"{cell[:80]!r} is not a precision from 0 to 1")
    return float(cell)
