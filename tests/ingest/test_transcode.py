"""Every odd kind of picture: what is stored for it, or why nothing is."""

import io
import os
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from hpcscale.ingest import transcode as module
from hpcscale.ingest.transcode import BadPicture, store_picture, transcode

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")

RED, GREEN, BLUE, WHITE = (200, 30, 20), (20, 180, 40), (30, 40, 210), (255, 255, 255)


def quarters(width: int = 64, height: int = 48) -> Image.Image:
    """Red, green / blue, white: every turn and mirror is told apart."""
    image = Image.new("RGB", (width, height), WHITE)
    image.paste(RED, (0, 0, width // 2, height // 2))
    image.paste(GREEN, (width // 2, 0, width, height // 2))
    image.paste(BLUE, (0, height // 2, width // 2, height))
    return image


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def decoded(jpeg: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(jpeg))
    image.load()
    assert image.format == "JPEG"
    assert image.mode in ("RGB", "L")
    return image


def corners(image: Image.Image) -> list[tuple[int, ...]]:
    """Colours at the middle of the four quarters: top left, top right, bottom left, bottom right."""
    width, height = image.size
    rgb = image.convert("RGB")
    return [
        rgb.getpixel((x, y)) for y in (height // 4, 3 * height // 4) for x in (width // 4, 3 * width // 4)
    ]


def assert_corners(image: Image.Image, expected: list[tuple[int, ...]], tolerance: int = 12) -> None:
    assert np.abs(np.array(corners(image)) - np.array(expected)).max() <= tolerance, corners(image)


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"subsampling": "4:4:4"}, {"comment": b"hello"}]
)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_an_ordinary_jpeg_is_stored_byte_for_byte(mode: str, options: dict[str, object]) -> None:
    jpeg = encoded(quarters().convert(mode), "JPEG", **options)
    assert transcode(jpeg, None, 90) is jpeg


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "AVIF"])
@pytest.mark.parametrize("resize", [None, 32])
def test_every_format_is_read(kind: str, resize: int | None) -> None:
    image = decoded(transcode(encoded(quarters(), kind), resize, 95))
    assert image.size == ((resize, resize) if resize else (64, 48))
    assert_corners(image, [RED, GREEN, BLUE, WHITE])


@pytest.mark.parametrize(
    ("orientation", "expected"),
    [
        (2, [GREEN, RED, WHITE, BLUE]),
        (3, [WHITE, BLUE, GREEN, RED]),
        (4, [BLUE, WHITE, RED, GREEN]),
        (5, [RED, BLUE, GREEN, WHITE]),
        (6, [BLUE, RED, WHITE, GREEN]),
        (7, [WHITE, GREEN, BLUE, RED]),
        (8, [GREEN, WHITE, RED, BLUE]),
    ],
)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("resize", [None, 32])
def test_exif_orientation_is_applied_once(
    kind: str, orientation: int, expected: list[tuple[int, ...]], resize: int | None
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = decoded(transcode(encoded(quarters(), kind, exif=exif), resize, 95))
    assert image.size == ((32, 32) if resize else (64, 48) if orientation < 5 else (48, 64))
    assert_corners(image, expected)
    assert 0x0112 not in image.getexif()


def test_upright_and_damaged_exif_leave_a_jpeg_as_it_is() -> None:
    exif = Image.Exif()
    exif[0x0112] = 1
    for content in (exif.tobytes(), b"Exif\0\0MM\0*\xff\xff\xff\xff", b"Exif\0\0garbage"):
        jpeg = encoded(quarters(), "JPEG", exif=content)
        assert transcode(jpeg, None, 90) is jpeg


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_becomes_rgb(kind: str) -> None:
    image = decoded(transcode(encoded(quarters().convert("CMYK"), kind), None, 95))
    assert image.mode == "RGB"
    assert_corners(image, [RED, GREEN, BLUE, WHITE])


def test_of_16_bit_grey_the_high_byte_is_kept() -> None:
    ramp = np.linspace(0, 65535, 64 * 64).astype(np.uint16).reshape(64, 64)
    pgm = b"P5 64 64 65535\n" + ramp.astype(">u2").tobytes()
    for content in (encoded(Image.fromarray(ramp), "PNG"), encoded(Image.fromarray(ramp), "TIFF"), pgm):
        image = decoded(transcode(content, None, 100))
        assert image.mode == "L"
        assert np.abs(np.asarray(image).astype(int) - (ramp >> 8)).max() <= 2


def test_of_16_bit_colour_the_high_byte_is_kept() -> None:
    pixels = np.broadcast_to(np.array([0xC8FF, 0x1E01, 0x1480], ">u2"), (16, 16, 3))
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", 16, 16, 16, 2, 0, 0, 0)
    png = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )
    assert_corners(decoded(transcode(png, None, 95)), [(0xC8, 0x1E, 0x14)] * 4)


@pytest.mark.parametrize("mode", ["F", "I"])
def test_pictures_without_an_agreed_range_are_refused(mode: str) -> None:
    with pytest.raises(BadPicture, match="no agreed range"):
        transcode(encoded(Image.new(mode, (8, 8), 3), "TIFF"), None, 90)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_frame_of_an_animation_is_kept(kind: str) -> None:
    frames = [Image.new("RGB", (32, 32), colour) for colour in (RED, GREEN, BLUE)]
    content = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    assert_corners(decoded(transcode(content, None, 95)), [RED] * 4)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_what_is_transparent_lies_over_white(kind: str) -> None:
    image = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    image.paste((*RED, 255), (0, 0, 32, 32))
    image.paste((*BLUE, 128), (32, 0, 64, 32))
    half = tuple((c * 128 + 255 * 127) // 255 for c in BLUE)
    for resize in (None, 32):
        content = encoded(image, kind, **({"lossless": True} if kind == "WEBP" else {}))
        assert_corners(decoded(transcode(content, resize, 95)), [RED, half, WHITE, WHITE])


def test_transparent_palettes_and_greys_lie_over_white() -> None:
    palette = quarters().convert("P", palette=Image.Palette.ADAPTIVE, colors=4)
    clear = palette.getpixel((16, 12))  # what was red
    for kind in ("PNG", "GIF"):
        content = encoded(palette, kind, transparency=clear)
        assert_corners(decoded(transcode(content, None, 95)), [WHITE, GREEN, BLUE, WHITE])
    grey = Image.merge("LA", (Image.new("L", (16, 16), 40), Image.new("L", (16, 16), 0)))
    image = decoded(transcode(encoded(grey, "PNG"), None, 95))
    assert image.mode == "L"
    assert_corners(image, [WHITE] * 4)


@pytest.mark.parametrize(("mode", "stored"), [("1", "L"), ("L", "L"), ("P", "RGB")])
def test_grey_stays_grey_and_palettes_become_rgb(mode: str, stored: str) -> None:
    assert decoded(transcode(encoded(quarters().convert(mode), "PNG"), None, 90)).mode == stored


@pytest.mark.parametrize("resize", [None, 32])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "TIFF"])
def test_a_cut_picture_is_refused_wherever_it_is_cut(kind: str, resize: int | None) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    content = encoded(Image.fromarray(noise), kind)
    for part in (0.05, 0.3, 0.6, 0.95):
        with pytest.raises(BadPicture):
            transcode(content[: int(len(content) * part)], resize, 90)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"\0" * 1000, "not a picture"),
        (b"<html>404</html>", "not a picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture"),  # would start Ghostscript
        (b"\xff\xd8\xff", "not a picture"),
    ],
)
def test_what_is_no_picture_is_refused(content: bytes, reason: str) -> None:
    with pytest.raises(BadPicture, match=reason):
        transcode(content, 32, 90)


