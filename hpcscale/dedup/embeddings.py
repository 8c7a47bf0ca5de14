"""Pictures of a data set -> an embedding file: what a trained network sees in each, as a vector of length 1.

In: a data-set folder and a checkpoint of `hpcscale train`, whose run folder says what the network is and how
pictures are cut (centre crops, as in evaluation). Out: an embedding file (data/codes.py) of the pictures in
the data set's order, for `dedup search`. Two such vectors are compared by their inner product, the cosine.

Pooling of the last convolutional maps:

    rmac   Tolias et al. 2016 without whitening: the maximum over each square of `regions`; each of these
           vectors is scaled to length 1, and so is their sum.
    mean   the mean over the maps, which is what the classifier reads, scaled to length 1.

The work is done in parts of `PART_ROWS` pictures in the folder OUT.parts; after a kill the same command goes
on. The last bits of vectors depend on batch size and number of threads, as with every convolution.
"""

import json
from collections.abc import Iterator
from contextlib import closing
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from hpcscale.data.codes import POOLINGS, Codes, merge_codes, read_codes, write_codes
from hpcscale.data.manifest import DataError
from hpcscale.data.parts import locked, parts_folder, remove_parts
from hpcscale.data.store import DataSet, open_data
from hpcscale.dedup.hashes import OptionError, agreeing, part_file
from hpcscale.files import check_output, compared
from hpcscale.ingest.sources import SourceError
from hpcscale.inputs import pipeline
from hpcscale.inputs.mending import BadSample
from hpcscale.models import networks
from hpcscale.models.networks import Trained
from hpcscale.models.preprocessing import Normalized
from hpcscale.progress import Progress, none

Pooling = Literal["rmac", "mean"]
PART_ROWS = 4096  # 32 MB of features
LEVELS = 3
OVERLAP = 0.4  # of neighbouring regions of the first level, where there are several
VERSION = 1  # of the poolings; raised when features change


def embed_source(
    source: Path,
    out: Path,
    place: Path,
    pooling: Pooling = "rmac",
    batch: int = 32,
    progress: Progress = none,
) -> Codes:
    """Embed every picture of a data set into the file `out`. What an interrupted call has done is kept.

    Pictures that cannot be decoded are in the file's quarantine. Raises SourceError, DataError (also if too
    many pictures cannot be decoded), CheckpointError, ConfigError and OptionError.
    """
    source, out = Path(source), Path(out)
    if pooling not in POOLINGS:
        raise OptionError(f"pooling must be one of {', '.join(POOLINGS)}, found {pooling!r}")
    if not (source / "plan.json").exists():
        raise SourceError(
            f"{source}: no data set; `hpcscale data ingest {source} FOLDER` makes one of pictures or tars"
        )
    check_output(out, [source], compared)
    data = open_data(source)
    if not data.samples:
        raise SourceError(f"{source}: holds no pictures")
    network = networks.load(place)
    width = network.model.classifier.in_features
    libraries = f"DALI {version('nvidia-dali-cuda130')}, torch {torch.__version__}"
    decoder = f"{libraries}, resize {network.input.resize}, crop {network.input.crop}"
    head = Codes((), np.empty((0, width), np.float32), np.empty(0, np.uint8), pooling, VERSION,
                 data.digest, decoder, checkpoint=network.checkpoint.sha256)  # fmt: skip
    if out.exists():
        found = agreeing(out, head, "choose another file, or remove this one")
        remove_parts(out)  # killed between the merge and this
        return found
    folder = parts_folder(out)
    starts = range(0, data.samples, PART_ROWS)
    with locked(folder, None):
        for number, start in enumerate(starts):
            part = head._replace(source=f"{head.source} {number}/{len(starts)}")
            file = part_file(folder, number)
            if file.exists():
                agreeing(file, part, f"remove {folder}")
                continue
            samples = np.arange(start, min(start + PART_ROWS, data.samples), dtype=np.int64)
            write_codes(file, _embed_part(data, samples, network, pooling, batch, part, progress))
        merge_codes(out, [part_file(folder, number) for number in range(len(starts))], head.source)
    remove_parts(out)
    return read_codes(out)


def _embed_part(
    data: DataSet, samples: NDArray[np.int64], network: Trained, pooling: Pooling, batch: int, head: Codes,
    progress: Progress,
) -> Codes:  # fmt: skip
    bad: list[BadSample] = []
    seen, features = [np.empty(0, np.int64)], [np.empty((0, head.codes.shape[1]), np.float32)]
    batches = pipeline.evaluate_batches(
        data, samples, network.input, batch=batch, device=network.device, tell=bad.append
    )
    normalized = Normalized()
    with closing(batches):
        for found in batches:
            vectors = describe(network, normalized(found.images, found.values), pooling)
            if not np.isfinite(vectors).all():
                row = int(np.flatnonzero(~np.isfinite(vectors).all(1))[0])
                name = data.names(found.samples[row : row + 1])[0]
                raise DataError(f"{data.folder}: {name}: the network's features are not numbers")
            seen.append(found.samples)
            features.append(vectors)
            progress("embed", int(found.samples[-1]) + 1, data.samples)
    rows = np.concatenate(seen)
    lines = [json.dumps({"name": one.name, "reason": one.reason, "row": one.sample}) + "\n" for one in bad]
    return head._replace(
        names=data.names(rows), codes=np.concatenate(features), quality=np.full(len(rows), 100, np.uint8),
        quarantine=np.frombuffer("".join(lines).encode(), np.uint8), digests=data.source_digests(samples),
    )  # fmt: skip


def describe(network: Trained, images: Tensor, pooling: Pooling) -> NDArray[np.float32]:
    """images (n, 3, h, w) as the network reads them -> (n, d), each of length 1 (0 where all maps are 0).
    Waits for the device."""
    with torch.inference_mode():
        pooled = pool(network.model.maps(images), pooling)
    return np.ascontiguousarray(pooled.cpu().numpy())


def pool(maps: Tensor, pooling: Pooling) -> Tensor:
    """maps (n, d, h, w) -> (n, d), each of length 1."""
    if pooling == "mean":
        return F.normalize(maps.mean((2, 3)))
    total = torch.zeros_like(maps[:, :, 0, 0])
    for top, left, side in regions(*maps.shape[2:]):
        total += F.normalize(maps[:, :, top : top + side, left : left + side].amax((2, 3)))
    return F.normalize(total)


@cache
def regions(height: int, width: int, levels: int = LEVELS) -> tuple[tuple[int, int, int], ...]:
    """R-MAC's squares (top, left, side) on a map: levels l = 1, 2, ... of side floor(2 min(h, w) / (l + 1)).

    A level has l squares along the shorter side of the map and l + m along the longer, evenly spread. m is 0
    for a square map, else the number from 1 to 6 that brings the overlap of neighbours at level 1 closest to
    `OVERLAP`. On maps of few cells squares coincide, and a side of 0 becomes 1.
    """
    short, long = min(height, width), max(height, width)
    more = 0
    if long > short:
        more = min(range(1, 7), key=lambda m: abs(1 - (long - short) / m / short - OVERLAP))
    found = []
    for level in range(1, levels + 1):
        side = max(1, 2 * short // (level + 1))
        tops = _spread(height - side, level + (more if height > width else 0))
        lefts = list(_spread(width - side, level + (more if width > height else 0)))
        found += [(top, left, side) for top in tops for left in lefts]
    return tuple(found)


def _spread(room: int, count: int) -> Iterator[int]:
    """`count` places from 0 to `room`, evenly."""
    return (room * index // max(1, count - 1) for index in range(count))
