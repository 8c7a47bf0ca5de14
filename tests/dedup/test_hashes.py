"""dedup hash and print: every kind of source, damage, kill -9, array tasks, agreement with other packages."""

import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import imagehash
import numpy as np
import pdqhash
import pytest
from click.testing import CliRunner
from PIL import Image, ImageOps
from places import PHOTOGRAPHS
from tasks import NO_LOCKS

from hpcscale.cli import main
from hpcscale.data.codes import quarantined, read_codes
from hpcscale.data.manifest import DataError
from hpcscale.data.parts import locked
from hpcscale.dedup import hashes
from hpcscale.dedup.hashes import OptionError, hash_source
from hpcscale.dedup.perceptual import hash_picture
from hpcscale.ingest.packing import Packing, ingest
from hpcscale.ingest.sources import SourceError

SAMPLE = PHOTOGRAPHS / "imagenet-sample"
ORIENTATION = 0x0112


def picture(seed: int, size: tuple[int, int] = (90, 70)) -> Image.Image:
    """Smooth, so that JPEG leaves it as it is; about as much in it as in a photograph."""
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def make_pictures(folder: Path, count: int = 12) -> Path:
    """A plain folder: pictures at two depths, one that is none, and a file that is not meant to be one."""
    (folder / "deep" / "er").mkdir(parents=True)
    for number in range(count):
        picture(number).save(folder / ("deep/er" if number % 3 else "") / f"{number:02}.jpg", quality=95)
    (folder / "deep" / "torn.jpg").write_bytes((folder / "00.jpg").read_bytes()[:900])
    (folder / "README.txt").write_text("not a picture")
    return folder


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashes, "PART_ROWS", 4)


def command(*arguments: str | Path, pause: float = 0.05) -> list[str]:
    """Parts of 4, each some seconds late, so that a kill finds something to interrupt."""
    code = (
        "import hpcscale.dedup.hashes as h; h.PART_ROWS = 4; write = h.write_codes; "
        f"import time; h.write_codes = lambda *a: (time.sleep({pause}), write(*a)); "
        "from hpcscale.cli import main; main()"
    )
    return [sys.executable, "-c", code, "dedup", *map(str, arguments)]


def distance(one: np.ndarray, other: np.ndarray) -> int:
    return int(np.bitwise_count(one ^ other).sum())


def test_a_plain_folder(tmp_path: Path, small_parts: None) -> None:
    source = make_pictures(tmp_path / "source")
    codes = hash_source(source, tmp_path / "out.h5", workers=2)
    assert codes is not None
    assert list(codes.names) == sorted(f"{'deep/er/' if n % 3 else ''}{n:02}.jpg" for n in range(12))
    assert [found["name"] for found in quarantined(codes)] == ["deep/torn.jpg"]
    for name, code, quality in zip(codes.names, codes.codes, codes.quality, strict=True):
        expected, expected_quality = hash_picture((source / name).read_bytes(), "pdq")
        np.testing.assert_array_equal(code, expected)
        assert quality == expected_quality
    assert sorted(os.listdir(tmp_path)) == ["out.h5", "source"]


def test_the_quarantine_says_why(tmp_path: Path, small_parts: None) -> None:
    """In the file, and where the command tells of it: of a source that is read, and of one that is listed."""
    source = make_pictures(tmp_path / "source", 3)
    shutil.rmtree(source / "deep")
    (source / "a.jpg").touch()
    (source / "b.png").write_bytes(b"no picture at all")
    whole = io.BytesIO()
    picture(3).save(whole, "JPEG")
    (source / "c.jpg").write_bytes(whole.getvalue()[:-300])
    names = ["a.jpg", "b.png", "c.jpg", "d.jpg"]
    listed = [json.dumps({"image": name, "tags": []}) + "\n" for name in ["00.jpg", *names]]
    (source / "manifest.jsonl").write_text("".join(listed))
    codes = hash_source(source, tmp_path / "out.h5", workers=1)
    assert codes is not None
    found = list(quarantined(codes))
    assert [each["name"] for each in found] == names
    for each, reason in zip(found, ["empty", "not a picture", "runcated", "No such file"], strict=True):
        assert reason in each["reason"]
    result = CliRunner().invoke(main, ["dedup", "hash", str(source), str(tmp_path / "out.h5")])
    assert result.exit_code == 1
    for each in found:
        assert f"{each['name']}: {each['reason']}" in result.output
    with tarfile.open(tmp_path / "some.tar", "w") as tar:
        tar.add(source / "00.jpg", "one.jpg")
        tar.add(source / "manifest.jsonl", "two.txt")  # known to be bad before anything is read
    codes = hash_source(tmp_path / "some.tar", tmp_path / "tar.h5", workers=1)
    assert codes is not None
    (each,) = quarantined(codes)
    assert "two" in each["name"]
    assert "no picture among" in each["reason"]


