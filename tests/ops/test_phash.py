"""Hashes against the packages whose codes they must equal: pdqhash (Meta's C++) and imagehash."""

import os
from collections.abc import Iterator
from pathlib import Path

import imagehash
import numpy as np
import pdqhash
import pytest
from PIL import Image
from places import PHOTOGRAPHS
from reference import pdq as reference

from hpcscale import _ops, ops

SAMPLE = Path(os.environ.get("HPCSCALE_SAMPLE", PHOTOGRAPHS / "imagenet-sample"))


def words(bits: np.ndarray) -> np.ndarray:
    """pdqhash's 256 bits, highest first, as our four words."""
    return np.packbits(bits.astype(np.uint8)).view(">u8").astype(np.uint64)


def differing(a: np.ndarray | int, b: np.ndarray | int) -> int:
    return int(np.bitwise_count(np.asarray(a, np.uint64) ^ np.asarray(b, np.uint64)).sum())


def photographs() -> list[Path]:
    files = sorted((SAMPLE / "images").glob("*")) if SAMPLE.is_dir() else []
    if not files:
        pytest.skip(f"no photographs at {SAMPLE}; HPCSCALE_SAMPLE names another place")
    return files


def same(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey.astype(np.uint8)[:, :, None], 3, axis=2)


def synthetic() -> Iterator[tuple[str, np.ndarray]]:
    random = np.random.default_rng(0)
    sizes = [(1, 1), (1, 50), (50, 1), (4, 300), (5, 5), (5, 400), (63, 64), (64, 64), (64, 65), (127, 128)]
    sizes += [(128, 129), (129, 640), (1000, 37), (33, 2000), (8, 9), (32, 32), (33, 31), (65, 32)]
    for height, width in sizes:
        yield f"noise {height} x {width}", random.integers(0, 256, (height, width, 3), np.uint8)
    for value in (0, 1, 100, 255):
        yield f"flat {value}", np.full((300, 400, 3), value, np.uint8)
    for shape in ((333, 500, 3), (64, 64, 3)):
        yield f"flat colour {shape}", np.broadcast_to(np.array([17, 99, 203], np.uint8), shape).copy()
    y, x = np.mgrid[:256, :256]
    yield "gradient across", same(x)
    yield "gradient down", same(y)
    yield "gradient both", same((x + y) // 2)
    yield "checkered", same((y // 16 + x // 16) % 2 * 255)
    yield "half", same((x >= 128) * 255)
    yield "disc", same(((y - 127.5) ** 2 + (x - 127.5) ** 2 < 6000) * 255)
    yield "one dot", same((y == 100) & (x == 30)) * 255
    yield "huge", random.integers(0, 256, (40, 50, 3), np.uint8).repeat(90, axis=0).repeat(90, axis=1)


def converted() -> Iterator[tuple[str, np.ndarray]]:
    """Pictures that must be converted before hashing, by Pillow's `convert("RGB")`."""
    random = np.random.default_rng(1)
    alpha = random.integers(0, 256, (90, 120, 4), np.uint8)
    yield "alpha", np.asarray(Image.fromarray(alpha, "RGBA").convert("RGB")).copy()
    sixteen = np.linspace(0, 65535, 200 * 300).reshape(200, 300).astype(np.uint16)
    grey = Image.fromarray((sixteen >> 8).astype(np.uint8))  # 16 bits: the upper byte
    yield "16-bit", np.asarray(grey.convert("RGB")).copy()


EDGES = {name: picture for source in (synthetic(), converted()) for name, picture in source}


@pytest.mark.parametrize("name", EDGES)
def test_edges_equal_the_reference_packages(name: str) -> None:
    picture = EDGES[name]
    bits, quality = pdqhash.compute(picture)
    code, ours = ops.pdq(picture)
    assert (differing(code, words(bits)), ours) == (0, quality)
    all_bits, quality = pdqhash.compute_dihedral(picture)
    codes, ours = ops.pdq_dihedral(picture)
    assert (differing(codes, np.stack([words(bits) for bits in all_bits])), ours) == (0, quality)
    image = Image.fromarray(picture)
    grey = np.asarray(image.convert("L"))
    assert differing(ops.phash(grey), int(str(imagehash.phash(image)), 16)) <= 2
    assert f"{ops.dhash(grey):016x}" == str(imagehash.dhash(image))


def faint() -> Iterator[tuple[str, np.ndarray]]:
    """Pictures between the qualities of 0 and 100. At 64 x 64 nothing is shrunk: every pixel counts."""
    rows = np.zeros((64, 64))
    rows[-1] = np.arange(64) % 2 * 120
    yield "last row", same(rows)
    yield "last column", same(rows.T)
    yield "first row", same(rows[::-1])
    yield "first column", same(rows.T[:, ::-1])
    random = np.random.default_rng(7)
    for size in ((64, 64), (128, 128), (90, 300)):
        for height in (7, 10, 14, 18):
            yield f"noise of {height} in {size}", random.integers(90, 90 + height, (*size, 3), np.uint8)
        coarse = Image.fromarray(random.integers(100, 140, (8, 8, 3), np.uint8))
        yield f"clouds in {size}", np.array(coarse.resize(size[::-1], Image.Resampling.BICUBIC))


FAINT = dict(faint())


@pytest.mark.parametrize("name", FAINT)
def test_qualities_of_faint_pictures_equal_the_reference_package(name: str) -> None:
    picture = np.ascontiguousarray(FAINT[name])
    bits, quality = pdqhash.compute(picture)
    for variant in _ops.pdq_variants():
        code, found = _ops.pdq_by(variant, picture)
        assert (differing(code, words(bits)), found) == (0, quality), variant
    assert ops.pdq_dihedral(picture)[1] == pdqhash.compute_dihedral(picture)[1]


def test_faint_pictures_have_qualities_in_between() -> None:
    found = {name: ops.pdq(np.ascontiguousarray(picture))[1] for name, picture in FAINT.items()}
    assert sum(0 < quality < 100 for quality in found.values()) >= 12
    assert all(
        0 < found[f"{which} {line}"] < 100 for which in ("first", "last") for line in ("row", "column")
    )


def test_photographs_equal_the_reference_packages() -> None:
    """The bounds are issue 3's; with Pillow 13, every code of all three methods is equal on all 500."""
    pdq, phash, dhash = [], [], []
    for file in photographs():
        image = Image.open(file).convert("RGB")
        picture, grey = np.asarray(image), np.asarray(image.convert("L"))
        bits, quality = pdqhash.compute(picture.copy())
        code, ours = ops.pdq(picture)
        assert ours == quality, file.name
        pdq.append(differing(code, words(bits)))
        phash.append(differing(ops.phash(grey), int(str(imagehash.phash(image)), 16)))
        dhash.append(differing(ops.dhash(grey), int(str(imagehash.dhash(image)), 16)))
    for distances in (pdq, phash, dhash):
        assert np.mean(np.array(distances) == 0) >= 0.99
        assert max(distances) <= 2


def test_dihedral_codes_of_photographs_equal_the_reference() -> None:
    for file in photographs()[:40]:
        picture = np.array(Image.open(file).convert("RGB"))
        expected, _ = pdqhash.compute_dihedral(picture)
        codes, _ = ops.pdq_dihedral(picture)
        np.testing.assert_array_equal(codes, np.stack([words(bits) for bits in expected]))


def test_text_form_is_the_reference_packages() -> None:
    picture = EDGES["noise 129 x 640"]
    bits, _ = pdqhash.compute(picture)
    text = "".join(f"{word:016x}" for word in ops.pdq(picture)[0])
    assert text == f"{int(''.join(map(str, bits)), 2):064x}"


@pytest.mark.parametrize("size", [(5, 6), (64, 64), (70, 300), (500, 129)])
def test_every_variant_equals_the_slow_reference(size: tuple[int, int]) -> None:
    picture = np.random.default_rng(2).integers(0, 256, (*size, 3), np.uint8)
    code, quality = reference.pdq(picture)
    for variant in _ops.pdq_variants():
        ours, found = _ops.pdq_by(variant, picture)
        assert (ours.tolist(), found) == (code.tolist(), quality), variant


def test_wrong_arrays_are_refused() -> None:
    rgb = np.zeros((8, 8, 3), np.uint8)
    for call in (ops.pdq, ops.pdq_dihedral):
        for bad in (
            rgb.astype(np.float64),
            rgb[:, ::2],
            rgb[..., :2].copy(),
            rgb.astype(np.float32),
            rgb[..., 0].astype(np.float32),
            rgb[0, 0],
        ):
            with pytest.raises(TypeError):
                call(bad)
    for call in (ops.phash, ops.dhash):
        with pytest.raises(TypeError):
            call(rgb)
        with pytest.raises(TypeError):
            call(np.zeros((8, 8), np.int16))
        with pytest.raises(ValueError, match="0 x 8"):
            call(np.zeros((0, 8), np.uint8))
