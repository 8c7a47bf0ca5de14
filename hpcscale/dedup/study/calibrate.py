"""How well each method finds known changes on your own pictures, and at which radius it errs.

In: any source of pictures and, if wanted, a trained network. Out: `Calibration`, which recall.py writes as
tables and a plot. Every change of planted.py is made to a sample of the pictures. Measured are, for every
method and radius:

    recall of a change   the share of pictures whose changed copy lies within the radius
    false pairs          the pairs of two different pictures of the sample that lie within the radius

Exact duplicates (equal pixels) in the sample are found first, and only the first of each group stays. Other
near-duplicates that happen to be in the sample count as false pairs; the closest pairs of every method are
kept, so that a person can look at them. As in `dedup search`, PDQ leaves out pictures of quality below 50:
originals below it are left out, copies below it count as missed.
"""

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hpcscale.dedup.hashes import find_pictures
from hpcscale.dedup.search import MIN_QUALITY, RADIUS
from hpcscale.dedup.study.planted import TRANSFORMATIONS, WORDS, Planted, plant
from hpcscale.ingest.record import Record, SourceError
from hpcscale.ingest.workers import answers
from hpcscale.progress import Progress, none

if TYPE_CHECKING:
    from hpcscale.models.networks import Trained

TOP = {"pdq": 128, "phash": 32, "dhash": 32}  # the largest radius that is tried
COSINE_UNIT, COSINE_TOP = 0.001, 1000  # steps of 1 - cosine
NEVER = 1 << 30  # distance of a picture that a search leaves out
CLOSEST = 10  # pairs of different originals that are listed
ROWS = 64  # originals compared with all others at a time
PER_MILLION = 1_000_000

Levels = NDArray[np.int64]


