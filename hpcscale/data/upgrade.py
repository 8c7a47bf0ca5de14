"""A data set of format 1 becomes one of format 2, in place, without decoding a picture.

In: a finished data-set folder. Out: the same folder, as an ingest of today would have packed it. Shard by
shard: the new one is written aside and checked, its line is left beside it, and it takes the old one's name.
Then come the manifest and, last, the plan. At every moment the folder is a whole data set: a shard's own
attribute tells its format, and of its two lines the one counts that states its size. What is killed goes on
when it is called again.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpcscale.data.jpeg import BadPicture, dimensions
from hpcscale.data.manifest import (
    FORMAT,
    DataError,
    Entry,
    Plan,
    digest,
    entry_name,
    manifest_lines,
    remove_leftovers,
    shard_name,
)
from hpcscale.data.parts import locked
from hpcscale.data.shard import OLD_DTYPES, Shard, jpeg_place, open_shard, write_shard
from hpcscale.data.store import listed_shard, open_data
from hpcscale.data.verify import check_shard, entry_of
from hpcscale.files import open_regular, replacing, write_file
from hpcscale.progress import Progress, none


def upgrade(folder: Path, progress: Progress = none) -> int:
    """Bring a data set to `FORMAT`; the number of shards that were written anew. Memory: one shard's index.

    Raises DataError where it is damaged or its ingest has not ended, Busy where another call writes into it,
    and OSError, to be run again.
    """
    folder = Path(folder)
    if open_data(folder).plan.format == FORMAT:
        return 0
    with locked(folder, None):
        remove_leftovers(folder)
        data = open_data(folder)
        plan, entries, written = data.plan, list(data.entries), 0
        for index, entry in enumerate(data.entries):
            progress("upgrade", index, len(entries))
            shard, _ = listed_shard(folder, plan, index, entry)
            if shard.sizes is None:
                entries[index] = _write_anew(folder, plan, index, shard)
                written += 1
        write_file(folder / "manifest.jsonl", manifest_lines(entries))
        for index in range(len(entries)):
            (folder / entry_name(index)).unlink(missing_ok=True)
        newest = plan.model_copy(update={"format": FORMAT})
        write_file(folder / "plan.json", newest.json_text(indent=2).encode() + b"\n")
    progress("upgrade", len(entries), len(entries))
    return written


def _write_anew(folder: Path, plan: Plan, index: int, shard: Shard) -> Entry:
    """Write a shard of format 1 in format 2; its line."""
    file = folder / shard_name(index)
    with replacing(file) as temporary:
        with open_regular(file) as jpeg:
            jpeg.seek(jpeg_place(file))
            write_shard(temporary, plan, index, jpeg, _columns(file, shard))
        new = open_shard(temporary, plan, index)
        for problem in check_shard(file.name, new, plan, index):
            raise DataError(f"{folder / str(problem)}; `hpcscale data verify {folder}` tells more")
        entry = entry_of(file, temporary, new)
        write_file(folder / entry_name(index), entry.model_dump_json().encode())
    return entry


def _columns(file: Path, shard: Shard) -> dict[str, NDArray[Any]]:
    """What `write_shard` wants."""
    sizes, digests = [], bytearray()
    for row in range(len(shard.source_sizes)):
        jpeg = shard.jpeg_of(row).tobytes()
        try:
            sizes.append(dimensions(jpeg))
        except BadPicture as error:
            name = shard.name_of(row)
            raise DataError(f"{file}: sample {row} ({name}): the size cannot be read: {error}") from None
        digests += digest(jpeg)
    columns = {name: array for name, array in shard._asdict().items() if name in OLD_DTYPES}
    columns["sizes"] = np.array(sizes, np.int32).reshape(-1, 2)
    columns["jpeg_digests"] = np.frombuffer(digests, np.uint8).reshape(-1, 16)
    return columns
