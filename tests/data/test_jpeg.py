"""Damaged and odd JPEGs: what is stored is what libjpeg decodes without a warning and what DALI takes."""

import io
import random
import struct

import numpy as np
import pytest
import torch
from PIL import Image
from places import PHOTOGRAPHS
from skimage import data as photographs
from stored import Pictures

from hpcscale.config import Input
from hpcscale.data import jpeg as module
from hpcscale.data.jpeg import BadPicture, decode, tidy
from hpcscale.dedup.perceptual import grey_or_rgb, hash_picture
from hpcscale.ingest.transcode import transcode
from hpcscale.inputs import pipeline

SIDE = 64
PHOTOGRAPH = Image.fromarray(photographs.astronaut()[60:380, 100:420]).resize((SIDE, SIDE))


def encoded(image: Image.Image = PHOTOGRAPH, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, "JPEG", **options)
    return out.getvalue()


def segment(marker: int, content: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(content) + 2) + content


def exif(orientation: int) -> bytes:
    found = Image.Exif()
    found[0x0112] = orientation
    return segment(0xE1, found.tobytes())


def xmp(orientation: int) -> bytes:
    text = f'<x:xmpmeta><rdf:Description tiff:Orientation="{orientation}"/></x:xmpmeta>'
    return segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + text.encode())


def put(content: bytes, before: int, jpeg: bytes) -> bytes:
    """`content` in the header, before the first segment of that marker."""
    at = jpeg.index(bytes((0xFF, before)))
    return jpeg[:at] + content + jpeg[at:]


def by_dali(jpegs: list[bytes]) -> dict[int, str]:
    """The samples that the pipeline refuses or of which libjpeg warns."""
    return {bad.sample: bad.reason for bad in pipeline.undecodable(Pictures(jpegs, None), 1)}  # type: ignore[arg-type]


GOOD = encoded()
DQT, DHT, SOS = 0xDB, 0xC4, 0xDA


@pytest.mark.parametrize(
    "junk", [b"\0", b"\0\0", b"ab", b"\xff\0", b"\xff\xd3", b"\xff\x01", b"\xff\xe3\0\0", b"\xff\xe3\0\1"]
)
@pytest.mark.parametrize("before", [DQT, DHT, SOS])
@pytest.mark.parametrize("options", [{}, {"progressive": True}])
def test_junk_between_segments_is_taken_out_and_nothing_else(
    junk: bytes, before: int, options: dict[str, object]
) -> None:
    good = encoded(**options)
    broken = put(junk, before, good)
    assert transcode(broken, None, 90) == good
    assert transcode(broken, 32, 90) == transcode(good, 32, 90)
    assert hash_picture(broken, "pdq")[0].tolist() == hash_picture(good, "pdq")[0].tolist()


def test_what_decoders_take_stays_byte_for_byte() -> None:
    corrupt = segment(0xE1, b"Exif\0\0MM\0*\xff\xff\xff\xff")
    headers = [put(content, DQT, GOOD) for content in (b"\xff" * 9, corrupt, segment(0xFE, b""))]
    kinds = [encoded(restart_marker_blocks=2), encoded(keep_rgb=True), encoded(subsampling="4:1:1")]
    for jpeg in (*headers, *kinds, GOOD + b"a film behind it", GOOD + GOOD):
        assert transcode(jpeg, None, 90) is jpeg
        assert by_dali([jpeg]) == {}


def test_numbers_that_mean_nothing_are_set_right() -> None:
    at = GOOD.index(b"\xff\xda") + 11
    assert GOOD[at : at + 3] == b"\0\x3f\0"
    camera = GOOD[:at] + bytes(3) + GOOD[at + 3 :]
    version = GOOD.replace(b"JFIF\0\1", b"JFIF\0\2", 1)
    assert camera != GOOD != version
    assert [transcode(jpeg, None, 90) for jpeg in (camera, version)] == [GOOD, GOOD]


def test_a_file_that_ends_within_a_segment_is_cut() -> None:
    jpeg = encoded()
    for length in range(2, 40):
        with pytest.raises(BadPicture, match=r"cut within its header|no end marker"):
            tidy(jpeg[:length])