@pytest.mark.parametrize(
    ("width", "height", "reason"),
    [
        (7241, 7241, "7241 x 7241 pixels to decode are more than 52,428,800"),
        (20_000, 20_000, "more than 178,956,970 pixels"),
        (2**31 - 1, 2**31 - 1, "more than 178,956,970 pixels"),
    ],
)
def test_a_gigantic_picture_is_refused_before_it_is_decoded(width: int, height: int, reason: str) -> None:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n"
    for kind, content in ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000)))):
        png += (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )
    with pytest.raises(BadPicture, match=reason):
        transcode(png, 32, 90)


def test_what_a_jpeg_is_reduced_to_while_decoding_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PIXELS", 100 * 100)
    image = quarters(640, 480)
    assert decoded(transcode(encoded(image, "JPEG"), 16, 90)).size == (16, 16)
    for content, resize in (
        (encoded(image, "JPEG"), None),
        (encoded(image, "JPEG"), 100),
        (encoded(image, "JPEG", progressive=True), 16),
        (encoded(image, "PNG"), 16),
    ):
        with pytest.raises(BadPicture, match="more than 10,000"):
            transcode(content, resize, 90)


def test_a_side_too_long_for_a_jpeg_is_refused_or_resized() -> None:
    content = encoded(Image.new("L", (70_000, 2)), "PNG")
    with pytest.raises(BadPicture, match="65500"):
        transcode(content, None, 90)
    assert decoded(transcode(content, 16, 90)).size == (16, 16)


