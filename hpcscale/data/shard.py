"""One shard file: its format, how it is written and mapped; with codes.py and samples/files.py all of h5py.

In: columns of one shard (from ingest). Out: `Shard`, mapped arrays, for store.py and all that checks shards.

A shard is HDF5 (superblock 3, checksummed metadata, no time stamps). Every dataset is contiguous and
unchunked, so that a reader asks HDF5 once where the bytes lie, maps the file, and never calls HDF5 again. For
n samples, format 2:

    jpeg            uint8 (bytes)     JPEG files end to end: RGB or grey, 8 bit, upright
    jpeg_offsets    int64 (n + 1)     sample i is jpeg[jpeg_offsets[i] : jpeg_offsets[i + 1]]
    tag_ids         int32 (tags)      ids into the tag table, as the source orders them, none twice in a
                    sample
    tag_offsets     int64 (n + 1)
    names           uint8 (bytes)     source ids (path, or tar/member) as the file system's bytes
    name_offsets    int64 (n + 1)
    source_sizes    int64 (n)         bytes of the original picture file
    source_digests  uint8 (n, 16)     BLAKE2b-128 of the original picture file
    digests         uint8 (n, 16)     `record_digest`: covers all of the above of one sample, and its
                                      annotations
    quarantine      uint8 (bytes)     this shard's lines of quarantine.jsonl
    sizes           int32 (n, 2)      height and width of the stored picture, in pixels
    jpeg_digests    uint8 (n, 16)     BLAKE2b-128 of the stored JPEG bytes

and for every name in `Plan.annotations`, with the dtype that stands there (annotations/objects.py has the
names that `data ingest --annotations` writes):

    annotations/NAME          (values)         of all samples, end to end: a box is four values, say
    annotations/NAME_offsets  int64 (n + 1)

Format 1 had no sizes, jpeg_digests and annotations; it is still read, and `data upgrade` writes it anew.

Attributes of the root: format (2), plan (`Plan.digest`, ASCII), tags (digest of the tag table, ASCII), shard
(number), stored_size (every picture is stored_size x stored_size pixels; 0: each as it came).
"""

import math
import mmap
import os
from array import array
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from hpcscale.data.manifest import FORMAT, FORMATS, DataError, Plan, chain, digest
from hpcscale.data.mapped import Stamp, mapped_array, stamped_file

COPY = 16 << 20  # bytes copied at a time
MAX_SIDE = 65_535  # pixels, of any JPEG
# How files are written: without locks, as they are read, since some file systems have none.
WRITTEN: dict[str, Any] = {"libver": ("v110", "v110"), "alignment_threshold": 1, "alignment_interval": 8,
                           "locking": False}  # fmt: skip
# Of format 1; then of format 2, without the annotations.
OLD_DTYPES = {"jpeg": "u1", "jpeg_offsets": "<i8", "tag_ids": "<i4", "tag_offsets": "<i8", "names": "u1",
              "name_offsets": "<i8", "source_sizes": "<i8", "source_digests": "u1", "digests": "u1",
              "quarantine": "u1"}  # fmt: skip
DTYPES = OLD_DTYPES | {"sizes": "<i4", "jpeg_digests": "u1"}
WIDTHS = {"source_digests": 16, "digests": 16, "sizes": 2, "jpeg_digests": 16}  # of those with two dimensions

Lists = tuple[NDArray[np.int64], NDArray[Any]]  # offsets (n + 1), and the values of all rows, end to end


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
    annotations: dict[str, Lists]
    sizes: NDArray[np.int32] | None = None  # None: of format 1
    jpeg_digests: NDArray[np.uint8] | None = None  # None: of format 1

    def digest(self) -> str:
        """Covers all samples by their own digests, and so costs 16 bytes of each; the manifest states it."""
        return digest(self.digests.tobytes()).hex()

    def pictures(self) -> str:
        """`chain` of the stored pictures, which the manifest states; empty of format 1."""
        return "" if self.jpeg_digests is None else chain(self.jpeg_digests)

    def rows(self) -> Iterator[tuple[str, NDArray[np.int64], NDArray[Any]]]:
        """All that has any number of values a sample: name of the offsets, these, and the values."""
        yield "jpeg_offsets", self.jpeg_offsets, self.jpeg
        yield "tag_offsets", self.tag_offsets, self.tag_ids
        yield "name_offsets", self.name_offsets, self.names
        for name, (offsets, values) in self.annotations.items():
            yield f"{annotation(name)}_offsets", offsets, values

    def jpeg_of(self, row: int) -> NDArray[np.uint8]:
        return self.jpeg[self.jpeg_offsets[row] : self.jpeg_offsets[row + 1]]

    def tags_of(self, row: int) -> NDArray[np.int32]:
        return self.tag_ids[self.tag_offsets[row] : self.tag_offsets[row + 1]]

    def name_of(self, row: int) -> str:
        return os.fsdecode(self.names[self.name_offsets[row] : self.name_offsets[row + 1]].tobytes())

    def expected_digest(self, row: int, jpeg_digest: bytes) -> bytes:
        """What `digests` must say of a sample whose stored picture has this digest."""
        name = self.names[self.name_offsets[row] : self.name_offsets[row + 1]].tobytes()
        original = int(self.source_sizes[row]), self.source_digests[row].tobytes()
        annotations = [
            values[offsets[row] : offsets[row + 1]] for offsets, values in self.annotations.values()
        ]
        return record_digest(jpeg_digest, self.tags_of(row), *original, name, annotations)


