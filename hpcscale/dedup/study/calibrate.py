"""The way into the study: pictures, and perhaps a network, in; the curves of every method out, and written.

The sample is a pure function of source and seed, and so is what is measured, whatever the number of workers.
"""

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hpcscale.dedup.hashes import Pictures, find_pictures
from hpcscale.dedup.search import MIN_QUALITY
from hpcscale.dedup.study import pages
from hpcscale.dedup.study.planted import Planted, plant
from hpcscale.dedup.study.recall import Calibration, cosine_curve, hash_curves
from hpcscale.ingest.record import Record, SourceError
from hpcscale.ingest.workers import answers
from hpcscale.progress import Progress, none

if TYPE_CHECKING:
    from hpcscale.models.networks import Trained


class Extractor(NamedTuple):
    """The network whose features are measured, and how pictures are cut for it."""

    network: "Trained"
    resize: int  # side that pictures are squeezed to, pixels
    crop: int  # and of their centre, which it sees

    def features(self, squares: bytes) -> NDArray[np.float32]:
        """squares (n, crop, crop, 3) uint8 -> R-MAC and mean of each  # (2, n, d). Waits for the device."""
        import torch

        from hpcscale.dedup import embeddings
        from hpcscale.models.preprocessing import Normalized

        pixels = np.frombuffer(squares, np.uint8).reshape(-1, self.crop, self.crop, 3)
        images = torch.from_numpy(pixels.copy()).permute(0, 3, 1, 2).to(self.network.device)
        with torch.inference_mode():
            maps = self.network.model.maps(Normalized()(images, self.network.input.values))
            pooled = torch.stack([embeddings.pool(maps, "rmac"), embeddings.pool(maps, "mean")])
        return pooled.cpu().numpy()

    def __str__(self) -> str:
        trained = self.network.checkpoint
        return f"step {trained.step}, resize {self.resize}, crop {self.crop}, SHA-256 {trained.sha256[:16]}"


class Sample(NamedTuple):
    """The different pictures of the sample, and what was left out."""

    names: list[str]
    planted: list[Planted]  # without squares
    features: list[NDArray[np.float32]]  # (poolings, 1 + transformations, d) each; [] without a network
    duplicates: list[tuple[str, str]]  # (kept, left out), equal pixels
    unreadable: list[tuple[str, str]]  # (name, reason)


def calibrate(
    source: Path,
    out: Path | None,
    samples: int = 500,
    seed: int = 0,
    run: Path | None = None,
    workers: int | None = None,
    progress: Progress = none,
) -> Calibration:
    """Measure on `samples` pictures of the source, drawn without replacement by `seed`; write calibration.md,
    .csv and .png into the folder `out` (None: nowhere).

    run: a run folder or checkpoint, whose features are measured too. workers: processes; None takes every
    core this process may use. Raises OutputError, at once, if it would replace files that are not ours;
    SourceError (also where fewer than two pictures can be read), DataError, CheckpointError, ConfigError,
    WorkerDied and OSError.
    """
    if out is not None:
        pages.check(out, source)
    pictures = find_pictures(Path(source), progress)
    count = min(samples, pictures.total)
    chosen = np.sort(np.random.default_rng(seed).choice(pictures.total, count, replace=False))
    extractor = None if run is None else _extractor(run, pictures)
    records = _chosen(pictures.records(0, pictures.total), chosen)
    sides = (extractor.resize, extractor.crop) if extractor else (0, 0)
    with closing(answers(records, workers or len(os.sched_getaffinity(0)), plant, seed, *sides)) as results:
        sample = _gathered(_counted(results, count, progress), extractor)
    names = sample.names
    if len(names) < 2:
        raise SourceError(f"{source}: two different pictures are needed, {len(names)} could be read")
    quality = np.stack([np.frombuffer(each.quality, np.uint8) for each in sample.planted])
    low = quality < MIN_QUALITY["pdq"]
    curves = hash_curves(names, sample.planted, low)
    if extractor is not None:
        stacked = np.stack(sample.features, axis=1)
        for method, vectors in zip(("rmac", "mean"), stacked, strict=True):
            curves.append(cosine_curve(method, names, vectors))
    kept = ~low[:, 0]
    hidden = int(low[:, 0].sum()), int(low[kept, 1:].sum())
    found = Calibration(len(names), pictures.total, seed, sample.duplicates, sample.unreadable, hidden,
                        str(extractor or ""), curves)  # fmt: skip
    if out is not None:
        pages.write(found, out)
    return found


def _chosen(records: Iterator[Record], chosen: NDArray[np.int64]) -> Iterator[Record]:
    wanted = iter(chosen.tolist())
    following = next(wanted, None)
    for number, record in enumerate(records):
        if number == following:
            yield record
            following = next(wanted, None)
            if following is None:
                return


def _extractor(run: Path, pictures: Pictures) -> Extractor:
    from hpcscale.models import networks  # torch only where it is needed

    network = networks.load(run)
    stored = pictures.data and pictures.data.stored_size
    return Extractor(network, network.input.resize or stored or network.input.crop, network.input.crop)


def _counted(
    results: Iterator[tuple[Record, Planted | None]], count: int, progress: Progress
) -> Iterator[tuple[Record, Planted | None]]:
    for done, result in enumerate(results, 1):
        yield result
        progress("calibrate", done, count)


def _gathered(results: Iterator[tuple[Record, Planted | None]], extractor: Extractor | None) -> Sample:
    sample = Sample([], [], [], [], [])
    first: dict[bytes, str] = {}
    for record, answer in results:
        found = answer or Planted(record.problem)
        if found.reason:
            sample.unreadable.append((record.name, found.reason))
        elif found.digest in first:
            sample.duplicates.append((first[found.digest], record.name))
        else:
            first[found.digest] = record.name
            sample.names.append(record.name)
            sample.planted.append(found._replace(squares=b""))
            if extractor is not None:
                sample.features.append(extractor.features(found.squares))
    return sample