def test_a_large_file_is_refused_unread(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BYTES", 100)
    file = tmp_path / "a.jpg"
    file.write_bytes(bytes(101))
    assert "more than 100" in store_picture(str(file), 0, -1, None, 90).reason


def test_files_that_cannot_be_read_say_why(tmp_path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "short").write_bytes(b"12345")
    for name, size, reason in (
        ("missing", -1, "No such file"),
        ("pipe", -1, "not a regular file"),
        ("", -1, "not a regular file"),
        ("short", 9, "ends after 5 of 9 bytes"),
        ("x" * 300, -1, "File name too long"),
    ):
        assert reason in store_picture(os.path.join(tmp_path, name), 0, size, None, 90).reason


def test_draft_decoding_cannot_be_seen() -> None:
    """A large JPEG decoded at 1/2 to 1/8 first, against the full decode: less than JPEG coding costs."""
    y, x = np.mgrid[0:1200, 0:1600] / 60
    waves = np.stack([np.sin(x) * np.cos(y), np.sin(x + y), np.cos(x * y / 9)], -1) * 100 + 128
    image = Image.fromarray(waves.astype(np.uint8))
    direct = image.resize((128, 128), Image.Resampling.BILINEAR)
    drafted = decoded(transcode(encoded(image, "JPEG", quality=95, subsampling="4:4:4"), 128, 95))
    coded = decoded(encoded(direct, "JPEG", quality=95, subsampling="4:2:0"))
    errors = [np.abs(np.asarray(i).astype(float) - np.asarray(direct)).mean() for i in (drafted, coded)]
    assert errors[0] < errors[1] + 1.0


def test_metadata_is_not_copied_and_bytes_repeat() -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    content = encoded(quarters(), "JPEG", exif=exif, comment=b"secret", icc_profile=b"x" * 200)
    first = transcode(content, None, 90)
    assert b"secret" not in first
    assert first == transcode(content, None, 90)
    assert len(transcode(content, None, 95)) > len(first)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damage_is_stored_or_refused_with_the_same_words_and_never_crashes(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "PPM"]))
    content = bytearray(encoded(quarters(), kind))
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    outcomes = []
    for _ in range(2):
        try:
            outcomes.append(transcode(bytes(content), 16, 90))
        except BadPicture as error:
            outcomes.append(str(error).encode())
    assert outcomes[0] == outcomes[1]
