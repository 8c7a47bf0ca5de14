"""The typed and documented functions of the C++ extension hpcscale._ops.

Arrays go in and come out as NumPy arrays (`.numpy()` of a torch CPU tensor shares its memory). They are never
converted: a wrong dtype, shape or layout is a TypeError that says what was found. Lists of lists are in CSR
form: list i is `ids[offsets[i]:offsets[i + 1]]`, offsets int64 (lists + 1,), ids int32. The interpreter's
lock is released while C++ works. The C++ headers in cpp/include/hpcscale are the specification.
"""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hpcscale import _ops

Offsets = NDArray[np.int64]
Ids = NDArray[np.int32]
Numbers = NDArray[Any]  # of a type that is named where it is taken


# --- labels: cpp/include/hpcscale/hierarchy.hpp and targets.hpp


def find_cycle(parent_offsets: Offsets, parents: Ids) -> list[int]:
    """The classes of a cycle, each followed by one of its parents; the first is a parent of the last. Or [].

    parents: for every class its parents. IndexError names a class whose parent is out of range.
    """
    return _ops.find_cycle(parent_offsets, parents)


def ancestors(parent_offsets: Offsets, parents: Ids) -> tuple[Offsets, Ids]:
    """All ancestors of every class, without itself, sorted, in CSR form. ValueError if there is a cycle."""
    return _ops.ancestors(parent_offsets, parents)


class Closure:
    """What every tag stands for: the class it selects and all ancestors of that class."""

    def __init__(self, tag_classes: Ids, ancestor_offsets: Offsets, ancestors: Ids) -> None:
        """tag_classes (tags,): class of each tag, or -1 for none; ancestors: CSR over the classes."""
        self._closure = _ops.Closure(tag_classes, ancestor_offsets, ancestors)

    def labels(self, tag_offsets: Offsets, tag_ids: Ids) -> tuple[Offsets, Ids]:
        """Classes that hold for each record, sorted, each once, as CSR. IndexError names record and id."""
        return self._closure.labels(tag_offsets, tag_ids)


class TargetRows:
    """Target rows for the classes [lo, hi) in a caller's buffer that is used again for every batch.

    kind:

    - 'ones': 1 where a class holds.
    - 'shares': 1/k where one of k classes holds; k includes ancestors and classes outside the range.
    """

    def __init__(
        self,
        closure: Closure,
        lo: int,
        hi: int,
        kind: Literal["ones", "shares"],
        buffer: NDArray[np.float32],
    ) -> None:
        """buffer (rows, hi - lo) float32, all zero."""
        self._rows = _ops.TargetRows(closure._closure, lo, hi, getattr(_ops.Kind, kind), buffer)

    def fill(self, tag_offsets: Offsets, tag_ids: Ids) -> None:
        """Clear what the last call set, then write row i for record i; later rows are zero.

        IndexError names the record and the tag id found; ValueError if there are more records than rows.
        After an error the buffer is as it was before the call. Not for two threads at once.
        """
        self._rows.fill(tag_offsets, tag_ids)


# --- samples by class: cpp/include/hpcscale/grouping.hpp


def scatter(offsets: Offsets, classes: Ids, ids: Numbers, places: Offsets, out: Numbers) -> None:
    """Write the id of every row into the list of each of its classes, in the order of the rows.

    offsets, classes: rows in CSR form
    ids (rows,), out: both uint32, int32, uint64 or int64
    places (classes,): where in `out` the next id of each class goes; moved on, so that rows come in parts

    IndexError names a row's class that is out of range, or the class whose list leaves `out`.
    """
    if ids.dtype != out.dtype or ids.dtype not in (np.uint32, np.int32, np.uint64, np.int64):
        raise TypeError(
            f"ids and out: need one integer type of 32 or 64 bits, found {ids.dtype}, {out.dtype}"
        )
    if ids.itemsize == 4:
        _ops.scatter_32(offsets, classes, ids.view(np.uint32), places, out.view(np.uint32))
    else:
        _ops.scatter_64(offsets, classes, ids.view(np.uint64), places, out.view(np.uint64))


