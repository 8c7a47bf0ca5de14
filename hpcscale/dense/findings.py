"""The folder of an evaluation of a dense task, `RUN/evaluations/validation-<step>/`.

- `metrics.json`: set, step, data folder and its digest, kind, pictures, metrics, the number of each class.
- `found.json`, `truth.json`: what the model found, where `image_id` is the sample's id, and what is there; so
  that numbers can be computed again without a model (evaluate/kept.py).
- `maps/SAMPLE.png`: the class of every pixel, 8-bit grey, of a segmenter.
- `samples.npz`: samples, names and digests of all pictures, as evaluations of classification have them.
- `pictures.png`: the worst and the best pictures, the truth beside what was found (sheet.py).

Written aside and renamed, so it is whole or not there.
"""

import base64
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hpcscale import ranks
from hpcscale.data.store import DataSet
from hpcscale.dense import sheet
from hpcscale.evaluate.kept import Kind, Records
from hpcscale.evaluate.measured import Measured
from hpcscale.files import sync

MAP = "map"  # of a record while it travels: a PNG in base64


def png(classes: NDArray[np.uint8]) -> str:
    """Classes of pixels (height, width) as a record carries them."""
    stream = io.BytesIO()
    Image.fromarray(classes).save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode()


def folder_of(run: Path, which: str, step: int) -> Path:
    return run / "evaluations" / f"{which}-{step:08d}"


def gather(mine: Records) -> Records:
    """The records of all ranks, by picture, on all of them (collective). A picture's keep their order."""
    text = np.frombuffer(json.dumps(mine).encode(), np.uint8)
    lengths = ranks.gather(np.array([len(text)]))
    joined = ranks.gather(text).tobytes()
    ends = np.cumsum(lengths)
    parts = [json.loads(joined[a:b]) for a, b in zip(ends - lengths, ends, strict=True)]
    return sorted((record for part in parts for record in part), key=lambda record: int(record["image_id"]))


def save(  # arguments: all of an evaluation
    folder: Path,
    which: str,
    step: int,
    data: DataSet,
    kind: Kind,
    truth: dict[str, Any] | None,
    measured: Measured,
    found: Records,
) -> None:
    """Write a folder, in place of the one that may be there; other files in it stay."""
    aside = folder.with_name(folder.name + ".part")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    said = {
        "set": which,
        "step": step,
        "data": str(data.folder),
        "digest": data.digest,
        "kind": kind,
        "pictures": measured.pictures,
        "metrics": measured.metrics,
        "baseline": {},
        "classes": measured.classes,
    }
    maps = {f"{record['image_id']:08d}.png": record.pop(MAP) for record in found if MAP in record}
    texts = {
        "metrics.json": json.dumps(said, indent=2) + "\n",
        "found.json": json.dumps(found) + "\n",
    } | ({"truth.json": json.dumps(truth) + "\n"} if truth else {})
    for name, text in texts.items():
        (aside / name).write_text(text, "utf-8")
        sync(aside / name)
    samples = np.arange(data.samples, dtype=np.int64)
    names, digests = np.array(data.names(samples), np.str_), data.source_digests(samples)
    np.savez(aside / "samples.npz", samples=samples, names=names, digests=digests)
    sync(aside / "samples.npz")
    if maps:
        (aside / "maps").mkdir()
    for name, coded in maps.items():
        (aside / "maps" / name).write_bytes(base64.b64decode(coded))
        sync(aside / "maps" / name)
    sheet.save(aside, data, found)
    sync(aside)
    ours = {*texts, "samples.npz", "maps", "pictures.png"}
    for other in folder.iterdir() if folder.exists() else ():
        if other.name not in ours:
            other.rename(aside / other.name)
    shutil.rmtree(folder, ignore_errors=True)
    aside.rename(folder)
