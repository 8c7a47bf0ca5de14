"""ops.pdq_jpeg: PDQ from the coefficients of a JPEG file, beside PDQ of its pixels and pdqhash.

cpp/tests/test_pdq_jpeg.cpp compares every layout with libjpeg's coefficients, and reads damaged files, under
sanitizers.
"""

import io

import numpy as np
import pdqhash
import pytest
import simplejpeg
from ops.test_phash import differing, photographs, words
from PIL import Image
from reference import pdq as reference
from skimage import data

from hpcscale import ops
from hpcscale.dedup.perceptual import hash_picture

LAYOUTS = ("444", "422", "420", "440", "411", "Gray")


def encode(pixels: np.ndarray, layout: str) -> bytes:
    if layout == "Gray":
        grey = np.ascontiguousarray(pixels[:, :, 1:2])
        return bytes(simplejpeg.encode_jpeg(grey, colorspace="GRAY", colorsubsampling="Gray"))
    return bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), colorsubsampling=layout))


def pdq_jpeg(jpeg: bytes) -> tuple[np.ndarray, int] | None:
    return ops.pdq_jpeg(np.frombuffer(jpeg, np.uint8))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_it_is_pdq_of_the_low_frequencies(layout: str) -> None:
    """Of pixels that were rounded and cut: so a bit near the median may differ, and no more than four do."""
    for pixels in (data.astronaut(), data.chelsea()[:299, 3:444], data.coffee()[10:300, :599]):
        jpeg = encode(pixels, layout)
        low = reference.low_frequencies(simplejpeg.decode_jpeg(jpeg, "GRAY")[:, :, 0])
        rounded = np.clip(np.rint(low), 0, 255).astype(np.uint8)
        found = pdq_jpeg(jpeg)
        assert found is not None
        expected, quality = reference.pdq(np.repeat(rounded[:, :, None], 3, axis=2))
        assert differing(found[0], expected) <= 4
        assert abs(found[1] - quality) <= 1


def test_it_is_within_ten_bits_of_pdqhash_on_every_photograph() -> None:
    far = {}
    for file in photographs():
        jpeg = file.read_bytes()
        found = pdq_jpeg(jpeg)
        pixels = np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB"))
        assert (found is None) == (min(pixels.shape[:2]) < 257)
        if found is None:
            continue
        bits, quality = pdqhash.compute(pixels)
        if quality >= 80 and (distance := differing(found[0], words(bits))) > 6:  # 10 are allowed
            far[file.name] = distance
    assert not far


def test_the_hash_of_an_ordinary_jpeg_comes_from_coefficients_and_of_others_from_pixels() -> None:
    image = Image.fromarray(data.astronaut())
    for options in ({}, {"progressive": True}, {"restart_marker_blocks": 4}, {"keep_rgb": True}):
        out = io.BytesIO()
        image.save(out, "JPEG", **options)  # type: ignore[arg-type]
        found = pdq_jpeg(out.getvalue())
        assert (found is None) == bool(options), options
        grey = simplejpeg.decode_jpeg(out.getvalue(), "GRAY")[:, :, 0]
        expected = ops.pdq(np.ascontiguousarray(grey)) if found is None else found
        code, quality = hash_picture(out.getvalue(), "pdq")
        assert (code.tolist(), quality) == (expected[0].tolist(), expected[1])
