"""Index files, and the parts that array tasks leave of one. HDF5, like shards: contiguous, no time stamps.

An index file holds the arrays of `index.build` under their names: samples, held_out, by_class and once,
ids of samples, uint32 or int64; class_starts, once_starts and clean, int64. Attributes: format, kind
("index"), about (JSON: what it was made of) and tally (JSON). A part holds candidates: samples int64,
pictures uint64, offsets int64, classes int32, held_out and named uint8, and drop_known, names_known and
held_out_known, uint8, which names of the lists were met; each may be longer than what is in it, which the
attribute `lengths` (JSON) says.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from hpcscale.data.manifest import DataError
from hpcscale.data.mapped import mapped_array, mapped_file
from hpcscale.data.shard import WRITTEN, place
from hpcscale.files import open_regular, replacing
from hpcscale.samples.candidates import Candidates, NameLists, Tally
from hpcscale.samples.index import Index, Make
from hpcscale.samples.lists import Filed, Lists

FORMAT = 1
LISTS = ("samples", "held_out", "by_class", "once")
SMALL = ("class_starts", "once_starts", "clean")
PART = {"samples": "<i8", "pictures": "<u8", "offsets": "<i8", "classes": "<i4", "held_out": "u1",
        "named": "u1", "drop_known": "u1", "names_known": "u1", "held_out_known": "u1"}  # fmt: skip


@contextmanager
def written(file: Path, kind: str, about: str) -> Iterator[tuple[Make, dict[str, Any]]]:
    """Write a file aside, which takes its name at the end. Gives what makes its arrays, mapped, to be called
    once; and a dict for further attributes (JSON values), which is written last."""
    arrays: dict[str, NDArray[Any]] = {}
    stated: dict[str, Any] = {}
    with replacing(file) as temporary:

        def make(layout: dict[str, tuple[int, str]]) -> dict[str, NDArray[Any]]:
            early = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            early.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
            with h5py.File(temporary, "w", **WRITTEN) as target:
                places = {
                    name: place(
                        target.create_dataset(name, (size,), dtype, fill_time="never", dcpl=early), dtype
                    )
                    for name, (size, dtype) in layout.items()
                }
            for name, ((size,), offset) in places.items():
                dtype = np.dtype(layout[name][1])
                arrays[name] = (
                    np.memmap(temporary, dtype, "r+", offset, (size,)) if size else np.empty(0, dtype)
                )
            return arrays

        yield make, stated
        arrays.clear()
        with h5py.File(temporary, "r+", **WRITTEN) as target:
            values = {"kind": kind, "about": about} | {key: json.dumps(each) for key, each in stated.items()}
            target.attrs["format"] = FORMAT
            for key, value in values.items():
                content = value.encode()
                target.attrs[key] = np.array(content, f"S{max(1, len(content))}")
        _read(temporary, kind)


def read_index(file: Path, samples: int) -> tuple[Index, str]:
    """An index file, open; its lists are read in place. And what it was made of. Raises DataError.

    samples: of the data set. Ids have no checksum, since nobody reads all of them; each is compared with it.
    """
    attributes, places = _read(file, "index")
    stream = open_regular(file)
    small = {}
    for name in SMALL:
        shape, offset, dtype = places[name]
        stream.seek(offset)
        small[name] = np.frombuffer(stream.read(shape * dtype.itemsize), dtype)
    for name, of, more in (("class_starts", "by_class", 0), ("once_starts", "once", 1)):
        starts = small[name]
        fits = len(starts) == len(small["clean"]) + 1 + more and starts[0] == 0
        if not fits or (np.diff(starts) < 0).any() or starts[-1] != places[of][0]:
            raise DataError(f"{file}: {name} do not fit {of}: the file is damaged, make it again")
    lists = {
        name: Filed(stream, offset, size, dtype, samples) for name, (size, offset, dtype) in places.items()
    }
    found = Index(
        lists["samples"],
        lists["held_out"],
        Lists(small["class_starts"], lists["by_class"]),
        Lists(small["once_starts"], lists["once"]),
        small["clean"],
        Tally(**json.loads(attributes["tally"])),
        json.loads(attributes["whole"]),
    )
    return found, attributes["about"]


def read_part(file: Path, rows: int) -> tuple[Iterator[Candidates], dict[str, Any], str]:
    """The candidates of a part, so many at a time; how many, which names were met and the tally; what it was
    made of. Raises DataError."""
    attributes, places = _read(file, "part")
    lengths = json.loads(attributes["lengths"])
    mapping = mapped_file(file)
    arrays = {
        name: mapped_array(mapping, dtype.str, (size,), offset)[: lengths[name]]
        for name, (size, offset, dtype) in places.items()
    }

    def chunks() -> Iterator[Candidates]:
        for begin in range(0, lengths["samples"], rows):
            end = min(begin + rows, lengths["samples"])
            offsets = arrays["offsets"][begin : end + 1]
            yield Candidates(
                arrays["samples"][begin:end],
                arrays["pictures"][begin:end],
                offsets - offsets[0],
                arrays["classes"][offsets[0] : offsets[-1]],
                arrays["held_out"][begin:end].view(np.bool_),
                arrays["named"][begin:end].view(np.bool_),
            )

    known = (f"{name}_known" for name in NameLists._fields)
    met: dict[str, Any] = {name: arrays[name].view(np.bool_) for name in known}
    told = {"candidates": lengths["samples"], "tally": Tally(**json.loads(attributes["tally"]))}
    return chunks(), met | told, attributes["about"]


def _read(file: Path, kind: str) -> tuple[dict[str, str], Mapping[str, tuple[int, int, np.dtype[Any]]]]:
    """Attributes; and length, place in the file and dtype of each array."""
    try:
        with h5py.File(file, "r", locking=False) as opened:
            if (found := opened.attrs["format"]) != FORMAT:
                raise DataError(f"{file}: format {found}, this version reads format {FORMAT}; make it again")
            names = ("kind", "about", "tally", *(("whole",) if kind == "index" else ("lengths",)))
            attributes = {name: opened.attrs[name].decode() for name in names}
            if attributes["kind"] != kind:
                raise DataError(f"{file}: is a file of kind {attributes['kind']!r}, not {kind!r}")
            places = {}
            for name in (*LISTS, *SMALL) if kind == "index" else PART:
                (size,), offset = place(opened[name], opened[name].dtype.str)
                places[name] = (size, offset, opened[name].dtype)
        length = file.stat().st_size
    except DataError:
        raise
    except (OSError, KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise DataError(f"{file}: not a readable {kind} of samples: {error}") from None
    if any(offset + size * dtype.itemsize > length for size, offset, dtype in places.values()):
        raise DataError(f"{file}: is cut off; make it again with `hpcscale data index`")
    return attributes, places
