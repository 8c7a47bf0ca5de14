# Types of the extension; hpcscale/ops.py is its documented face.
import enum
from collections.abc import Callable
from typing import Any

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

class TargetRows:
    def __init__(
        self, closure: Closure, lo: int, hi: int, kind: Kind, buffer: NDArray[np.float32]
    ) -> None: ...
    def fill(self, offsets: NDArray[np.int64], ids: NDArray[np.int32]) -> None: ...

def scatter_32(
    offsets: NDArray[np.int64],
    classes: NDArray[np.int32],
    ids: NDArray[np.uint32],
    next: NDArray[np.int64],
    out: NDArray[np.uint32],
) -> None: ...
def scatter_64(
    offsets: NDArray[np.int64],
    classes: NDArray[np.int32],
    ids: NDArray[np.uint64],
    next: NDArray[np.int64],
    out: NDArray[np.uint64],
) -> None: ...
def decode(
    jpegs: list[NDArray[np.uint8]],
    windows: NDArray[np.int32],
    sizes: NDArray[np.int32],
    starts: NDArray[np.int32],
    mirror: NDArray[np.uint8],
    out: NDArray[np.uint8],
    threads: int,
) -> list[str]: ...
def jpeg_faults(jpegs: list[NDArray[np.uint8]], threads: int) -> list[str]: ...
def normalize(
    pixels: NDArray[np.uint8],
    means: NDArray[np.float64],
    deviations: NDArray[np.float64],
    out: NDArray[np.float32],
) -> None: ...
def pdq(picture: NDArray[np.uint8]) -> tuple[NDArray[np.uint64], int]: ...
def pdq_jpeg(jpeg: NDArray[np.uint8]) -> tuple[NDArray[np.uint64], int] | None: ...
def pdq_dihedral(picture: NDArray[np.uint8]) -> tuple[NDArray[np.uint64], int]: ...
def pdq_variants() -> list[str]: ...
def pdq_by(variant: str, picture: NDArray[np.uint8]) -> tuple[NDArray[np.uint64], int]: ...
def phash(grey: NDArray[np.uint8]) -> int: ...
def dhash(grey: NDArray[np.uint8]) -> int: ...
def search(
    a: NDArray[np.uint64],
    b: NDArray[np.uint64] | None,
    radius: int,
    threads: int,
    chunks: int,
    variant: str,
    found: Callable[[NDArray[np.int64]], object] | None,
    progress: Callable[[float], object] | None,
) -> NDArray[np.int64]: ...
def plan(a: NDArray[np.uint64], b: NDArray[np.uint64] | None, radius: int) -> int: ...
def hamming_variants() -> list[str]: ...
def permute(
    indices: NDArray[np.int64],
    samples: int,
    keys: NDArray[np.uint64],
    ends: NDArray[np.int64] | None,
    back: bool,
) -> NDArray[np.int64]: ...
def nms_32(boxes: NDArray[Any], scores: NDArray[Any], threshold: float) -> NDArray[np.int64]: ...
def nms_64(boxes: NDArray[Any], scores: NDArray[Any], threshold: float) -> NDArray[np.int64]: ...
def roi_align_32(
    maps: NDArray[Any], rois: NDArray[Any], how: tuple[float, int, bool], threads: int, out: NDArray[Any]
) -> None: ...
def roi_align_64(
    maps: NDArray[Any], rois: NDArray[Any], how: tuple[float, int, bool], threads: int, out: NDArray[Any]
) -> None: ...
def roi_align_gradient_32(
    gradient: NDArray[Any], rois: NDArray[Any], how: tuple[float, int, bool], threads: int, maps: NDArray[Any]
) -> None: ...
def roi_align_gradient_64(
    gradient: NDArray[Any], rois: NDArray[Any], how: tuple[float, int, bool], threads: int, maps: NDArray[Any]
) -> None: ...
