"""The folder of one evaluation, `RUN/evaluations/<set>-<step>/`: written by `evaluate`, read by reports and
audits.

- `metrics.json`: set, step, data folder, how many of the set's samples could not be decoded and are left out,
  metrics, and those of the class-frequency baseline (metrics.measure).
- `classes.csv`: a row for every class: id, name, samples in the training data, positives in this set, average
  precision (reading a; empty without positives), and that of the baseline.
- `samples.npz`: a row for every sample: the arrays of metrics.Results and `names`, the source ids.
- `thumbnails.npz`: `samples` (m,) and `pixels` (m, side, side, 3) uint8 of some of the samples, as the model
  saw them.

Nothing is pickled. The folder is written aside and renamed, so it is whole or not there.
"""

import csv
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpcscale.metrics import Results

FILES = ("metrics.json", "classes.csv", "samples.npz", "thumbnails.npz")
COLUMNS = ("id", "name", "count", "positives", "average_precision", "baseline")


def save(
    folder: Path,
    summary: dict[str, Any],
    classes: list[tuple[Any, ...]],
    results: Results,
    names: list[str],
    thumbnails: tuple[NDArray[np.int64], NDArray[np.uint8]],
) -> None:
    """Write a folder, in place of the one that may be there; other files in it stay.

    summary: what goes into metrics.json; classes: rows of COLUMNS; thumbnails: sample ids and pixels.
    """
    aside = folder.with_name(folder.name + ".part")
    _clear(aside)
    aside.mkdir(parents=True, exist_ok=True)
    (aside / "metrics.json").write_text(json.dumps(summary, indent=2) + "\n")
    with (aside / "classes.csv").open("w", newline="") as stream:
        csv.writer(stream, lineterminator="\n").writerows([COLUMNS, *classes])
    np.savez(aside / "samples.npz", names=np.array(names, np.str_), **results._asdict())
    np.savez(aside / "thumbnails.npz", samples=thumbnails[0], pixels=thumbnails[1])
    for file in [*aside.iterdir(), aside]:
        descriptor = os.open(file, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
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
    """The per-sample results of an evaluation and the names of its samples."""
    with np.load(folder / "samples.npz", allow_pickle=False) as stored:
        return Results._make(stored[field] for field in Results._fields), stored["names"].tolist()