def test_the_file_does_not_depend_on_workers_parts_or_tasks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_pictures(tmp_path / "source")
    hash_source(source, tmp_path / "whole.h5", "dhash", workers=1)
    monkeypatch.setattr(hashes, "PART_ROWS", 3)
    hash_source(source, tmp_path / "parts.h5", "dhash", workers=3)
    for task in (2, 0):
        assert hash_source(source, tmp_path / "tasks.h5", "dhash", workers=1, part=(task, 3)) is None
    assert not (tmp_path / "tasks.h5").exists()
    hash_source(source, tmp_path / "tasks.h5", "dhash", workers=1)  # does what task 1 did not
    expected = (tmp_path / "whole.h5").read_bytes()
    assert (tmp_path / "parts.h5").read_bytes() == expected
    assert (tmp_path / "tasks.h5").read_bytes() == expected


def test_folders_manifest_tars_and_shards_agree(tmp_path: Path, small_parts: None) -> None:
    source = make_pictures(tmp_path / "source")
    (source / "deep" / "torn.jpg").unlink()
    plain = hash_source(source, tmp_path / "plain.h5", workers=1)
    assert plain is not None
    with tarfile.open(tmp_path / "pictures.tar", "w") as tar:
        for name in plain.names:
            tar.add(source / name, name.replace("/", "_"))
    in_tar = hash_source(tmp_path / "pictures.tar", tmp_path / "tar.h5", workers=1)
    lines = [json.dumps({"image": name, "tags": []}) + "\n" for name in plain.names]
    (source / "manifest.jsonl").write_text("".join(lines))
    listed = hash_source(source, tmp_path / "manifest.h5", workers=1)
    ingest(source, tmp_path / "data", packing=Packing(shard_samples=5), workers=1)
    stored = hash_source(tmp_path / "data", tmp_path / "shards.h5", workers=2)
    for codes in (in_tar, listed, stored):
        assert codes is not None
        np.testing.assert_array_equal(codes.codes, plain.codes)
        assert len(codes.names) == len(plain.names)
    assert stored is not None
    assert list(stored.names) == list(plain.names)


@pytest.mark.parametrize("mode", ["flip", "cut"])
def test_a_damaged_shard_is_refused_by_name(tmp_path: Path, mode: str) -> None:
    source = make_pictures(tmp_path / "source")
    ingest(source, tmp_path / "data", packing=Packing(shard_samples=50), workers=1)
    file = tmp_path / "data" / "shard-00000.h5"
    content = bytearray(file.read_bytes())
    place = content.index(b"\xff\xda", 2000) + 40  # in the entropy-coded pixels
    content[place] ^= 4
    file.write_bytes(content if mode == "flip" else content[:-100])
    with pytest.raises(DataError, match=r"shard-00000\.h5"):
        hash_source(tmp_path / "data", tmp_path / "out.h5", workers=1)
    assert not (tmp_path / "out.h5").exists()


def test_what_was_begun_with_other_options_is_not_mixed_in(tmp_path: Path, small_parts: None) -> None:
    source, out = make_pictures(tmp_path / "source"), tmp_path / "out.h5"
    hash_source(source, out, "pdq", workers=1, part=(0, 2))
    with pytest.raises(OptionError, match="method was pdq, now is phash"):
        hash_source(source, out, "phash", workers=1)
    picture(77).save(source / "zz.png")
    with pytest.raises(OptionError, match="source was"):
        hash_source(source, out, "pdq", workers=1)
    shutil.rmtree(tmp_path / "out.h5.parts")
    hash_source(source, out, "pdq", workers=1)
    before = out.read_bytes()
    with pytest.raises(OptionError, match="method was pdq"):
        hash_source(source, out, "dhash", workers=1)
    hash_source(source, out, "pdq", workers=1)  # nothing left to do
    assert out.read_bytes() == before
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="no pictures"):
        hash_source(tmp_path / "empty", tmp_path / "none.h5")
    for part in ((2, 2), (-1, 2)):
        with pytest.raises(OptionError, match="0 <= I < N"):
            hash_source(source, out, part=part)


