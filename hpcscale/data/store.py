"""The data-set folder: what lies in it, how a shard is written and read. This file and codes.py import h5py.

In: columns of one shard (from ingest). Out: `DataSet`, which labels and the pipeline read.

A data-set folder, format version 1:

    plan.json         `Plan`: what is packed and how. Written first; everything below is a pure function of it
                      and the source.
    tags.jsonl        the tag table: one JSON string a line, sorted by code point; the id of a tag is its
                      line, from 0.
    shard-00000.h5    shard k holds the source's records [k * shard_samples, (k + 1) * shard_samples) without
                      the quarantined ones, in the source's order, so that the split depends on nothing but
                      the source.
    manifest.jsonl    one `Entry` a finished shard, in the order of the shards; a shard without its line
                      does not exist.
    quarantine.jsonl  written last, which ends the ingest: {"record": number in the source, "name": source id,
                      "reason": why} a line, for every record that is in no shard.

A shard is HDF5 (superblock 3, checksummed metadata, no time stamps). Every dataset is contiguous and
unchunked, so that a reader asks HDF5 once where the bytes lie, maps the file, and never calls HDF5 again. For
n samples:

    jpeg            uint8 (bytes)     JPEG files end to end: RGB or grey, 8 bit, upright
    jpeg_offsets    int64 (n + 1)     sample i is jpeg[jpeg_offsets[i] : jpeg_offsets[i + 1]]
    tag_ids         int32 (tags)      ids into the tag table, as the source orders them, none twice in a
                    sample
    tag_offsets     int64 (n + 1)
    names           uint8 (bytes)     source ids (path, or tar/member) as the file system's bytes
    name_offsets    int64 (n + 1)
    source_sizes    int64 (n)         bytes of the original picture file
    source_digests  uint8 (n, 16)     BLAKE2b-128 of the original picture file
    digests         uint8 (n, 16)     `record_digest`: covers all of the above of one sample
    quarantine      uint8 (bytes)     this shard's lines of quarantine.jsonl

Attributes of the root: format (1), plan (`Plan.digest`, ASCII), tags (digest of the tag table, ASCII), shard
(number), stored_size (every picture is stored_size x stored_size pixels; 0: each as it came).
"""

import math
import mmap
import os
import resource
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import IO, Any, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from hpcscale.data.manifest import FORMAT, Entry, Plan, digest, read_manifest, read_plan, read_tags
from hpcscale.data.manifest import DataError as DataError  # so that readers need not know manifest.py
from hpcscale.files import open_regular

COPY = 16 << 20  # bytes copied at a time
# Files are written, as they are read, without locks: some file systems have none.
WRITTEN: dict[str, Any] = {"libver": ("v110", "v110"), "alignment_threshold": 1, "alignment_interval": 8,
                           "locking": False}  # fmt: skip


class Shard(NamedTuple):
    """The datasets of one shard, mapped read-only; shapes and types as in the module's docstring."""

    jpeg: NDArray[np.uint8]
    jpeg_offsets: NDArray[np.int64]
    tag_ids: NDArray[np.int32]
    tag_offsets: NDArray[np.int64]
    names: NDArray[np.uint8]
    name_offsets: NDArray[np.int64]
    source_sizes: NDArray[np.int64]
    source_digests: NDArray[np.uint8]
    digests: NDArray[np.uint8]
    quarantine: NDArray[np.uint8]

    def digest(self) -> str:
        """Of the digests of all samples, so only 16 bytes of each are read; the manifest states it."""
        return digest(self.digests.tobytes()).hex()


DTYPES = dict(
    zip(Shard._fields, ("u1", "<i8", "<i4", "<i8", "u1", "<i8", "<i8", "u1", "u1", "u1"), strict=True)
)


def record_digest(
    jpeg_digest: bytes, tag_ids: NDArray[np.int32], size: int, source_digest: bytes, name: bytes
) -> bytes:
    """The checksum of one sample: `jpeg_digest` is `digest(jpeg)`, `size` the original file's in bytes."""
    lengths = np.array([size, len(tag_ids)], "<i8").tobytes()
    return digest(jpeg_digest, lengths, tag_ids.astype("<i4", copy=False).tobytes(), source_digest, name)