def damaged(jpeg: bytes) -> dict[str, bytes]:
    scan = jpeg.index(b"\xff\xda") + 14
    half = (scan + len(jpeg)) // 2
    zeroed = jpeg[:half] + bytes(len(jpeg) - half - 2) + b"\xff\xd9"
    return {
        "cut and closed": jpeg[:half] + b"\xff\xd9",
        "zeroed tail": zeroed,
        "zeroed to the end": zeroed[:-2] + b"\0\0",
        "cut": jpeg[:half],
        "no end marker": jpeg[:-2],
        "the middle is missing": jpeg[: half - 150] + jpeg[half + 150 :],
        "no scan": jpeg[: scan - 14] + b"\xff\xd9",
    }


@pytest.mark.parametrize("kind", list(damaged(GOOD)))
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"mode": "L"}, {"mode": "CMYK"}])
def test_damage_that_decoders_paint_over_is_refused(kind: str, options: dict[str, str]) -> None:
    image = PHOTOGRAPH.convert(options.get("mode", "RGB"))
    broken = damaged(encoded(image, **{k: v for k, v in options.items() if k != "mode"}))[kind]
    for resize in (None, 8, 32):
        with pytest.raises(BadPicture):
            transcode(broken, resize, 90)
    with pytest.raises(BadPicture):
        grey_or_rgb(broken)


def test_the_reason_is_libjpegs() -> None:
    with pytest.raises(
        BadPicture, match="cannot be decoded: Corrupt JPEG data: premature end of data segment"
    ):
        transcode(damaged(GOOD)["cut and closed"], None, 90)
    with pytest.raises(BadPicture, match="truncated"):
        transcode(damaged(GOOD)["cut"], None, 90)


def with_scans(count: int) -> bytes:
    """A progressive JPEG whose last scan, of nothing but ends of bands, comes again and again."""
    jpeg = encoded(progressive=True)
    starts = [at for at in range(len(jpeg)) if jpeg[at : at + 2] == b"\xff\xda"]
    last = jpeg[starts[-1] : -2]
    return jpeg[:-2] + last * (count - len(starts)) + b"\xff\xd9"


def test_scans_have_a_limit_for_files_and_for_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    for work in (lambda: transcode(with_scans(65), None, 90), lambda: transcode(with_scans(300), 32, 90),
                 lambda: hash_picture(with_scans(65), "pdq")):  # fmt: skip
        with pytest.raises(BadPicture, match="more than the 64 scans that are allowed for 4,096 pixels"):
            work()
    tidy(with_scans(64))
    monkeypatch.setattr(module, "MAX_WORK", 20 * SIDE**2)
    tidy(with_scans(20))
    with pytest.raises(BadPicture, match="more than the 20 scans"):
        tidy(with_scans(21))
    with pytest.raises(BadPicture, match="more than 4,096 segments"):
        tidy(put(segment(0xFE, b"") * 5000, DQT, GOOD))


def test_of_a_scaled_decode_the_bits_are_pillows() -> None:
    image = Image.fromarray(photographs.astronaut())
    for options in ({}, {"progressive": True}, {"subsampling": "4:4:4"}, {"mode": "L"}):
        mode = str(options.pop("mode", "RGB"))
        jpeg = encoded(image.convert(mode).crop((0, 0, 501, 333)), **options)
        for least in (20, 41, 83, 166, 300):
            pillow = Image.open(io.BytesIO(jpeg))
            pillow.draft(None, (least, least))
            size = None if pillow.size == (501, 333) else pillow.size
            found = decode(jpeg, mode, size)
            assert np.array_equal(np.squeeze(found), np.asarray(pillow))