class Curve(NamedTuple):
    """One method. Distances and radii are whole numbers of `unit`."""

    method: str
    unit: float
    default: int | None  # radius of `dedup search`
    copies: Levels  # (n, transformations) distance from each original to its changed copies
    false_pairs: Levels  # (radii,) pairs of different originals within radius 0, 1, ...
    pairs: int  # of different originals
    closest: list[tuple[str, str, int]]

    def recall(self) -> NDArray[np.float64]:
        """(transformations, radii)"""
        radii = np.arange(len(self.false_pairs))
        found = np.sort(self.copies, axis=0)
        counts = [np.searchsorted(column, radii, side="right") for column in found.T]
        return np.stack(counts) / max(1, len(self.copies))

    def recommended(self) -> int | None:
        """The largest radius with at most one false pair in a million; with none if there are fewer pairs."""
        allowed = np.flatnonzero(self.false_pairs <= self.pairs // PER_MILLION)
        return int(allowed[-1]) if len(allowed) else None


class Calibration(NamedTuple):
    pictures: int  # in the sample, without exact duplicates
    total: int  # in the source
    seed: int
    duplicates: list[tuple[str, str]]  # (kept, left out), equal pixels
    unreadable: list[tuple[str, str]]  # (name, reason)
    low_quality: tuple[int, int]  # originals and copies that PDQ leaves out
    network: str  # "" without one
    curves: list[Curve]


def calibrate(
    source: Path,
    samples: int = 500,
    seed: int = 0,
    run: Path | None = None,
    workers: int = 1,
    progress: Progress = none,
) -> Calibration:
    """Measure on `samples` pictures of the source, drawn without replacement by `seed`.

    run: a run folder or checkpoint, whose features are measured too. Raises SourceError (also where fewer
    than two pictures can be read), DataError, CheckpointError, ConfigError, WorkerDied and OSError.
    """
    pictures = find_pictures(Path(source), progress)
    count = min(samples, pictures.total)
    chosen = np.sort(np.random.default_rng(seed).choice(pictures.total, count, replace=False))
    network, resize, crop = None, 0, 0
    if run is not None:
        from hpcscale.models import networks  # torch only where it is needed

        network = networks.load(run)
        crop = network.input.crop
        resize = network.input.resize or (pictures.data and pictures.data.stored_size) or crop
    names: list[str] = []
    planted: list[Planted] = []
    features: list[NDArray[np.float32]] = []  # (poolings, 1 + transformations, d) of each picture
    first: dict[bytes, str] = {}
    duplicates, unreadable = [], []
    with closing(answers(_chosen(pictures.records(0, pictures.total), chosen), workers, plant, seed,
                         resize, crop)) as results:  # fmt: skip
        for done, (record, answer) in enumerate(results, 1):
            found = answer or Planted(record.problem)
            if found.reason:
                unreadable.append((record.name, found.reason))
            elif found.digest in first:
                duplicates.append((first[found.digest], record.name))
            else:
                first[found.digest] = record.name
                names.append(record.name)
                planted.append(found._replace(squares=b""))
                if network is not None:
                    features.append(_features(network, found.squares, crop))
            progress("calibrate", done, count)
    if len(names) < 2:
        raise SourceError(f"{source}: two different pictures are needed, {len(names)} could be read")
    quality = np.stack([np.frombuffer(each.quality, np.uint8) for each in planted])
    low = quality < MIN_QUALITY["pdq"]
    curves = _hash_curves(names, planted, low)
    described = ""
    if network is not None:
        trained = network.checkpoint
        described = f"step {trained.step}, resize {resize}, crop {crop}, SHA-256 {trained.sha256[:16]}"
        stacked = np.stack(features, axis=1)
        for method, vectors in zip(("rmac", "mean"), stacked, strict=True):
            curves.append(_cosine_curve(method, names, vectors))
    kept = ~low[:, 0]
    return Calibration(len(names), pictures.total, seed, duplicates, unreadable,
                       (int(low[:, 0].sum()), int(low[kept, 1:].sum())), described, curves)  # fmt: skip


def _chosen(records: Iterator[Record], chosen: Levels) -> Iterator[Record]:
    wanted = iter(chosen.tolist())
    following = next(wanted, None)
    for number, record in enumerate(records):
        if number == following:
            yield record
            following = next(wanted, None)
            if following is None:
                return


def _features(network: "Trained", squares: bytes, crop: int) -> NDArray[np.float32]:
    """(2, 1 + transformations, d): R-MAC and mean."""
    import torch

    from hpcscale.dedup import embeddings

    pixels = np.frombuffer(squares, np.uint8).reshape(-1, crop, crop, 3)
    images = torch.from_numpy(pixels.astype(np.float32) / 127.5 - 1).permute(0, 3, 1, 2).to(network.device)
    with torch.inference_mode():
        maps = network.model.maps(images.contiguous(memory_format=torch.channels_last))
        pooled = torch.stack([embeddings.pool(maps, "rmac"), embeddings.pool(maps, "mean")])
    return pooled.cpu().numpy()  # waits for the device


def _hash_curves(names: list[str], planted: list[Planted], low: NDArray[np.bool_]) -> list[Curve]:
    curves = []
    for index, (method, words) in enumerate(WORDS.items()):
        codes = np.stack([np.frombuffer(each.codes[index], np.uint64).reshape(-1, words) for each in planted])
        kept = ~low[:, 0] if method == "pdq" else np.ones(len(names), bool)
        hidden = low[kept, 1:] if method == "pdq" else np.zeros((len(names), len(TRANSFORMATIONS)), bool)
        own, copies = codes[kept, :1], codes[kept, 1:]
        those = [name for name, keep in zip(names, kept.tolist(), strict=True) if keep]
        curves.append(_hash_curve(method, method, those, own, copies, hidden))
        if method == "pdq":
            turned = np.stack([np.frombuffer(each.dihedral, np.uint64).reshape(8, 4) for each in planted])
            curves.append(_hash_curve("pdq, 8 turns", method, those, turned[kept], copies, hidden))
    return curves


def _hash_curve(
    name: str, method: str, names: list[str], own: NDArray[np.uint64], copies: NDArray[np.uint64],
    hidden: NDArray[np.bool_],
) -> Curve:  # fmt: skip
    """own (n, forms, words), of which the nearest form counts; copies (n, transformations, words)."""
    distances = np.bitwise_count(own[:, :, None] ^ copies[:, None]).sum(-1).min(1).astype(np.int64)

    def to_all(start: int) -> Levels:
        between = own[start : start + ROWS, :, None] ^ own[None, None, :, 0]
        return np.asarray(np.bitwise_count(between).sum(-1).min(1), np.int64)

    false_pairs, closest = _false_pairs(names, to_all, TOP[method])
    return Curve(name, 1, RADIUS[method], np.where(hidden, NEVER, distances), false_pairs,
                 len(names) * (len(names) - 1) // 2, closest)  # fmt: skip


def _cosine_curve(name: str, names: list[str], vectors: NDArray[np.float32]) -> Curve:
    """vectors (n, 1 + transformations, d)"""
    exact = vectors.astype(np.float64)
    own = np.ascontiguousarray(exact[:, 0])
    copies = _levels(np.einsum("nd,ntd->nt", own, exact[:, 1:]))

    def to_all(start: int) -> Levels:
        return _levels(own[start : start + ROWS] @ own.T)

    false_pairs, closest = _false_pairs(names, to_all, COSINE_TOP)
    pairs = len(names) * (len(names) - 1) // 2
    return Curve(name, COSINE_UNIT, None, copies, false_pairs, pairs, closest)


def _levels(cosines: NDArray[np.float64]) -> Levels:
    """The smallest radius that includes each; rounded first, so that 0 stays 0."""
    return np.ceil(np.round((1 - cosines) / COSINE_UNIT, 3)).clip(0).astype(np.int64)


def _false_pairs(
    names: list[str], to_all: Callable[[int], Levels], top: int
) -> tuple[Levels, list[tuple[str, str, int]]]:
    """How many pairs lie within each radius from 0 to top, and the closest pairs. to_all(start): distances of
    the rows from `start` on to all rows."""
    counts = np.zeros(top + 1, np.int64)
    closest: list[tuple[int, int, int]] = []
    for start in range(0, len(names), ROWS):
        distances = to_all(start)
        rows = start + np.arange(len(distances))
        distances[rows[:, None] >= np.arange(len(names))] = NEVER
        counts += np.bincount(distances[distances <= top], minlength=top + 1)
        flat = np.argsort(distances, axis=None, kind="stable")[:CLOSEST].tolist()
        found = [(int(distances.flat[at]), start + at // len(names), at % len(names)) for at in flat]
        closest = sorted(closest + [each for each in found if each[0] < NEVER])[:CLOSEST]
    return np.cumsum(counts), [(names[i], names[j], distance) for distance, i, j in closest]
