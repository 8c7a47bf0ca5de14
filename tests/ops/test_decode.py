"""ops.decode against Pillow: decode all, cut the window, resize it, cut the crop, mirror it.

cpp/tests/test_decode.cpp compares every crop of every layout of a JPEG file, under sanitizers.
"""

import io
import threading

import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from hpcscale import ops

LAYOUTS = ("444", "422", "420", "440", "411", "Gray")


def encode(height: int, width: int, layout: str, seed: int = 0) -> bytes:
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (height // 5 + 1, width // 5 + 1, 3), np.uint8)
    pixels = np.array(Image.fromarray(coarse).resize((width, height), Image.Resampling.BILINEAR))
    if layout == "Gray":
        return bytes(
            simplejpeg.encode_jpeg(pixels[:, :, :1].copy(), colorspace="GRAY", colorsubsampling="Gray")
        )
    return bytes(simplejpeg.encode_jpeg(pixels, colorsubsampling=layout))


def pixels_of(jpeg: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB"))


def reference(jpeg: bytes, window, size, start, mirror, crop: int) -> np.ndarray:
    (top, left, height, width), (rows, columns), (y, x) = window, size, start
    part = Image.fromarray(pixels_of(jpeg)[top : top + height, left : left + width])
    resized = np.asarray(part.resize((columns, rows), Image.Resampling.BILINEAR))
    cut = resized[y : y + crop, x : x + crop]
    return cut[:, ::-1] if mirror else cut


def decode(jpegs: list[bytes], windows, sizes, starts, mirror, crop: int, threads: int = 1):
    out = np.zeros((len(jpegs), crop, crop, 3), np.uint8)
    files = [np.frombuffer(jpeg, np.uint8) for jpeg in jpegs]
    rows = (np.array(values, np.int32) for values in (windows, sizes, starts))
    return ops.decode(files, *rows, np.array(mirror, np.uint8), out, threads), out


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_decode_is_pillows_decode_crop_resize_crop_bit_for_bit(data: st.DataObject) -> None:
    def draw(low: int, high: int) -> int:
        return data.draw(st.integers(low, high))

    height, width = draw(1, 120), draw(1, 120)
    jpeg = encode(height, width, data.draw(st.sampled_from(LAYOUTS)), draw(0, 9))
    top, left = draw(0, height - 1), draw(0, width - 1)
    window = (top, left, draw(1, height - top), draw(1, width - left))
    size = tuple(data.draw(st.one_of(st.just(side), st.integers(1, 100))) for side in window[2:])
    crop = draw(1, min(size))
    start, mirror = (draw(0, size[0] - crop), draw(0, size[1] - crop)), draw(0, 1)
    reasons, out = decode([jpeg], [window], [size], [start], [mirror], crop)
    assert reasons == [None]
    np.testing.assert_array_equal(out[0], reference(jpeg, window, size, start, mirror, crop))


def test_height_that_loses_much_more_shrinks_first() -> None:
    jpeg = encode(400, 60, "420")
    window, size = (0, 0, 400, 60), (24, 40)
    reasons, out = decode([jpeg], [window], [size], [(2, 11)], [0], 20)
    assert reasons == [None]
    np.testing.assert_array_equal(out[0], reference(jpeg, window, size, (2, 11), 0, 20))


@pytest.mark.parametrize("keys", [{"progressive": True}, {"restart_marker_blocks": 3}, {"optimize": True}])
def test_files_as_pillow_writes_them(keys: dict) -> None:
    stream = io.BytesIO()
    Image.fromarray(pixels_of(encode(90, 110, "444"))).save(stream, "JPEG", quality=70, **keys)
    jpeg = stream.getvalue()
    starts = [(top, left) for top in range(0, 60, 7) for left in range(0, 80, 11)]
    n = len(starts)
    reasons, out = decode([jpeg] * n, [(0, 0, 90, 110)] * n, [(90, 110)] * n, starts, [0] * n, 30, threads=2)
    assert reasons == [None] * n
    for crop, (top, left) in zip(out, starts, strict=True):
        np.testing.assert_array_equal(crop, pixels_of(jpeg)[top : top + 30, left : left + 30])


def test_rows_fail_alone_and_say_why() -> None:
    good = encode(64, 64, "420")
    cmyk = io.BytesIO()
    Image.new("CMYK", (64, 64)).save(cmyk, "JPEG")
    bad = [b"", bytes(99), good[: len(good) * 4 // 5], cmyk.getvalue(), encode(20, 64, "420")]
    jpegs = [good, *bad, good]
    n = len(jpegs)
    rows = [(0, 0, 64, 64)] * n, [(64, 64)] * n, [(40, 3)] * n, [0] * n
    for threads in (1, 4):
        reasons, out = decode(jpegs, *rows, 20, threads)
        assert reasons[0] is reasons[-1] is None
        for reason, words in zip(
            reasons[1:-1], ("truncated", "Not a JPEG", "truncated", "CMYK", "it is 20 x 64"), strict=True
        ):
            assert words in (reason or "")
        np.testing.assert_array_equal(out[0], out[-1])
    # Only rows that a crop needs must be there; other damage is not a failure.
    assert decode([bad[2]], [(0, 0, 64, 64)], [(64, 64)], [(0, 3)], [0], 20)[0] == [None]


def without(jpeg: bytes, marker: int) -> bytes:
    """The file without the segments of a marker in its header."""
    at, kept = 2, jpeg[:2]
    while jpeg[at + 1] != 0xDA:
        end = at + 2 + int.from_bytes(jpeg[at + 2 : at + 4])
        kept += b"" if jpeg[at + 1] == marker else jpeg[at:end]
        at = end
    return kept + jpeg[at:]


def test_nothing_of_the_picture_before_is_left() -> None:
    """Files without Huffman tables mean the standard ones; without quantisation tables they are refused."""
    stream = io.BytesIO()
    Image.fromarray(pixels_of(encode(64, 64, "444"))).save(stream, "JPEG", optimize=True, quality=30)
    own = stream.getvalue()
    plain = encode(64, 64, "420", seed=1)
    bare, blind = without(plain, 0xC4), without(plain, 0xDB)
    jpegs = [own, bare, own, blind]
    n = len(jpegs)
    reasons, out = decode(jpegs, [(0, 0, 64, 64)] * n, [(64, 64)] * n, [(0, 0)] * n, [0] * n, 64)
    assert reasons[:3] == [None] * 3
    np.testing.assert_array_equal(out[1], pixels_of(plain))
    assert reasons[3] is not None
    assert "Quantization table" in reasons[3]
    assert ops.jpeg_faults([np.frombuffer(jpeg, np.uint8) for jpeg in jpegs[:3]]) == [None] * 3


def test_faults_are_failures_and_warnings_anywhere() -> None:
    good = encode(64, 64, "420")
    damaged = good[:-2] + bytes(30) + good[-2:]
    files = [np.frombuffer(jpeg, np.uint8) for jpeg in (good, good[:-2], damaged)]
    fine, truncated, warned = ops.jpeg_faults(files, 2)
    assert fine is None
    assert "truncated" in (truncated or "")
    assert "extraneous bytes" in (warned or "")


def test_decode_rejects_instead_of_copying() -> None:
    jpeg = np.frombuffer(encode(16, 16, "420"), np.uint8)
    windows, sizes, starts = (np.array([values], np.int32) for values in ([0, 0, 16, 16], [16, 16], [0, 0]))
    mirror, out = np.zeros(1, np.uint8), np.zeros((1, 8, 8, 3), np.uint8)
    with pytest.raises(TypeError, match="int64"):
        ops.decode([jpeg], windows.astype(np.int64), sizes, starts, mirror, out)
    with pytest.raises(ValueError, match="4 numbers a row"):
        ops.decode([jpeg], sizes, sizes, starts, mirror, out)
    with pytest.raises(ValueError, match="crop, crop, 3"):
        ops.decode([jpeg], windows, sizes, starts, mirror, np.zeros((1, 8, 9, 3), np.uint8))
    with pytest.raises(ValueError, match="1 pictures"):
        ops.decode([jpeg], windows, sizes, starts, mirror, np.zeros((2, 8, 8, 3), np.uint8))
    with pytest.raises(ValueError, match=r"row 0: rows of a window .* no crop of 8 from 9 on"):
        ops.decode([jpeg], windows, sizes, starts + np.int32(9), mirror, out)
    with pytest.raises(ValueError, match="threads"):
        ops.decode([jpeg], windows, sizes, starts, mirror, out, 0)


def test_the_lock_of_the_interpreter_is_released() -> None:
    jpeg = encode(900, 900, "420")
    done = threading.Event()

    def work() -> None:
        n = 40
        decode([jpeg] * n, [(0, 0, 900, 900)] * n, [(900, 900)] * n, [(0, 0)] * n, [0] * n, 900)
        done.set()

    thread = threading.Thread(target=work)
    thread.start()
    turns = 0
    while not done.wait(0.001):
        turns += 1
    thread.join()
    assert turns > 5