class Places(NamedTuple):
    """Where the datasets of a shard lie in its file; 0.5 KB, of which a reader keeps one for every shard."""

    stamp: Stamp
    form: int  # format of the shard
    where: "array[int]"  # of each dataset of `layout` in turn: how many values, and the offset in bytes


def record_digest(
    jpeg_digest: bytes,
    tag_ids: NDArray[np.int32],
    size: int,
    source_digest: bytes,
    name: bytes,
    annotations: Sequence[NDArray[Any]] = (),
) -> bytes:
    """The checksum of one sample: `jpeg_digest` is `digest(jpeg)`, `size` the original file's in bytes,
    `annotations` what the sample has of each, in the order of the plan."""
    lengths = np.array([size, len(tag_ids)], "<i8").tobytes()
    found = digest(jpeg_digest, lengths, tag_ids.astype("<i4", copy=False).tobytes(), source_digest, name)
    if not annotations:  # as it was in format 1
        return found
    lengths = np.array([len(values) for values in annotations], "<i8").tobytes()
    return digest(found, lengths, *(values.tobytes() for values in annotations))


def annotation(name: str) -> str:
    """The dataset with the values of an annotation."""
    return f"annotations/{name}"


def layout(plan: Plan, form: int) -> dict[str, str]:
    """Names and dtypes of the datasets of a shard, in the order in which they are written."""
    found = dict(DTYPES if form > 1 else OLD_DTYPES)
    for name, dtype in plan.annotations.items():
        found |= {annotation(name): dtype, f"{annotation(name)}_offsets": "<i8"}
    return found


def write_shard(
    file: Path, plan: Plan, index: int, jpeg: IO[bytes], columns: Mapping[str, NDArray[Any]]
) -> None:
    """Write one shard of format 2. jpeg: a file that stands at the JPEG bytes, which are too many for memory.
    columns: all other datasets, by the names of `layout`."""
    with h5py.File(file, "w", **WRITTEN) as shard:
        # Of fixed length: HDF5 keeps others in a heap without checksum, where a flipped bit can hang it.
        shard.attrs.update(format=FORMAT, **_stated(plan, index))
        jpeg_bytes = int(columns["jpeg_offsets"][-1])
        target = shard.create_dataset("jpeg", (jpeg_bytes,), "u1", fill_time="never")
        for start in range(0, jpeg_bytes, COPY):
            piece = np.frombuffer(jpeg.read(min(COPY, jpeg_bytes - start)), "u1")
            target[start : start + len(piece)] = piece
        for name, dtype in layout(plan, FORMAT).items():
            if name != "jpeg":
                shard.create_dataset(name, data=columns[name].astype(dtype, casting="equiv", copy=False))


def _stated(plan: Plan, index: int) -> dict[str, Any]:
    """The attributes that tie a shard to its data set."""
    return {"plan": np.bytes_(plan.digest), "tags": np.bytes_(plan.tags_digest), "shard": index,
            "stored_size": plan.resize or 0}  # fmt: skip


def open_shard(file: Path, plan: Plan, index: int) -> Shard:
    """Map one shard. Checks what costs nothing: format, plan, shapes, ends of offsets. Raises DataError."""
    return placed_shard(file, plan, index)[0]


