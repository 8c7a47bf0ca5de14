"""Hash files: perceptual hashes of many pictures, and their names.

In: codes from dedup/hashes.py. Out: the same, mapped, for search. A hash file, format version 2, is HDF5
without time stamps. Every dataset is contiguous, so that a reader can map the file. For n pictures, in the
source's order:

    names         uint8 (bytes)       source ids, as in a data set's shards
    name_offsets  int64 (n + 1)       name i is names[name_offsets[i] : name_offsets[i + 1]]
    codes         uint64 (n, words)   bits in the order of the text form, highest first: code i in
                                      hexadecimal is its words, 16 digits each
    quality       uint8 (n)           PDQ: 0 to 100; methods without such a measure: 100
    quarantine    uint8 (bytes)       {"name": source id, "reason": why, "row": place in the source} a line,
                                      for each picture without a code
    digests       uint8 (m, 16)       BLAKE2b-128 of the original file of every picture of the source, in its
                                      order, also of those without a code; zeros where no file could be read;
                                      the same for a folder, tars, and the data set that was packed from them

Attributes:

    format        2; format 1 had no `digests`, and so could not tell different pictures of one name apart
    method        pdq, phash or dhash
    version       of the method
    source        digest of the names and places of all pictures, or `DataSet.digest`
    decoder       versions of the libraries that turn files into pixels
    digest        BLAKE2b of all of this

An embedding file has `features` float32 (n, d), each of length 1, in place of `codes`. Its method is the
pooling (rmac, mean), and one more attribute, checkpoint, is the SHA-256 of the network's tensors.
"""

import hashlib
import json
import mmap
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, overload

import h5py
import numpy as np
from numpy.typing import NDArray

from hpcscale.data.manifest import DataError
from hpcscale.data.mapped import mapped_array, mapped_file
from hpcscale.data.shard import WRITTEN, place
from hpcscale.files import remove_asides, replacing

FORMAT = 2
WORDS = {"pdq": 4, "phash": 1, "dhash": 1}  # uint64 words of a code
POOLINGS = ("rmac", "mean")  # methods of embedding files
DTYPES = {"names": "u1", "name_offsets": "<i8", "codes": "<u8", "quality": "u1", "quarantine": "u1",
          "digests": "u1"}  # fmt: skip
STATED = ("method", "version", "source", "decoder")  # attributes that `Codes` holds
CHECKED = 64 << 20  # bytes read at a time while the checksum is computed
NOTHING = np.empty(0, np.uint8)
NO_DIGESTS = np.empty((0, 16), np.uint8)


class Names(Sequence[str]):
    """Names, kept end to end as bytes. A name takes its length and 8 bytes."""

    def __init__(self, content: NDArray[np.uint8], offsets: NDArray[np.int64]) -> None:
        self.content, self.offsets = content, offsets

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"name {index} of {len(self)}")
        index %= len(self)
        return os.fsdecode(self.content[self.offsets[index] : self.offsets[index + 1]].tobytes())


class Codes(NamedTuple):
    """The codes of n pictures. As read from a file, arrays are read-only views of the mapped file."""

    names: Sequence[str]  # n
    codes: NDArray[Any]  # (n, words) uint64; of an embedding file, the features (n, d) float32
    quality: NDArray[np.uint8]  # (n,)
    method: str
    version: int = 1
    source: str = ""
    decoder: str = ""
    quarantine: NDArray[np.uint8] = NOTHING  # JSON lines
    digest: str = ""  # of the file
    mapping: mmap.mmap | None = None
    checkpoint: str = ""  # of an embedding
    digests: NDArray[np.uint8] = NO_DIGESTS  # (m, 16) of all pictures, with and without a code

    def release(self) -> None:
        """Give the memory of mapped pages back; they are read again when needed."""
        if self.mapping is not None:
            self.mapping.madvise(mmap.MADV_DONTNEED)


def write_codes(file: Path, codes: Codes) -> None:
    """Write aside, read back, rename: after a crash the file is whole or was never there."""
    _write(file, codes, lambda: [codes])


def merge_codes(file: Path, parts: Sequence[Path], source: str) -> None:
    """Join hash files of the same method, in this order, to one. Memory: the names of one part."""
    remove_asides(file)  # left by killed calls; the caller keeps other calls out
    _write(file, read_codes(parts[0])._replace(source=source), lambda: map(read_codes, parts))


