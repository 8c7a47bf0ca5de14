"""Lists of names: which samples of a data set does a file name?

In: a list (`dedup drop` writes one: one source id a line, escaped as pairs.py says) and a data set. Out: ids.
For the samples that a run leaves out, and for those that a selection is.
"""

import json
import os
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hpcscale.data.manifest import DataError, digest
from hpcscale.data.store import DataSet
from hpcscale.files import FileError, read_bytes
from hpcscale.pairs import unescape


class NameList:
    """The names of one file. Memory: the list, and a byte for each name.

    `known` (names,) bool: which names were met by `rows`, as samples or in a quarantine.
    """

    def __init__(self, file: Path) -> None:
        """Raises DataError if the file cannot be read."""
        try:
            content = read_bytes(file)
            lines = (os.fsencode(unescape(os.fsdecode(line))) for line in content.split(b"\n") if line)
            self.numbers = {name: number for number, name in enumerate(dict.fromkeys(lines))}
        except OSError as error:
            raise DataError(f"{file}: cannot be read: {error.strerror}") from None
        except FileError as error:
            raise DataError(str(error)) from None
        except ValueError as error:
            raise DataError(f"{file}: {error}") from None
        self.file = file
        self.digest = digest(*(b"%d %b" % (len(name), name) for name in sorted(self.numbers))).hex()
        self.known = np.zeros(len(self.numbers), np.bool_)

    def rows(self, data: DataSet, index: int) -> NDArray[np.bool_]:
        """Which rows of a shard are named  # (samples of the shard,). A name of several names them all."""
        shard, wanted = data.shard(index), self.numbers
        names, offsets = shard.names.tobytes(), shard.name_offsets.tolist()
        found = [wanted.get(names[begin:end], -1) for begin, end in pairwise(offsets)]
        lost = [
            wanted.get(os.fsencode(json.loads(line)["name"]), -1)
            for line in shard.quarantine.tobytes().split(b"\n")[:-1]
        ]
        numbers = np.array(found, np.int64)
        self.known[numbers[numbers >= 0]] = True
        self.known[[number for number in lost if number >= 0]] = True
        return numbers >= 0

    def refuse_unknown(self, data: DataSet) -> None:
        """Raises DataError if a name is neither a sample nor in a quarantine, after `rows` of all shards: the
        list is then mistyped or of other data, and would fail to do what it should."""
        if self.known.all():
            return
        unknown = sorted(name for name, number in self.numbers.items() if not self.known[number])
        raise DataError(
            f"{self.file}: {len(unknown)} of {len(self.numbers)} names are not in {data.folder}, "
            f"the first is {os.fsdecode(unknown[0])!r}"
        )