def write_shard(
    file: Path, plan: Plan, index: int, jpeg: IO[bytes], jpeg_bytes: int, columns: Mapping[str, NDArray[Any]]
) -> None:
    """Write one shard. jpeg: a file with the JPEG bytes, since a contiguous dataset needs its size first."""
    jpeg.seek(0)
    with h5py.File(file, "w", **WRITTEN) as shard:
        shard.attrs.update(
            format=FORMAT,
            # Of fixed length: HDF5 keeps others in a heap without checksum; a flipped bit there can hang it.
            plan=np.bytes_(plan.digest),
            tags=np.bytes_(plan.tags_digest),
            shard=index,
            stored_size=plan.resize or 0,
        )
        target = shard.create_dataset("jpeg", (jpeg_bytes,), "u1", fill_time="never")
        for start in range(0, jpeg_bytes, COPY):
            piece = np.frombuffer(jpeg.read(min(COPY, jpeg_bytes - start)), "u1")
            target[start : start + len(piece)] = piece
        for name in Shard._fields[1:]:
            shard.create_dataset(name, data=columns[name].astype(DTYPES[name], casting="equiv", copy=False))


def open_shard(file: Path, plan: Plan, index: int) -> Shard:
    """Map one shard, with the cheap checks: version, plan, shapes, ends of offsets. Raises DataError."""
    try:
        mapped = mapped_file(file)
        with h5py.File(file, "r", locking=False) as shard:
            wanted = {
                "format": FORMAT,
                "plan": np.bytes_(plan.digest),
                "tags": np.bytes_(plan.tags_digest),
                "shard": index,
                "stored_size": plan.resize or 0,
            }
            for key, expected in wanted.items():
                if (value := shard.attrs[key]) != expected:
                    raise DataError(f"{file}: attribute '{key}' is {value}, expected {expected}")
            places = {name: place(shard[name], DTYPES[name]) for name in Shard._fields}
        arrays = Shard(**{name: mapped_array(mapped, DTYPES[name], *where) for name, where in places.items()})
    except DataError:
        raise
    except (OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise DataError(f"{file}: not a readable shard: {error}") from None
    for name, array in arrays._asdict().items():
        if array.ndim != 1 + (name in ("source_digests", "digests")):
            raise DataError(f"{file}: {name} has {array.ndim} dimensions")
    samples = len(arrays.source_sizes)
    for offsets, values in (("jpeg_offsets", "jpeg"), ("tag_offsets", "tag_ids"), ("name_offsets", "names")):
        rows, end = getattr(arrays, offsets), len(getattr(arrays, values))
        if rows.shape != (samples + 1,) or rows[0] != 0 or rows[-1] != end:
            raise DataError(f"{file}: {offsets} do not run from 0 to {end} in {samples} steps")
    for name in ("source_digests", "digests"):
        if getattr(arrays, name).shape != (samples, 16):
            raise DataError(
                f"{file}: {name} has shape {getattr(arrays, name).shape}, expected {(samples, 16)}"
            )
    return arrays


def mapped_file(file: Path) -> mmap.mmap:
    """A regular file, mapped read-only. Raises ValueError, also for pipes and devices, and OSError."""
    with open_regular(file) as stream:
        return mmap.mmap(stream.fileno(), 0, prot=mmap.PROT_READ)


def check_rows(file: Path, shard: Shard, plan: Plan) -> None:
    """Check what every reader relies on: offsets never fall, and tag ids are in the table. Reads a few bytes
    per sample. Raises DataError that names the sample."""
    for name in ("jpeg_offsets", "tag_offsets", "name_offsets"):
        if len(falling := np.flatnonzero(np.diff(getattr(shard, name)) < 0)):
            raise DataError(
                f"{file}: sample {falling[0]}: {name} fall here; `hpcscale data verify` tells more"
            )
    ids = shard.tag_ids
    if ids.size and not 0 <= ids.min() <= ids.max() < plan.tags:
        wrong = np.flatnonzero((ids < 0) | (ids >= plan.tags))[0]
        row = int(np.searchsorted(shard.tag_offsets, wrong, side="right")) - 1
        begin, end = shard.name_offsets[row : row + 2]
        name = os.fsdecode(shard.names[begin:end].tobytes())
        raise DataError(
            f"{file}: sample {row} ({name}) has the tag id {ids[wrong]}, outside [0, {plan.tags}); "
            "`hpcscale data verify` tells more"
        )


def place(dataset: Any, dtype: str) -> tuple[tuple[int, ...], int]:
    """Shape and place in the file, in bytes, of a contiguous dataset."""
    if (
        not isinstance(dataset, h5py.Dataset)
        or dataset.dtype != np.dtype(dtype)
        or dataset.chunks is not None
    ):
        raise ValueError(f"'{dataset.name}' is not a contiguous dataset of {np.dtype(dtype)}")
    offset = dataset.id.get_offset()  # None where there are no bytes
    if offset is None and dataset.size:
        raise ValueError(f"'{dataset.name}' has no bytes in the file")
    return dataset.shape, offset or 0


def mapped_array(mapped: mmap.mmap, dtype: str, shape: tuple[int, ...], offset: int) -> NDArray[Any]:
    count = math.prod(shape)
    return np.frombuffer(mapped, dtype, count, offset).reshape(shape) if count else np.empty(shape, dtype)


class DataSet:
    """An opened data-set folder, read-only. Sample ids run over the shards, from 0 to `samples` - 1.

    Shards are mapped when first used; a mapping needs no lock and survives a fork. Threads may share a
    DataSet.
    """

    def __init__(self, folder: Path, plan: Plan, entries: list[Entry], tags: tuple[str, ...]) -> None:
        self.folder = folder
        self.plan = plan
        self.entries = entries
        self.tags = tags
        self.stored_size = plan.resize
        self.starts = np.cumsum([0, *(entry.samples for entry in entries)], dtype=np.int64)  # (shards + 1)
        self.samples = int(self.starts[-1])
        self._shards: dict[int, Shard] = {}

    @cached_property
    def digest(self) -> str:
        """Identifies the contents: the pictures, their tags and names, and their order.

        The same source, packed again with the same options, has the same digest, wherever it lies. It is read
        from the manifest (from the shards, if the manifest is of an older version). A shard is compared with
        its digest in the manifest when it is first used.
        """
        shards = (entry.digest or self.shard(index).digest() for index, entry in enumerate(self.entries))
        return digest(self.plan.digest.encode(), *(one.encode() for one in shards)).hex()

    def shard(self, index: int) -> Shard:
        """The arrays of one shard. Raises DataError if it cannot be used, or is not the manifest's."""
        if index not in self._shards:
            file = self.folder / self.entries[index].file
            shard = open_shard(file, self.plan, index)
            if len(shard.source_sizes) != self.entries[index].samples:
                found, stated = len(shard.source_sizes), self.entries[index].samples
                raise DataError(f"{file}: {found} samples, manifest.jsonl says {stated}")
            if self.entries[index].digest not in ("", shard.digest()):
                raise DataError(f"{file}: holds other pictures or tags than manifest.jsonl says")
            check_rows(file, shard, self.plan)
            self._shards[index] = shard
        return self._shards[index]

    def jpeg_bytes(self, index: int) -> tuple[Path, int]:
        """The file of a shard, and the offset in it of the shard's first JPEG byte, for other processes."""
        file = self.folder / self.entries[index].file
        with h5py.File(file, "r", locking=False) as shard:
            return file, place(shard["jpeg"], DTYPES["jpeg"])[1]

    def jpegs(self, samples: NDArray[np.int64]) -> list[NDArray[np.uint8]]:
        """The JPEG bytes of each sample, (bytes,) uint8: read-only views of the mapped shard."""
        views: list[NDArray[np.uint8]] = [None] * len(samples)  # type: ignore[list-item]
        for shard, rows, where in self._located(samples):
            begins, ends = shard.jpeg_offsets[rows].tolist(), shard.jpeg_offsets[rows + 1].tolist()
            for position, begin, end in zip(where.tolist(), begins, ends, strict=True):
                views[position] = shard.jpeg[begin:end]
        return views

    def tag_rows(self, samples: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """The raw tags of each sample: offsets (n + 1,) and tag ids (offsets[-1],)."""
        parts = []
        lengths = np.zeros(len(samples), np.int64)
        for shard, rows, where in self._located(samples):
            begins = shard.tag_offsets[rows]
            lengths[where] = shard.tag_offsets[rows + 1] - begins
            parts.append((shard, begins, where))
        offsets = np.zeros(len(samples) + 1, np.int64)
        np.cumsum(lengths, out=offsets[1:])
        ids = np.empty(offsets[-1], np.int32)
        for shard, begins, where in parts:
            count = lengths[where]
            # 0, 1, ... within each row
            step = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
            ids[np.repeat(offsets[where], count) + step] = shard.tag_ids[np.repeat(begins, count) + step]
        return offsets, ids

    def names(self, samples: NDArray[np.int64]) -> list[str]:
        """The source id of each sample, for messages."""
        names = [""] * len(samples)
        for shard, rows, where in self._located(samples):
            for position, row in zip(where.tolist(), rows.tolist(), strict=True):
                begin, end = shard.name_offsets[row : row + 2]
                names[position] = os.fsdecode(shard.names[begin:end].tobytes())
        return names

    def source_digests(self, samples: NDArray[np.int64]) -> NDArray[np.uint8]:
        """BLAKE2b-128 of the original picture file of each sample  # (n, 16)"""
        digests = np.empty((len(samples), 16), np.uint8)
        for shard, rows, where in self._located(samples):
            digests[where] = shard.source_digests[rows]
        return digests

    def _located(
        self, samples: NDArray[np.int64]
    ) -> Iterator[tuple[Shard, NDArray[np.int64], NDArray[np.int64]]]:
        """For every shard that holds some of the samples: the shard, rows in it, positions in `samples`."""
        if samples.dtype != np.int64 or samples.ndim != 1:
            raise TypeError(f"samples must be int64 of one dimension, not {samples.dtype} of {samples.ndim}")
        if len(samples) and (samples.min() < 0 or samples.max() >= self.samples):
            wrong = samples[(samples < 0) | (samples >= self.samples)][0]
            raise IndexError(f"{self.folder}: sample {wrong} is not in [0, {self.samples})")
        shards = np.searchsorted(self.starts, samples, side="right") - 1
        for index in np.unique(shards).tolist():
            where = np.flatnonzero(shards == index)
            yield self.shard(index), samples[where] - self.starts[index], where


def open_data(folder: Path, *, unfinished: bool = False) -> DataSet:
    """Open a data-set folder. Raises DataError, naming the file, if something is missing, cut or of another
    version.

    The folder of an unfinished ingest is refused, unless `unfinished`: then the finished shards are the data
    set.
    """
    folder = Path(folder)
    plan = read_plan(folder)
    tags = read_tags(folder, plan)
    entries = read_manifest(folder)
    if not unfinished and (len(entries) != plan.shards or not (folder / "quarantine.jsonl").exists()):
        raise DataError(
            f"{folder}: the ingest has not ended ({len(entries)} of {plan.shards} shards); "
            "run the same `hpcscale data ingest` command again to finish it"
        )
    for entry in entries:
        file = folder / entry.file
        size = os.path.getsize(file) if os.path.isfile(file) else None
        if size != entry.bytes:
            found = "is missing" if size is None else f"has {size} bytes"
            raise DataError(f"{file}: {found}, manifest.jsonl says {entry.bytes} bytes")
    _allow_open_files(len(entries))
    return DataSet(folder, plan, entries, tags)


def _allow_open_files(files: int) -> None:
    """Every mapped shard holds a file descriptor; the usual soft limit is 1024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = files + 512
    if soft != resource.RLIM_INFINITY and soft < wanted:
        allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, allowed), hard))
