"""Files mapped read-only, and arrays in them.

A mapping holds a file descriptor. Both go when no array of it lives any more; nobody has to close it.
"""

import math
import mmap
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpcscale.files import open_regular

Stamp = tuple[int, int, int]  # of a file: its bytes, the nanosecond of its last change, its inode


def mapped_file(file: Path) -> mmap.mmap:
    """A regular file, mapped. Raises ValueError, also for pipes and devices, and OSError."""
    return stamped_file(file)[0]


def stamped_file(file: Path) -> tuple[mmap.mmap, Stamp]:
    """As `mapped_file`, and by what it is told from a file that takes its place."""
    with open_regular(file) as stream:
        found = os.fstat(stream.fileno())
        mapped = mmap.mmap(stream.fileno(), 0, prot=mmap.PROT_READ)
    return mapped, (found.st_size, found.st_mtime_ns, found.st_ino)


def mapped_array(mapped: mmap.mmap, dtype: str, shape: tuple[int, ...], offset: int) -> NDArray[Any]:
    count = math.prod(shape)
    return np.frombuffer(mapped, dtype, count, offset).reshape(shape) if count else np.empty(shape, dtype)