# --- pictures: cpp/include/hpcscale/decode.hpp and pixels.hpp


def decode(
    jpegs: list[NDArray[np.uint8]],
    windows: Ids,
    sizes: Ids,
    starts: Ids,
    mirror: NDArray[np.uint8],
    out: NDArray[np.uint8],
    threads: int = 1,
) -> list[str | None]:
    """Decode crops of n JPEG files into `out` (n, crop, crop, 3); why that fails for a row, or None  # (n,)

    windows (n, 4): top, left, height and width of the part of the picture that is read
    sizes (n, 2): height and width to which it is resized, as Pillow 13's `resize(size, BILINEAR)` does it,
        bit for bit; its own: not at all
    starts (n, 2): top and left of the crop within the resized part
    mirror (n,): where it is not 0, left and right are exchanged

    libjpeg-turbo decodes only rows and columns that are needed, to the bits of decoding all. Grey becomes
    RGB; CMYK is refused. Truncated files fail where needed rows are missing; other damage that libjpeg mends
    is no failure. After one, the row of `out` is undefined. ValueError for a crop outside its resized part.
    """
    return [reason or None for reason in _ops.decode(jpegs, windows, sizes, starts, mirror, out, threads)]


def jpeg_faults(jpegs: list[NDArray[np.uint8]], threads: int = 1) -> list[str | None]:
    """Decode all of each JPEG file: why that fails, or what libjpeg warns of first, or None  # (n,)"""
    return [reason or None for reason in _ops.jpeg_faults(jpegs, threads)]


def normalize(
    pixels: NDArray[np.uint8],
    means: NDArray[np.float64],
    deviations: NDArray[np.float64],
    out: NDArray[np.float32],
) -> None:
    """(value - mean) * (1 / deviation) of each channel, in float32  # two (n, height, width, 3), two (3,)

    `out` is overwritten; it must not overlap `pixels`.
    """
    _ops.normalize(pixels, means, deviations, out)


# --- perceptual hashes: cpp/include/hpcscale/phash.hpp

Codes = NDArray[np.uint64]


def pdq(picture: NDArray[np.uint8]) -> tuple[Codes, int]:
    """PDQ's 256 bits and its quality, 0 to 100, as Meta's implementation gives them  # (4,)

    picture: luma (h, w) or RGB (h, w, 3). Convert 16-bit and transparent pictures first (Pillow:
    `convert("RGB")`). If a side is below 5, code and quality are 0. Meta's text form is
    `"".join(f"{word:016x}" for word in code)`.
    """
    return _ops.pdq(picture)


def pdq_jpeg(jpeg: NDArray[np.uint8]) -> tuple[Codes, int] | None:
    """PDQ's 256 bits and quality of a JPEG file, without computing its pixels  # (4,)

    From 15 of the 64 coefficients of each block of its luma: a few bits differ from those of `pdq`. None for
    pictures with a side below 257, for damaged files, and for other kinds than 8-bit sequential Huffman JPEGs
    of grey or YCbCr without restart markers: decode those.
    """
    return _ops.pdq_jpeg(jpeg)


def pdq_dihedral(picture: NDArray[np.uint8]) -> tuple[Codes, int]:
    """The codes of a picture and its seven turned and mirrored forms, from one transform  # (8, 4)

    In the order of pdqhash.compute_dihedral: unchanged; turned by 90, 180, 270 degrees anticlockwise;
    mirrored top to bottom, left to right, at the main diagonal (transposed), at the other diagonal.
    """
    return _ops.pdq_dihedral(picture)


def phash(grey: NDArray[np.uint8]) -> int:
    """The 64 bits of imagehash.phash with default sizes; grey (h, w) as Pillow's `convert("L")` gives it.

    `f"{code:016x}"` is imagehash's text form. Raises ValueError if a side is 0.
    """
    return _ops.phash(grey)


def dhash(grey: NDArray[np.uint8]) -> int:
    """The 64 bits of imagehash.dhash with default sizes; otherwise as `phash`."""
    return _ops.dhash(grey)


