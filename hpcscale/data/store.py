"""The data-set folder: what lies in it, and `DataSet`, which reads it.

In: a folder that ingest has packed. Out: `DataSet`, which labels and the pipeline read.

A data-set folder:

    plan.json         `Plan`: what is packed and how. Written first; everything below is a pure function of it
                      and the source.
    tags.jsonl        the tag table: one JSON string a line, sorted by code point; the id of a tag is its
                      line, from 0.
    shard-00000.h5    shard k (shard.py) holds the source's records [k * shard_samples, (k + 1) *
                      shard_samples) without the quarantined ones, in the source's order, so that the split
                      depends on nothing but the source.
    manifest.jsonl    one `Entry` a finished shard, in the order of the shards; a shard without its line
                      does not exist.
    quarantine.jsonl  written last, which ends the ingest: {"record": number in the source, "name": source id,
                      "reason": why} a line, for every record that is in no shard.

    quarantined-annotations.jsonl  if annotations are packed: {"record", "name", "source", "id": of the
                      source, "reason", "found"} a line, for every annotation that is in no shard; behind
                      those of the records, without "record", what is of none.

and until then, where `data survey` was called, survey.jsonl (ingest/survey.py).

A plan of format 2 has shards of format 2. Under a plan of format 1 they may be of both: `data upgrade` writes
them anew one by one, and the plan last (upgrade.py); an ingest that began in format 1 goes on in format 2.
"""

import resource
from collections.abc import Callable, Iterator
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpcscale.data.manifest import DataError as DataError  # for readers, who need nothing else of manifest.py
from hpcscale.data.manifest import (
    Entry,
    Plan,
    digest,
    join_chains,
    read_plan,
    read_sizes,
    read_tags,
)
from hpcscale.data.shard import Lists, Places, Shard, check_rows, jpeg_place, placed_shard, shard_at

# Shards that a data set keeps mapped. The kernel allows 65,530 mappings, of all libraries together.
OPEN_SHARDS = 1024