def test_codes_of_version_1_are_neither_gone_on_with_nor_compared(
    tmp_path: Path, small_parts: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They did not turn pictures by XMP."""
    source, old, out = make_pictures(tmp_path / "source"), tmp_path / "old.h5", tmp_path / "out.h5"
    for method in hashes.VERSIONS:
        with monkeypatch.context() as patch:
            patch.setitem(hashes.VERSIONS, method, 1)
            hash_source(source, old, method, workers=1)
            hash_source(source, out, method, workers=1, part=(0, 2))
        for file in (old, out):
            with pytest.raises(OptionError, match=f"version was 1, now is {hashes.VERSIONS[method]}"):
                hash_source(source, file, method, workers=1)
        shutil.rmtree(tmp_path / "out.h5.parts")
        hash_source(source, out, method, workers=1)
        result = CliRunner().invoke(main, ["dedup", "search", str(old), str(out)])
        said = "different methods or versions" in " ".join(result.output.split())
        assert (result.exit_code, said) == (2, True), result.output
        old.unlink()
        out.unlink()


def test_kill_9_then_the_same_bytes(tmp_path: Path) -> None:
    source = make_pictures(tmp_path / "source", 30)
    expected = tmp_path / "expected.h5"
    assert subprocess.run(command("hash", source, expected), capture_output=True).returncode == 1
    out, killed = tmp_path / "out.h5", 0
    for sign in ("00000.h5", "00002.h5.*.tmp", "00003.h5", "random", "../out.h5.*.tmp"):
        process = subprocess.Popen(command("hash", source, out, "--workers", "2"), stderr=subprocess.DEVNULL)
        until = time.monotonic() + (random.uniform(0.3, 1) if sign == "random" else 30)
        while (
            process.poll() is None
            and time.monotonic() < until
            and not list((tmp_path / "out.h5.parts").glob(sign))
        ):
            time.sleep(0.001)
        process.kill()
        killed += process.wait() == -signal.SIGKILL
        out.unlink(missing_ok=True)  # a machine under load sees a sign too late; then it begins anew
    assert killed >= 2
    found = subprocess.run(command("hash", source, out), capture_output=True, text=True)
    assert (found.returncode, "deep/torn.jpg: " in found.stderr) == (1, True)
    assert out.read_bytes() == expected.read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["expected.h5", "out.h5", "source"]


def test_tasks_and_twins_at_the_same_time(tmp_path: Path) -> None:
    """A twin is a task's former self on a node that was cut off. With locks it is kept out, else harmless."""
    source, out = make_pictures(tmp_path / "source", 30), tmp_path / "out.h5"
    (source / "deep" / "torn.jpg").unlink()
    hash_source(source, tmp_path / "expected.h5", workers=1)
    (tmp_path / "out.h5.parts").mkdir()
    with locked(tmp_path / "out.h5.parts", (0, 2)):
        for part, said in (
            (["--part", "0/2"], "another call does part 0/2"),
            ([], "another call is writing"),
        ):
            found = subprocess.run(command("hash", source, out, *part), capture_output=True, text=True)
            assert (found.returncode, said in found.stderr) == (75, True), found.stderr
    tasks = []
    for part in ("0/2", "1/2", "0/2"):
        line = command("hash", source, out, "--workers", "1", "--part", part)
        line[2] = NO_LOCKS + line[2]
        tasks.append(subprocess.Popen(line, stderr=subprocess.PIPE, text=True))
    for task in tasks:
        _, errors = task.communicate(timeout=60)
        assert task.returncode == 0, errors
    assert subprocess.run(command("hash", source, out), capture_output=True).returncode == 0
    assert out.read_bytes() == (tmp_path / "expected.h5").read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["expected.h5", "out.h5", "source"]


def test_sigterm_is_75_and_resumes(tmp_path: Path) -> None:
    source, out = make_pictures(tmp_path / "source", 30), tmp_path / "out.h5"
    process = subprocess.Popen(command("hash", source, out, pause=1.0), stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "out.h5.parts" / "00000.h5").exists():
        assert process.poll() is None
        time.sleep(0.005)
    process.terminate()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 75
    assert "run the same command again" in errors
    assert subprocess.run(command("hash", source, out), capture_output=True).returncode == 1
    assert len(read_codes(out).names) == 30


def test_print_is_the_text_form_of_the_other_packages(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    image = picture(5, (300, 200))
    image.save(tmp_path / "source" / "tab\there.png")
    bits, quality = pdqhash.compute(np.asarray(image))
    expected = {
        "pdq": (quality, np.packbits(bits).tobytes().hex()),
        "phash": (100, str(imagehash.phash(image))),
        "dhash": (100, str(imagehash.dhash(image))),
    }
    for method, (quality, text) in expected.items():
        out = tmp_path / f"{method}.h5"
        hash_source(tmp_path / "source", out, method, workers=1)
        result = CliRunner().invoke(main, ["dedup", "print", str(out)])
        assert result.output == f"tab\\there.png\t{quality}\t{text}\n"
    (tmp_path / "pdq.h5").write_bytes(b"no")
    result = CliRunner().invoke(main, ["dedup", "print", str(tmp_path / "pdq.h5")])
    assert (result.exit_code, "pdq.h5" in result.output) == (1, True)


def odd(image: Image.Image, kind: str) -> bytes:
    out = io.BytesIO()
    if kind == "turned":
        exif = Image.Exif()
        exif[ORIENTATION] = 6
        image.transpose(Image.Transpose.ROTATE_90).save(out, "JPEG", exif=exif, quality=95)
    elif kind in ("turned by XMP", "turned far behind"):
        xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
        exif = Image.Exif()
        exif[ORIENTATION] = 6
        told = {"xmp": xmp} if kind == "turned by XMP" else {"exif": exif, "icc_profile": bytes(100_000)}
        image.transpose(Image.Transpose.ROTATE_90).save(out, "JPEG", quality=95, **told)  # type: ignore[arg-type]
        if kind == "turned far behind":  # the profile's segments stand behind EXIF: move it
            jpeg = out.getvalue()
            at = jpeg.index(b"\xff\xe1")
            end = at + 2 + int.from_bytes(jpeg[at + 2 : at + 4])
            tables = jpeg.index(b"\xff\xdb")
            return jpeg[:at] + jpeg[end:tables] + jpeg[at:end] + jpeg[tables:]
    elif kind == "upright":
        exif = Image.Exif()
        exif[ORIENTATION] = 1
        image.save(out, "JPEG", exif=exif, quality=95)
    elif kind == "cmyk":
        image.convert("CMYK").save(out, "JPEG", quality=95)
    elif kind == "grey":
        image.convert("L").save(out, "JPEG", quality=95)
    elif kind == "16-bit":
        grey = np.asarray(image.convert("L")).astype(np.uint16)
        Image.fromarray(grey * 257).save(out, "PNG")
    elif kind == "alpha":
        image.putalpha(255)
        image.save(out, "PNG")
    elif kind == "palette":
        image.quantize(256).save(out, "GIF")
    elif kind == "progressive":
        image.save(out, "JPEG", quality=95, progressive=True)
    else:
        image.save(out, "WEBP", quality=95)
    return out.getvalue()


@pytest.mark.parametrize(
    "kind",
    [
        "turned",
        "turned by XMP",
        "turned far behind",
        "upright",
        "cmyk",
        "grey",
        "16-bit",
        "alpha",
        "palette",
        "progressive",
        "webp",
    ],
)
def test_odd_pictures_hash_like_the_plain_one(kind: str) -> None:
    image = picture(3, (320, 240))
    if kind == "palette":
        image = image.quantize(256).convert("RGB")
    plain = pdqhash.compute(np.asarray(image))[0]
    code, quality = hash_picture(odd(image.copy(), kind), "pdq")
    assert quality >= 80
    bits = np.unpackbits(code.astype(">u8").view(np.uint8))
    assert int((bits != plain).sum()) <= 10


@pytest.mark.skipif(not SAMPLE.is_dir(), reason=f"needs the photographs in {SAMPLE}")
def test_photographs_end_to_end(tmp_path: Path) -> None:
    """PDQ within 10 bits of pdqhash on Pillow's RGB, pHash and dHash within 2 of imagehash."""
    runner = CliRunner()
    for method in ("pdq", "phash", "dhash"):
        out = tmp_path / f"{method}.h5"
        result = runner.invoke(main, ["dedup", "hash", str(SAMPLE), str(out), "--method", method])
        assert result.exit_code == 0, result.output
    pdq, phash, dhash = (read_codes(tmp_path / f"{method}.h5") for method in ("pdq", "phash", "dhash"))
    assert len(pdq.names) == 500
    far, equal = [], 0
    for row, name in enumerate(pdq.names):
        with Image.open(SAMPLE / name) as opened:
            image = ImageOps.exif_transpose(opened).convert("RGB")
        bits, quality = pdqhash.compute(np.asarray(image))
        words = np.packbits(bits).view(">u8").astype(np.uint64)
        of_64 = [
            distance(codes.codes[row], np.array([int(str(other(image)), 16)], np.uint64))
            for codes, other in ((phash, imagehash.phash), (dhash, imagehash.dhash))
        ]
        equal += of_64 == [0, 0]
        if (quality >= 80 and distance(pdq.codes[row], words) > 10) or max(of_64) > 2:
            far.append((name, distance(pdq.codes[row], words), of_64))
    assert not far
    assert equal >= 470  # 475 here: libjpeg's grey and Pillow's differ by rounding
    result = runner.invoke(main, ["dedup", "search", str(tmp_path / "pdq.h5"), str(tmp_path / "pdq.h5")])
    found = [line.split("\t") for line in result.stdout.splitlines()]
    assert [line for line in found if line[0] == line[1]] == [[name, name, "0"] for name in pdq.names]