# --- search among codes: cpp/include/hpcscale/hamming.hpp

Pairs = NDArray[np.int64]


# arguments: the two sets and the radius, and by keyword where pairs go and how they are found
def search(
    a: Codes,
    b: Codes,
    radius: int,
    threads: int = 1,
    *,
    found: Callable[[Pairs], object] | None = None,
    progress: Callable[[float], object] | None = None,
    chunks: int = -1,
    variant: str = "",
) -> Pairs:
    """All (i, j, distance) with a[i] and b[j] at most `radius` bits apart, by (i, j)  # (pairs, 3)

    a, b: (n, words), with 4 words (PDQ) or 1 (pHash, dHash).
    found: gets the pairs as they are found, some thousands at a time, in no order; then none are returned,
        and memory stays bounded.
    progress: gets how much is done, from 0 to 1, in the calling thread.
    chunks: of multi-index hashing; 0: a scan; -1: the planner chooses. Does not change the pairs.
    variant: one of `hamming_variants()`; "": the fastest. Does not change the pairs.

    `found` and `progress` may raise to stop the search; Ctrl-C stops it too.
    """
    return _ops.search(a, b, radius, threads, chunks, variant, found, progress)


def self_join(
    a: Codes,
    radius: int,
    threads: int = 1,
    *,
    found: Callable[[Pairs], object] | None = None,
    progress: Callable[[float], object] | None = None,
    chunks: int = -1,
    variant: str = "",
) -> Pairs:
    """`search` within one set: every pair i < j once."""
    return _ops.search(a, None, radius, threads, chunks, variant, found, progress)


def plan(a: Codes, b: Codes | None, radius: int) -> int:
    """What `search` (b None: `self_join`) would choose: chunks of multi-index hashing, or 0 for a scan."""
    return _ops.plan(a, b, radius)


def hamming_variants() -> list[str]:
    """Variants of the distance kernel that this processor can run, slowest first."""
    return _ops.hamming_variants()


# --- order: cpp/include/hpcscale/permute.hpp


def permute(
    indices: NDArray[np.int64],
    samples: int,
    keys: NDArray[np.uint64],
    ends: NDArray[np.int64] | None = None,
    *,
    back: bool = False,
) -> NDArray[np.int64]:
    """A keyed bijection of range(samples), or `back` its inverse  # (n,) -> (n,)

    keys: (1,), or (n,) for one of each index. ends (n,): each index has its own range(end), at most
    `samples`. ValueError for an index outside its range.
    """
    return _ops.permute(indices, samples, keys, ends, back)


# --- boxes, all float32 or all float64: cpp/include/hpcscale/nms.hpp and roi_align.hpp

How = tuple[float, int, bool]  # scale (1 / stride), points of a bin along a side (<= 0: enough), aligned


def nms(boxes: Numbers, scores: Numbers, threshold: float) -> NDArray[np.int64]:
    """Boxes left by non-maximum suppression, best first: not IoU > threshold  # (n, 4), (n,) -> (kept,)"""
    return (_ops.nms_32 if boxes.dtype == np.float32 else _ops.nms_64)(boxes, scores, threshold)


def roi_align(maps: Numbers, rois: Numbers, how: How, threads: int, out: Numbers) -> None:
    """Maps (n, h, w, channels) below rois (k, 5), in bins: out (k, rows, columns, channels).

    ValueError, IndexError name a box that is not finite, or of maps that are not there.
    """
    (_ops.roi_align_32 if maps.dtype == np.float32 else _ops.roi_align_64)(maps, rois, how, threads, out)


def roi_align_gradient(gradient: Numbers, rois: Numbers, how: How, threads: int, maps: Numbers) -> None:
    """Add to `maps` the gradient by them, of `gradient` by `out` of `roi_align`; errors as there."""
    single = gradient.dtype == np.float32
    add = _ops.roi_align_gradient_32 if single else _ops.roi_align_gradient_64
    add(gradient, rois, how, threads, maps)
