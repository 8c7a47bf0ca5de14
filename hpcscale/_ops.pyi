# Types of the extension; hpcscale/ops.py is its documented face.
import enum

import numpy as np
from numpy.typing import NDArray

def find_cycle(offsets: NDArray[np.int64], ids: NDArray[np.int32]) -> list[int]: ...
def ancestors(
    offsets: NDArray[np.int64], ids: NDArray[np.int32]
) -> tuple[NDArray[np.int64], NDArray[np.int32]]: ...

class Closure:
    def __init__(
        self, tag_classes: NDArray[np.int32], offsets: NDArray[np.int64], ids: NDArray[np.int32]
    ) -> None: ...
    def labels(
        self, offsets: NDArray[np.int64], ids: NDArray[np.int32]
    ) -> tuple[NDArray[np.int64], NDArray[np.int32]]: ...

class Kind(enum.Enum):
    ones = 0
    shares = 1
    bits = 2

class Rows:
    def __init__(
        self, closure: Closure, lo: int, hi: int, kind: Kind, buffer: NDArray[np.float32] | NDArray[np.uint8]
    ) -> None: ...
    def fill(self, offsets: NDArray[np.int64], ids: NDArray[np.int32]) -> None: ...

def normalize(pixels: NDArray[np.uint8], mirror: NDArray[np.uint8], out: NDArray[np.float32]) -> None: ...