@pytest.mark.parametrize(
    ("metadata", "turned"),
    [
        (exif(1) + exif(6), False),
        (exif(6) + exif(1), True),
        (xmp(6), True),
        (exif(1) + xmp(6), False),
        (xmp(1) + exif(6), True),
        (segment(0xE2, bytes(60000)) + segment(0xE2, bytes(60000)) + exif(6), True),
        (b"\0" + exif(6), True),
    ],
)
def test_one_rule_for_orientations(metadata: bytes, turned: bool) -> None:
    """Ingest turns or not; hashes agree with it; and what is stored is turned by nothing downstream."""
    image = PHOTOGRAPH.crop((0, 0, SIDE, 48))
    jpeg = put(metadata, DQT, encoded(image, quality=95))
    stored = transcode(jpeg, None, 95)
    size = (48, SIDE) if turned else (SIDE, 48)
    assert Image.open(io.BytesIO(stored)).size == size
    assert grey_or_rgb(jpeg).shape[:2] == grey_or_rgb(stored).shape[:2] == size[::-1]
    pixels = np.asarray(Image.open(io.BytesIO(stored)).convert("RGB"))
    square = transcode(put(metadata, DQT, encoded(quality=95)), None, 95)
    for content, resize in ((square, None), (stored, SIDE)):  # cut from the file, and resized
        data = Pictures([content, content], None if resize else SIDE)
        (batch,) = pipeline.evaluate_batches(
            data, np.arange(2), Input(crop=SIDE, resize=resize), batch=2, device=torch.device("cpu")  # type: ignore[arg-type]
        )  # fmt: skip
        seen = batch.images[0].numpy().transpose(1, 2, 0).astype(float)
        image = Image.open(io.BytesIO(content)).convert("RGB")
        wanted = np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BILINEAR))
        assert np.abs(seen - wanted).mean() < 3, resize
    assert pixels.shape[:2] == size[::-1]


def test_whatever_is_stored_the_pipeline_decodes() -> None:
    """Bytes of headers and scans changed, put in and taken out, a thousand times."""
    chance = random.Random(1)
    bases = [GOOD, encoded(progressive=True), encoded(PHOTOGRAPH.convert("L")), encoded(subsampling="4:4:4"),
             put(exif(1), DQT, GOOD), encoded(keep_rgb=True), encoded(restart_marker_blocks=2)]  # fmt: skip
    stored = []
    for _ in range(1000):
        content = bytearray(chance.choice(bases))
        top = content.index(b"\xff\xda") + 14 if chance.random() < 0.8 else len(content)
        for _ in range(chance.choice((1, 1, 2))):
            at, what = chance.randrange(2, top), chance.random()
            if what < 0.5:
                content[at] = chance.choice((0, 1, 255, chance.randrange(256)))
            elif what < 0.75:
                content[at:at] = bytes(
                    chance.choice((0, 255, 0xD3, 1)) for _ in range(chance.choice((1, 2, 3)))
                )
            else:
                del content[at : at + chance.choice((1, 2, 3))]
        try:
            stored.append(transcode(bytes(content), None, 90))
        except BadPicture:
            continue
    assert 200 < len(stored) < 900
    assert by_dali(stored) == {}


def test_stored_faults_are_found_by_decoding() -> None:
    """In data sets that were packed before ingest refused them."""
    broken = damaged(GOOD)
    jpegs = [GOOD, put(b"\0\0", DQT, GOOD), GOOD, broken["cut and closed"], broken["zeroed tail"], GOOD]
    found = by_dali(jpegs)
    assert sorted(found) == [1, 3, 4]
    assert "DALI" in found[1]
    assert "premature end of data segment" in found[3]
    whole = pipeline.undecodable(Pictures([GOOD, jpegs[1]], SIDE), 2)  # type: ignore[arg-type]
    assert [(bad.sample, bad.name) for bad in whole] == [(1, "1.jpg")]


FAULTS = PHOTOGRAPHS / "faults"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("cut-and-closed.jpg", "premature end"),
        ("zeroed-tail.jpg", "premature end"),
        ("many-scans.jpg", "more than the 64 scans"),
        ("junk-header.jpg", ""),
        ("two-exif.jpg", ""),
    ],
)
def test_the_reported_files(name: str, reason: str) -> None:
    if not (FAULTS / name).exists():
        pytest.skip(f"no {FAULTS / name}")
    content = (FAULTS / name).read_bytes()
    if reason:
        with pytest.raises(BadPicture, match=reason):
            transcode(content, None, 90)
    else:
        assert by_dali([transcode(content, None, 90)]) == {}
