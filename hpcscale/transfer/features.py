"""What a network sees in pictures, once, for a probe: the means over its last maps, which a classifier reads.

In: a network, a data set, samples and their labels. Out: `FILE.npz`, features and labels in the order of the
samples, as `transfer probe --features` reads them. Ranks share the work by parts, `FILE.parts/NNNNN.npz`,
which rank 0 joins; what an interrupted call has done is kept. A part has the same pictures in the same
batches whoever does it, so that the number of ranks changes no bit, as long as a rank has as many threads;
batch normalisations use, and keep, the averages that they have.
"""

import shutil
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from hpcscale import files, ranks
from hpcscale.config import Input
from hpcscale.data.store import DataSet
from hpcscale.inputs import pipeline
from hpcscale.models.backbone import Network
from hpcscale.models.networks import evaluating
from hpcscale.models.preprocessing import Normalized
from hpcscale.progress import Progress, none
from hpcscale.transfer.arrays import Arrays, read_arrays

PART = 4096  # pictures; 32 MB of features of a ResNet-50


class Pictures(NamedTuple):
    """Of which pictures, and what they show."""

    data: DataSet
    samples: NDArray[np.int64]  # (n,) rising
    labels: NDArray[np.int32]  # (n,) from 0


def extract(
    network: Network, pictures: Pictures, seen: Input, file: Path, batch: int = 64, progress: Progress = none
) -> Arrays | None:
    """The features of pictures, centre crops as `seen` says, `batch` at a time (collective); of those that
    can be decoded. Rank 0 has them, x float32 (n, d) and y (n,), others None.

    The network is on its device, and stays as it is, bit by bit. file: ends in .npz, seen by all ranks, and
    for nothing else than these pictures and this network. Raises DataError, also where too many cannot be
    decoded, and FileError for a file that is damaged, or features that are not numbers.
    """
    folder = file.with_suffix(".parts")
    if not ranks.broadcast_object(file.exists()):
        starts = range(0, len(pictures.samples), PART)
        parts = [folder / f"{number:05d}.npz" for number in range(len(starts))]
        for number in range(ranks.rank(), len(parts), ranks.size()):
            if not parts[number].exists():
                _see(network, pictures, starts[number], seen, parts[number], batch, progress)
        ranks.barrier()
        if ranks.rank() == 0:
            _join(parts, pictures, file)
    if ranks.rank() != 0:
        return None
    shutil.rmtree(folder, ignore_errors=True)  # also what a call left that was killed between the two
    return read_arrays(file, network.classifier.in_features)


def _see(
    network: Network, pictures: Pictures, start: int, seen: Input, part: Path, batch: int, progress: Progress
) -> None:
    """Write the part that begins at `start`."""
    mine = pictures.samples[start : start + PART]
    found, rows = [np.empty(0, np.int64)], [np.empty((0, network.classifier.in_features), np.float32)]
    device, normalized = next(network.parameters()).device, Normalized()
    batches = pipeline.evaluate_batches(pictures.data, mine, seen, batch=batch, device=device)
    with evaluating(network), torch.no_grad(), closing(batches):
        for one in batches:
            pooled = network.features(normalized(one.images, one.values))
            found.append(one.samples)
            rows.append(pooled.cpu().numpy())
            progress("features", start + sum(map(len, found)), len(pictures.samples))
    _write(part, x=np.concatenate(rows), samples=np.concatenate(found))


def _join(parts: list[Path], pictures: Pictures, file: Path) -> None:
    pieces = []
    for part in parts:
        with np.load(part) as stored:
            pieces.append((stored["x"], stored["samples"]))
    x, samples = (np.concatenate(each) for each in zip(*pieces, strict=True))
    _write(file, x=x, y=pictures.labels[np.searchsorted(pictures.samples, samples)], samples=samples)


def _write(file: Path, **arrays: NDArray[np.generic]) -> None:
    with files.replacing(file) as temporary, temporary.open("wb") as stream:
        np.savez(stream, **arrays)  # type: ignore[arg-type]
