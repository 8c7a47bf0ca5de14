"""A drop list: names of samples that training must not see; and the order without them.

In: a drop list (`dedup drop` writes it: one source id a line, escaped as pairs.py says) and a data set. Out:
`Order` without those samples.
"""

import json
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hpcscale.config import Config, ConfigError
from hpcscale.data.manifest import DataError
from hpcscale.data.order import Order
from hpcscale.data.store import DataSet
from hpcscale.files import FileError, read_bytes
from hpcscale.pairs import unescape


def order_of(settings: Config, data: DataSet) -> Order:
    """The order of a run over `data.train`. With a drop list, it reads the names of all samples.

    Raises DataError if the drop list does not fit the data, ConfigError if `data.held_out` leaves no sample
    to train on or to hold out.
    """
    file = settings.data.drop
    dropped = dropped_samples(data, file) if file else np.empty(0, np.int64)
    held_out = settings.data.held_out
    left = data.samples - round(held_out * data.samples)
    found = f"of the {data.samples} samples of {data.folder}"
    if not left:
        raise ConfigError(f"data.held_out: {held_out} {found} leaves none to train on; choose less")
    if held_out and left == data.samples:
        raise ConfigError(f"data.held_out: {held_out} {found} is none; choose 0 or more")
    try:
        order = Order(data.samples, settings.train.seed, held_out, settings.data.split_seed, dropped)
    except ValueError:
        raise DataError(f"{file}: drops all samples of {data.folder} that could be trained on") from None
    if held_out and not order.held_out_length:
        raise DataError(f"{file}: drops all samples of {data.folder} that were held out")
    return order


def dropped_samples(data: DataSet, file: Path) -> NDArray[np.int64]:
    """The samples that a drop list names, rising  # (dropped,) int64

    One pass over the names of all shards; memory: the list. A name of several samples drops them all. Raises
    DataError if a name is neither a sample nor in a shard's quarantine: the list is then mistyped or of other
    data, and would fail to keep samples out.
    """
    try:
        lines = read_bytes(file).split(b"\n")
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror}") from None
    except FileError as error:
        raise DataError(str(error)) from None
    try:
        wanted = {os.fsencode(unescape(os.fsdecode(line))) for line in lines if line}
    except ValueError as error:
        raise DataError(f"{file}: {error}") from None
    found, known = [], set[bytes]()
    for index, start in enumerate(data.starts[:-1].tolist()):
        shard = data.shard(index)
        names, offsets = shard.names.tobytes(), shard.name_offsets.tolist()
        for row in range(len(offsets) - 1):
            name = names[offsets[row] : offsets[row + 1]]
            if name in wanted:
                found.append(start + row)
                known.add(name)
        known.update(
            os.fsencode(json.loads(line)["name"]) for line in shard.quarantine.tobytes().split(b"\n")[:-1]
        )
    unknown = sorted(wanted - known)
    if unknown:
        raise DataError(
            f"{file}: {len(unknown)} of {len(wanted)} names are not in {data.folder}, "
            f"the first is {os.fsdecode(unknown[0])!r}"
        )
    return np.array(found, np.int64)
