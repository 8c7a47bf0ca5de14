"""What a network sees in pictures, once, for a probe: the means over its last maps, which a classifier reads.

In: a network, a data set, samples. Out: features in the order of the samples, and `FOLDER/NNNNN.npz`, a part
each. Ranks share the parts; what an interrupted call has done is kept. A part has the same pictures in the
same batches whoever does it, so that the number of ranks changes no bit, as long as a rank has as many
threads; batch normalisations use, and keep, the averages that they have.
"""

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

PART = 4096  # pictures; 32 MB of features of a ResNet-50


class Features(NamedTuple):
    x: NDArray[np.float32]  # (n, d)
    samples: NDArray[np.int64]  # (n,) rising; those that could be decoded


def extract(
    network: Network,
    data: DataSet,
    samples: NDArray[np.int64],
    seen: Input,
    folder: Path,
    batch: int = 64,
    progress: Progress = none,
) -> Features:
    """The features of rising samples, centre crops as `seen` says, `batch` at a time (collective).

    The network is on its device, and stays as it is, bit by bit. folder: seen by all ranks, and for nothing
    else than these pictures and this network. Raises DataError, also where too many cannot be decoded.
    """
    starts = range(0, len(samples), PART)
    parts = [folder / f"{number:05d}.npz" for number in range(len(starts))]
    device = next(network.parameters()).device
    normalized = Normalized()
    for number in range(ranks.rank(), len(parts), ranks.size()):
        if parts[number].exists():
            continue
        mine = samples[starts[number] : starts[number] + PART]
        found, rows = [np.empty(0, np.int64)], [np.empty((0, network.classifier.in_features), np.float32)]
        batches = pipeline.evaluate_batches(data, mine, seen, batch=batch, device=device)
        with evaluating(network), torch.no_grad(), closing(batches):
            for one in batches:
                pooled = network.features(normalized(one.images, one.values))
                found.append(one.samples)
                rows.append(pooled.cpu().numpy())
                progress("features", starts[number] + sum(map(len, found)), len(samples))
        with files.replacing(parts[number]) as temporary, temporary.open("wb") as stream:
            np.savez(stream, samples=np.concatenate(found), x=np.concatenate(rows))
    ranks.barrier()
    kept = [_read(file) for file in parts]
    return Features(*(np.concatenate(pieces) for pieces in zip(*kept, strict=True)))


def _read(file: Path) -> Features:
    with np.load(file) as stored:
        return Features(stored["x"], stored["samples"])