def placed_shard(file: Path, plan: Plan, index: int) -> tuple[Shard, Places]:
    """As `open_shard`; and what `shard_at` needs to map it again."""
    try:
        mapped, stamp = stamped_file(file)
        with h5py.File(file, "r", locking=False) as shard:
            form = int(shard.attrs["format"])
            if form not in FORMATS or form < plan.format:
                allowed = " or ".join(str(known) for known in FORMATS if known >= plan.format)
                raise DataError(f"{file}: attribute 'format' is {form}, expected {allowed}")
            for key, expected in _stated(plan, index).items():
                if (value := shard.attrs[key]) != expected:
                    raise DataError(f"{file}: attribute '{key}' is {value}, expected {expected}")
            found = {name: place(shard[name], dtype) for name, dtype in layout(plan, form).items()}
    except DataError:
        raise
    except (OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise DataError(f"{file}: not a readable shard: {error}") from None
    _check_shapes(file, {name: shape for name, (shape, _) in found.items()})
    where = array("q", (n for shape, offset in found.values() for n in (math.prod(shape), offset)))
    places = Places(stamp, form, where)
    try:
        opened = _arrays(mapped, plan, places)
    except ValueError as error:  # a place outside the file
        raise DataError(f"{file}: not a readable shard: {error}") from None
    samples = len(opened.source_sizes)
    for name, offsets, values in opened.rows():
        if offsets.shape != (samples + 1,) or offsets[0] != 0 or offsets[-1] != len(values):
            raise DataError(f"{file}: {name} do not run from 0 to {len(values)} in {samples} steps")
    return opened, places


def shard_at(file: Path, plan: Plan, places: Places) -> Shard | None:
    """Map a shard again: without HDF5 and without a check. None if it is not the file that it was."""
    try:
        mapped, stamp = stamped_file(file)
    except (OSError, ValueError):
        return None
    return _arrays(mapped, plan, places) if stamp == places.stamp else None


def _arrays(mapped: mmap.mmap, plan: Plan, places: Places) -> Shard:
    arrays = {}
    for number, (name, dtype) in enumerate(layout(plan, places.form).items()):
        count, offset = places.where[2 * number : 2 * number + 2]
        shape = (count // WIDTHS[name], WIDTHS[name]) if name in WIDTHS else (count,)
        arrays[name] = mapped_array(mapped, dtype, shape, offset)
    annotations = {
        name: (arrays.pop(f"{annotation(name)}_offsets"), arrays.pop(annotation(name)))
        for name in plan.annotations
    }
    return Shard(**arrays, annotations=annotations)


def _check_shapes(file: Path, shapes: Mapping[str, tuple[int, ...]]) -> None:
    for name, shape in shapes.items():
        if len(shape) != 1 + (name in WIDTHS):
            raise DataError(f"{file}: {name} has {len(shape)} dimensions")
    for name in WIDTHS.keys() & shapes.keys():
        expected = (shapes["source_sizes"][0], WIDTHS[name])
        if shapes[name] != expected:
            raise DataError(f"{file}: {name} has shape {shapes[name]}, expected {expected}")


def check_rows(file: Path, shard: Shard, plan: Plan) -> None:
    """What every reader relies on: offsets that never fall, tag ids of the table, and sizes of pictures.
    Reads a few bytes a sample. Raises DataError, which names the sample."""
    for name, offsets, _ in shard.rows():
        if len(falling := np.flatnonzero(np.diff(offsets) < 0)):
            raise DataError(
                f"{file}: sample {falling[0]}: {name} fall here; `hpcscale data verify` tells more"
            )
    ids = shard.tag_ids
    if ids.size and not 0 <= ids.min() <= ids.max() < plan.tags:
        wrong = np.flatnonzero((ids < 0) | (ids >= plan.tags))[0]
        row = int(np.searchsorted(shard.tag_offsets, wrong, side="right")) - 1
        raise DataError(
            f"{file}: sample {row} ({shard.name_of(row)}) has the tag id {ids[wrong]}, outside "
            f"[0, {plan.tags}); `hpcscale data verify` tells more"
        )
    sizes = shard.sizes
    if sizes is not None and sizes.size and not 1 <= sizes.min() <= sizes.max() <= MAX_SIDE:
        row = int(np.flatnonzero(((sizes < 1) | (sizes > MAX_SIDE)).any(axis=1))[0])
        raise DataError(
            f"{file}: sample {row} ({shard.name_of(row)}) has the size {sizes[row].tolist()}, outside "
            f"[1, {MAX_SIDE}]; `hpcscale data verify` tells more"
        )


def jpeg_place(file: Path) -> int:
    """The offset in a shard's file of its first JPEG byte."""
    with h5py.File(file, "r", locking=False) as shard:
        return place(shard["jpeg"], DTYPES["jpeg"])[1]


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