class DataSet:
    """An opened data-set folder, read-only. Sample ids run over the shards, from 0 to `samples` - 1.

    A shard is mapped when it is used. At most `open_shards` stay mapped, those that were used last, and what
    is given out as a view. A mapping needs no lock and survives a fork. Threads may share a DataSet.
    """

    def __init__(
        self,
        folder: Path,
        plan: Plan,
        entries: list[Entry],
        tags: tuple[str, ...],
        open_shards: int = OPEN_SHARDS,
    ) -> None:
        self.folder = folder
        self.plan = plan
        self.entries = entries
        self.tags = tags
        self.stored_size = plan.resize
        self.starts = np.cumsum([0, *(entry.samples for entry in entries)], dtype=np.int64)  # (shards + 1)
        self.samples = int(self.starts[-1])
        self._shard = lru_cache(open_shards)(_opener(folder, plan, entries))

    @cached_property
    def digest(self) -> str:
        """Identifies the contents: the pictures, their tags and names, and their order.

        The same source, packed again with the same options, has the same digest, wherever it lies. It is read
        from the manifest (from the shards, if the manifest is of an older version). A shard is compared with
        its digest in the manifest when it is first used.
        """
        shards = (entry.digest or self.shard(index).digest() for index, entry in enumerate(self.entries))
        return digest(self.plan.digest.encode(), *(one.encode() for one in shards)).hex()

    @cached_property
    def pictures_digest(self) -> str:
        """Says "the same pictures": of the stored JPEG files and their order alone, whatever their tags and
        names, and however they are cut into shards. It costs nothing. Raises DataError of format 1.
        """
        self._refuse_format_1("the digest of its pictures")
        parts = (
            (one.samples, one.pictures or self.shard(k).pictures()) for k, one in enumerate(self.entries)
        )
        return join_chains(parts)

    def _refuse_format_1(self, wanted: str) -> None:
        if self.plan.format == 1:
            raise DataError(
                f"{self.folder}: a data set of format 1 does not hold {wanted}; run "
                f"`hpcscale data upgrade {self.folder}`, which adds it and decodes nothing"
            )

    def shard(self, index: int) -> Shard:
        """The arrays of one shard. Raises DataError if it cannot be used, or is not the manifest's."""
        return self._shard(index)

    def jpeg_bytes(self, index: int) -> tuple[Path, int]:
        """The file of a shard, and the offset in it of the shard's first JPEG byte, for other processes."""
        file = self.folder / self.entries[index].file
        return file, jpeg_place(file)

    def jpegs(self, samples: NDArray[np.int64]) -> list[NDArray[np.uint8]]:
        """The JPEG bytes of each sample, (bytes,) uint8: read-only views of the shards, which stay mapped as
        long as these live."""
        views: list[NDArray[np.uint8]] = [None] * len(samples)  # type: ignore[list-item]
        for shard, rows, where in self._located(samples):
            begins, ends = shard.jpeg_offsets[rows].tolist(), shard.jpeg_offsets[rows + 1].tolist()
            for position, begin, end in zip(where.tolist(), begins, ends, strict=True):
                views[position] = shard.jpeg[begin:end]
        return views

    def jpeg_sizes(self, samples: NDArray[np.int64]) -> NDArray[np.int64]:
        """Bytes of each stored picture  # (n,)"""
        return self._column(
            samples, lambda shard: np.diff(shard.jpeg_offsets), np.empty(len(samples), np.int64)
        )

    def sizes(self, samples: NDArray[np.int64]) -> NDArray[np.int32]:
        """Height and width of each stored picture, in pixels  # (n, 2). Raises DataError of format 1."""
        self._refuse_format_1("the sizes of its pictures")
        return self._column(samples, lambda shard: shard.sizes, np.empty((len(samples), 2), np.int32))

    def source_digests(self, samples: NDArray[np.int64]) -> NDArray[np.uint8]:
        """BLAKE2b-128 of the original picture file of each sample  # (n, 16)"""
        return self._column(
            samples, lambda shard: shard.source_digests, np.empty((len(samples), 16), np.uint8)
        )

    def names(self, samples: NDArray[np.int64]) -> list[str]:
        """The source id of each sample, for messages."""
        names = [""] * len(samples)
        for shard, rows, where in self._located(samples):
            for position, row in zip(where.tolist(), rows.tolist(), strict=True):
                names[position] = shard.name_of(row)
        return names

    def tag_rows(self, samples: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """The raw tags of each sample: offsets (n + 1,) and tag ids (offsets[-1],)."""
        return self._rows(samples, lambda shard: (shard.tag_offsets, shard.tag_ids), "<i4")

    def annotations(self, name: str, samples: NDArray[np.int64]) -> Lists:
        """What each sample has of an annotation: offsets (n + 1,) and values (offsets[-1],), of the dtype in
        the plan. Raises DataError where the data set has no such annotation."""
        if name not in self.plan.annotations:
            known = ", ".join(self.plan.annotations) or "none"
            raise DataError(f"{self.folder}: no annotations {name!r}, there are {known}")
        return self._rows(samples, lambda shard: shard.annotations[name], self.plan.annotations[name])

    def _column(
        self, samples: NDArray[np.int64], of: Callable[[Shard], NDArray[Any] | None], out: NDArray[Any]
    ) -> NDArray[Any]:
        for shard, rows, where in self._located(samples):
            if (values := of(shard)) is not None:
                out[where] = values[rows]
        return out

    def _rows(self, samples: NDArray[np.int64], of: Callable[[Shard], Lists], dtype: str) -> Lists:
        parts = []
        lengths = np.zeros(len(samples), np.int64)
        for shard, rows, where in self._located(samples):
            starts, content = of(shard)
            lengths[where] = count = starts[rows + 1] - starts[rows]
            # 0, 1, .. within each row
            step = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
            parts.append((content[np.repeat(starts[rows], count) + step], step, where))  # a copy, no view
        offsets = np.zeros(len(samples) + 1, np.int64)
        np.cumsum(lengths, out=offsets[1:])
        values = np.empty(offsets[-1], dtype)
        for content, step, where in parts:
            values[np.repeat(offsets[where], lengths[where]) + step] = content
        return offsets, values

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
        by_shard = np.argsort(shards, kind="stable")
        indices, firsts = np.unique(shards[by_shard], return_index=True)
        for index, where in zip(indices.tolist(), np.split(by_shard, firsts[1:]), strict=False):
            yield self.shard(index), samples[where] - self.starts[index], where


def _opener(folder: Path, plan: Plan, entries: list[Entry]) -> Callable[[int], Shard]:
    """A function that maps a shard: checked when it is first used, or has changed since; else at once."""
    known: dict[int, Places] = {}

    def opened(index: int) -> Shard:
        entry = entries[index]
        again = shard_at(folder / entry.file, plan, known[index]) if index in known else None
        if again is not None:
            return again
        shard, known[index] = listed_shard(folder, plan, index, entry)
        return shard

    return opened


def listed_shard(folder: Path, plan: Plan, index: int, entry: Entry) -> tuple[Shard, Places]:
    """Open a shard and compare it with its line. Raises DataError."""
    file = folder / entry.file
    shard, places = placed_shard(file, plan, index)
    if len(shard.source_sizes) != entry.samples:
        raise DataError(f"{file}: {len(shard.source_sizes)} samples, manifest.jsonl says {entry.samples}")
    if entry.digest not in ("", shard.digest()):
        raise DataError(f"{file}: holds other pictures or tags than manifest.jsonl says")
    check_rows(file, shard, plan)
    return shard, places


def open_data(folder: Path, *, unfinished: bool = False, open_shards: int = OPEN_SHARDS) -> DataSet:
    """Open a data-set folder. Raises DataError, naming the file, if something is missing, cut or of another
    version.

    The folder of an unfinished ingest is refused, unless `unfinished`: then the finished shards are the data
    set. open_shards: how many shards stay mapped, at most; fewer where the system allows few open files.
    """
    folder = Path(folder)
    plan = read_plan(folder)
    tags = read_tags(folder, plan)
    sizes = read_sizes(folder)
    entries = [entry for entry, _ in sizes]
    if not unfinished and (len(entries) != plan.shards or not (folder / "quarantine.jsonl").exists()):
        raise DataError(
            f"{folder}: the ingest has not ended ({len(entries)} of {plan.shards} shards); "
            "run the same `hpcscale data ingest` command again to finish it"
        )
    for entry, size in sizes:
        if size != entry.bytes:
            found = "is missing" if size is None else f"has {size} bytes"
            raise DataError(f"{folder / entry.file}: {found}, manifest.jsonl says {entry.bytes} bytes")
    return DataSet(folder, plan, entries, tags, _allowed(min(open_shards, len(entries))))


def _allowed(shards: int) -> int:
    """How many of these may be mapped: each holds a file descriptor, and there are other data sets and files.
    The usual soft limit of open files is 1024; it is raised as far as it must be and may be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return max(1, shards)
    wanted = 4 * shards + 512
    if soft < wanted:
        soft = max(soft, wanted if hard == resource.RLIM_INFINITY else min(wanted, hard))
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return max(1, min(shards, soft // 4))