def _write(file: Path, head: Codes, parts: Callable[[], Iterable[Codes]]) -> None:
    """Calls `parts` twice, since a contiguous dataset needs its size first."""
    rows = name_bytes = quarantine_bytes = pictures = 0
    table, dtypes, keys = _layout(head.method)
    width = WORDS.get(head.method, head.codes.shape[1])
    for part in parts():
        if part.codes.dtype != np.dtype(dtypes[table]) or part.codes.shape != (len(part.names), width):
            expected = f"{np.dtype(dtypes[table])} {(len(part.names), width)}"
            raise TypeError(f"{table} must be {expected}, found {part.codes.dtype} {part.codes.shape}")
        if part.quality.dtype != np.uint8 or part.quality.shape != (len(part.names),):
            raise TypeError(f"quality must be uint8 {(len(part.names),)}, found {part.quality.dtype}")
        rows += len(part.names)
        name_bytes += len(_packed(part.names).content)
        quarantine_bytes += len(part.quarantine)
        pictures += len(part.digests)
    sizes = {"names": (name_bytes,), "name_offsets": (rows + 1,), table: (rows, width),
             "quality": (rows,), "quarantine": (quarantine_bytes,), "digests": (pictures, 16)}  # fmt: skip
    states = {name: hashlib.blake2b(digest_size=16) for name in dtypes}
    ends = dict.fromkeys(dtypes, 0)
    with replacing(file) as temporary:
        with h5py.File(temporary, "w", **WRITTEN) as target:
            # Give every dataset its place in the file here; later, places would depend on which part comes
            # first that has bytes for it.
            early = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            early.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
            for name, dtype in dtypes.items():
                target.create_dataset(name, sizes[name], dtype, fill_time="never", dcpl=early)

            def put(name: str, values: NDArray[Any]) -> None:
                values = np.ascontiguousarray(values, dtypes[name])
                target[name][ends[name] : ends[name] + len(values)] = values
                states[name].update(values.data if values.size else b"")
                ends[name] += len(values)

            put("name_offsets", np.zeros(1, np.int64))
            for part in parts():
                names = _packed(part.names)
                begin = ends["names"]
                put("names", names.content)
                put("name_offsets", names.offsets[1:] + begin)
                put(table, part.codes)
                put("quality", part.quality)
                put("quarantine", part.quarantine)
                put("digests", part.digests)
            stated = {key: getattr(head, key) for key in keys}
            digest = _digest(stated, states)
            target.attrs["format"] = FORMAT
            # Of fixed length, in the checksummed header: in a damaged heap of strings HDF5 may loop for ever.
            for key, value in {**stated, "digest": digest}.items():
                content = str(value).encode()
                target.attrs[key] = np.array(content, f"S{max(1, len(content))}")
        read_codes(temporary)


def _layout(method: str) -> tuple[str, dict[str, str], tuple[str, ...]]:
    """Name of the table, dtypes of all datasets in the order of their checksums, and stated attributes."""
    if method not in POOLINGS:
        return "codes", DTYPES, STATED
    dtypes = {"features" if name == "codes" else name: DTYPES[name] for name in DTYPES}
    return "features", dtypes | {"features": "<f4"}, (*STATED, "checkpoint")


def _packed(names: Sequence[str]) -> Names:
    if isinstance(names, Names):
        return names
    encoded = [os.fsencode(name) for name in names]
    offsets = np.zeros(len(encoded) + 1, np.int64)
    np.cumsum([len(name) for name in encoded], out=offsets[1:])
    return Names(np.frombuffer(b"".join(encoded), np.uint8), offsets)


def _digest(stated: dict[str, Any], states: dict[str, Any]) -> str:
    parts = [json.dumps(stated, sort_keys=True), *(state.hexdigest() for state in states.values())]
    return hashlib.blake2b("\n".join(parts).encode(), digest_size=16).hexdigest()


def read_codes(file: Path) -> Codes:
    """Map a hash or embedding file. Reads all of it once for its checksum, at about 1 GB/s. Raises
    DataError."""
    try:
        mapping = mapped_file(file)
        with h5py.File(file, "r", locking=False) as opened:
            if (found := opened.attrs.get("format")) != FORMAT:
                raise DataError(
                    f"{file}: format {found}, this version reads hash files of format {FORMAT}; make it again"
                )
            table, dtypes, keys = _layout(opened.attrs["method"].decode())
            stated: dict[str, Any] = {key: opened.attrs[key].decode() for key in keys}
            stated["version"] = int(stated["version"])
            expected = opened.attrs["digest"].decode()
            places = {name: place(opened[name], dtype) for name, dtype in dtypes.items()}
        arrays = {name: mapped_array(mapping, dtypes[name], *places[name]) for name in dtypes}
    except DataError:
        raise
    except (OSError, KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise DataError(f"{file}: not a readable file of hashes or embeddings: {error}") from None
    states = {name: hashlib.blake2b(digest_size=16) for name in dtypes}
    for name, array in arrays.items():
        for piece in _pieces(array):
            states[name].update(piece)
            mapping.madvise(mmap.MADV_DONTNEED)
    if _digest(stated, states) != expected:
        raise DataError(f"{file}: its checksum does not fit its content; the file is damaged, make it again")
    names = Names(arrays["names"], arrays["name_offsets"])
    codes = Codes(names, arrays[table], arrays["quality"], **stated,
                  quarantine=arrays["quarantine"], digest=expected, mapping=mapping,
                  digests=arrays["digests"])  # fmt: skip
    if codes.method not in (*WORDS, *POOLINGS):
        raise DataError(f"{file}: method {codes.method!r}, known are {', '.join([*WORDS, *POOLINGS])}")
    if not len(names) == len(codes.quality) == len(codes.codes):
        raise DataError(
            f"{file}: {len(names)} names, {len(codes.codes)} codes, {len(codes.quality)} qualities"
        )
    return codes


def _pieces(array: NDArray[Any]) -> Iterator[memoryview]:
    content = array.reshape(-1).view(np.uint8)
    for start in range(0, len(content), CHECKED):
        yield content[start : start + CHECKED].data


def digests_of(codes: Codes, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
    """The digests of the pictures in these rows of `codes`  # (rows, 16); (0, 16) if the file has none"""
    if not len(codes.digests):
        return NO_DIGESTS
    lost = np.unique(np.array([picture["row"] for picture in quarantined(codes)], np.int64))
    places = rows + np.searchsorted(lost - np.arange(len(lost)), rows, side="right")
    return np.asarray(codes.digests[places])


def quarantined(codes: Codes) -> Iterator[dict[str, Any]]:
    """The pictures that have no code: {"name", "reason", "row"} each."""
    for line in codes.quarantine.tobytes().split(b"\n")[:-1]:
        yield json.loads(line)
