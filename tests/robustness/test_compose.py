"""robustness/compose.py: which pixels, how large, where, how many, and whose; and only over its own files."""

import csv
import json
import os
import subprocess
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from cut_outs import BACKGROUNDS, MARGIN, OBJECTS, attribute, background, content, cut_out, make
from PIL import Image
from places import PHOTOGRAPHS, ROOT

from hpcscale.cli import main
from hpcscale.cli import robustness as commands
from hpcscale.data.store import open_data
from hpcscale.files import FileError, OutputError
from hpcscale.ingest.packing import ingest
from hpcscale.robustness import composition
from hpcscale.robustness.compose import (
    POSITIONS,
    RANDOM,
    Attributed,
    Box,
    Composed,
    Settings,
    _planned,
    compose,
    paste,
    place,
    square_of,
)
from hpcscale.robustness.parts import Part

SAMPLES = PHOTOGRAPHS / "compositing"
PNG = Settings(format="png")
FREELY = Attributed(needed=False)


@pytest.fixture
def parts(tmp_path: Path) -> tuple[Path, Path]:
    return make(tmp_path)


def command(*words: object) -> Result:
    return CliRunner().invoke(main, ["robustness", "compose", *map(str, words)])


def pixels(file: Path) -> np.ndarray:
    with Image.open(file) as image:
        return np.asarray(image.convert("RGB")).astype(np.float64)


def blended(cut: Image.Image, square: np.ndarray, box: Box) -> tuple[np.ndarray, np.ndarray]:
    """The slow oracle, in floats: colours times alpha and alpha are resized apart, and laid over the square.
    Also the resized alpha, 0 outside of the box."""
    values = np.asarray(cut).astype(np.float32) / 255
    values[..., :3] *= values[..., 3:]
    resized = np.dstack([
        np.asarray(Image.fromarray(values[..., k]).resize((box.width, box.height), Image.Resampling.BILINEAR))
        for k in range(4)
    ])  # fmt: skip
    whole = np.zeros((*square.shape[:2], 4))
    whole[box.top : box.top + box.height, box.left : box.left + box.width] = resized
    alpha = whole[..., 3:]
    return 255 * whole[..., :3] + (1 - alpha) * square, alpha[..., 0]


def test_row_54_there_is_a_picture_for_each_pair_and_ingest_packs_them(
    parts: tuple[Path, Path], tmp_path: Path
) -> None:
    found = compose(*parts, tmp_path / "out")
    assert found == Composed(pictures=12, foregrounds=4, classes=3, backgrounds=3)
    lines = [json.loads(line) for line in (tmp_path / "out/manifest.jsonl").read_text().splitlines()]
    pairs = {(line["foreground"], line["background"]) for line in lines}
    assert pairs == set(product((f"{name}.png" for name in OBJECTS), (f"{name}.png" for name in BACKGROUNDS)))
    assert all(line["tags"] == [line["foreground"].split("/")[0]] for line in lines)
    assert {line["image"] for line in lines} == {
        str(file.relative_to(tmp_path / "out")) for file in (tmp_path / "out/pictures").rglob("*.jpg")
    }
    ingest(tmp_path / "out", tmp_path / "packed", workers=1)
    data = open_data(tmp_path / "packed")
    samples = np.arange(12)
    assert data.samples == 12
    assert data.names(samples) == [line["image"] for line in lines]
    assert [digest.tobytes().hex() for digest in data.source_digests(samples)] == [
        line["digest"] for line in lines
    ]
    assert [data.tags[tag] for tag in data.tag_rows(samples)[1]] == [line["tags"][0] for line in lines]


def test_row_54_the_papers_set_has_3321_pictures() -> None:
    objects = [Part(f"{k % 20}/{k}.png", str(k % 20), "", (9, 9), "") for k in range(81)]
    behind = [Part(f"{k}.jpg", "", "", (9, 9), "") for k in range(41)]
    assert len(set(_planned(objects, behind, Settings()))) == 81 * 41 == 3321


@pytest.mark.parametrize("share", [0.8, 0.33, 1.0])
def test_row_54_the_longer_side_is_a_share_of_the_width_and_the_rest_is_background(
    share: float, parts: tuple[Path, Path], tmp_path: Path
) -> None:
    compose(*parts, tmp_path / "out", PNG._replace(share=share))
    for one in composition.read(tmp_path / "out"):
        size = OBJECTS[one.foreground.removesuffix(".png")]
        behind = pixels(parts[1] / one.background)
        side = min(behind.shape[:2])
        square, box = behind[:side, :side], Box(*one.box)
        assert one.side == side
        assert max(box.width, box.height) == round(share * side)
        assert min(box.width, box.height) == pytest.approx(share * side * min(size) / max(size), abs=1)
        assert (box.left, box.top) == ((side - box.width) // 2, (side - box.height) // 2)
        with Image.open(parts[0] / one.foreground) as whole:
            cut = whole.crop((MARGIN, MARGIN, MARGIN + size[0], MARGIN + size[1]))
        expected, alpha = blended(cut, square, box)
        found = pixels(tmp_path / "out" / one.image)
        assert found.shape == square.shape
        assert np.array_equal(found[alpha == 0], square[alpha == 0])
        assert np.abs(found - expected).max() < 3  # 8-bit colours times alpha, and of alpha
        seen = np.argwhere(np.abs(found - square).max(2) > 12)
        extent = np.ptp(seen, axis=0) + 1
        assert np.abs(extent - (box.height, box.width)).max() <= 2  # the tips of an ellipse are faint


def test_row_54_edges_are_not_darkened_by_the_colour_of_transparent_pixels() -> None:
    white = Image.new("RGB", (50, 50), "white")
    cut = cut_out((200, 160), (255, 255, 255))
    for size in (cut.size, (37, 31), (430, 340)):
        picture = np.asarray(paste(cut, white.resize((500, 500)), Box(3, 5, *size)))
        assert picture.min() >= 254


def test_row_54_squares_are_the_largest_from_the_top_left_or_the_centre_and_may_be_resized() -> None:
    behind = background((90, 60))
    whole = np.asarray(behind)
    assert np.array_equal(np.asarray(square_of(behind, Settings())), whole[:, :60])
    assert np.array_equal(np.asarray(square_of(behind, Settings(cut="centre"))), whole[:, 15:75])
    tall = behind.transpose(Image.Transpose.ROTATE_90)
    assert np.array_equal(np.asarray(square_of(tall, Settings(cut="centre"))), np.asarray(tall)[15:75])
    small = np.asarray(square_of(behind, Settings(size=20)))
    assert small.shape == (20, 20, 3)
    assert abs(small.mean() - whole[:, :60].mean()) < 1
    assert square_of(behind.convert("L"), Settings()).mode == "RGB"


def test_row_54_named_positions_lie_where_their_names_say() -> None:
    assert set(commands.POSITIONS) == {*POSITIONS, RANDOM}
    for name in POSITIONS:
        left, top, width, height = place((60, 40), 75, Settings(position=name))
        assert (width, height) == (60, 40)
        assert left == (0 if "left" in name else 15 if "right" in name else 7)
        assert top == (0 if "top" in name else 35 if "bottom" in name else 17)


def test_row_54_random_positions_are_inside_everywhere_and_a_function_of_seed_and_names() -> None:
    def boxes(seed: int) -> list[Box]:
        settings = Settings(share=0.5, position=RANDOM, seed=seed)
        return [place((2, 1), 40, settings, ("a", str(k))) for k in range(2000)]

    found = boxes(3)
    assert found == boxes(3) != boxes(4)
    assert {box[2:] for box in found} == {(20, 10)}
    assert {box.left for box in found} == set(range(21))
    assert {box.top for box in found} == set(range(31))
    assert np.mean([box.left for box in found]) == pytest.approx(10, abs=0.6)
    assert place((2, 1), 40, Settings(position=RANDOM), ("b", "1")) != boxes(0)[1]


@pytest.mark.skipif(not SAMPLES.exists(), reason=f"no {SAMPLES}")
def test_row_54_published_numbers_of_si_score(tmp_path: Path) -> None:
    """It pastes a bagel, as large as it is, at the top left of a beach of 1,000 pixels; and centres it."""
    objects, behind = tmp_path / "objects", tmp_path / "backgrounds"
    objects.mkdir()
    behind.mkdir()
    (objects / "bagel").symlink_to(SAMPLES / "foreground_samples/bagel")
    (behind / "beach2.jpg").symlink_to(SAMPLES / "background_samples/beach2.jpg")
    settings = Settings(share=0.717, size=1000, position="top-left", format="png")
    compose(objects, behind, tmp_path / "out", settings, FREELY)
    (one,) = composition.read(tmp_path / "out")
    assert one.box == (0, 0, 717, 683)
    assert pixels(tmp_path / "out" / one.image).mean() == pytest.approx(148.089, abs=0.1)
    assert place((717, 683), 1000, settings._replace(position="centre"))[:2] == (141, 158)


def test_row_54_the_same_call_gives_the_same_bytes_and_a_second_one_changes_nothing(
    parts: tuple[Path, Path], tmp_path: Path
) -> None:
    settings = Settings(position=RANDOM, seed=5, size=50)
    for name in ("one", "other"):
        compose(*parts, tmp_path / name, settings)
    found = content(tmp_path / "one")
    assert found == content(tmp_path / "other")
    times = {file: file.stat().st_mtime_ns for file in (tmp_path / "one/pictures").rglob("*.jpg")}
    compose(*parts, tmp_path / "one", settings)
    assert content(tmp_path / "one") == found
    assert {file: file.stat().st_mtime_ns for file in times} == times


def test_row_54_both_licences_go_with_each_picture(parts: tuple[Path, Path], tmp_path: Path) -> None:
    compose(*parts, tmp_path / "out")
    with (tmp_path / "out/attributions.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["image"] for row in rows] == [one.image for one in composition.read(tmp_path / "out")]
    for row in rows:
        for kind, licence in (("foreground", "CC BY 2.0"), ("background", "CC0, public domain")):
            name = row[kind]
            assert row[f"{kind}_licence"] == licence
            assert row[f"{kind}_author"] == f"author of {name}"
            assert row[f"{kind}_title"] == f"title, {name}"
            assert row[f"{kind}_source"] == f"https://x.org/{name}"


def test_row_54_a_part_without_an_attribution_is_an_error_unless_that_is_wanted(
    parts: tuple[Path, Path], tmp_path: Path
) -> None:
    attribute(parts[1], ["beach.png"], "CC0")
    with pytest.raises(FileError, match=r"attributions\.csv: no attribution of 'sky\.png', 'wood\.png'; add"):
        compose(*parts, tmp_path / "out")
    (parts[1] / "attributions.csv").rename(tmp_path / "named.csv")
    with pytest.raises(FileError, match=r"backgrounds: has neither attributions\.csv nor"):
        compose(*parts, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    named = ["--background-attributions", tmp_path / "named.csv", "--without-attribution"]
    done = command(*parts, tmp_path / "out", *named, "--json")
    assert json.loads(done.stdout) == {"pictures": 12, "foregrounds": 4, "classes": 3, "backgrounds": 3}
    with (tmp_path / "out/attributions.csv").open(newline="") as stream:
        found = {(row["background"], row["background_licence"]) for row in csv.DictReader(stream)}
    assert found == {("beach.png", "CC0"), ("sky.png", ""), ("wood.png", "")}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("image,licence\na.png,CC0\na.png,CC0\n", r"csv:3: 'a\.png' has an attribution already"),
        ("image,licence\na.png,\n", "csv:2: licence is empty"),
        ("image,author\na.png,x\n", "csv:1: the first row must name the columns licence"),
        ("image,licence,licence\na.png,x,x\n", "csv:1: the first row names a column twice"),
        ("image,licence\na.png,CC0,more\n", "csv:2: 3 cells, the first row has 2"),
        ('image,licence\n"a.png,CC0\n', "csv:2: unexpected end of data"),
        ("\n", "csv: empty; its first row must name the columns image, licence"),
    ],
)
def test_row_54_bad_attributions_are_told_with_their_line(
    text: str, said: str, parts: tuple[Path, Path], tmp_path: Path
) -> None:
    (parts[0] / "attributions.csv").write_text(text)
    with pytest.raises(FileError, match=said):
        compose(*parts, tmp_path / "out")


KILLED = """
import os, signal, sys
from pathlib import Path
from hpcscale import files
from hpcscale.robustness import compose
at, written = int(sys.argv[1]), 0
def commit(temporary, file, before=files.commit):
    global written
    written += 1
    if written == at:
        os.kill(os.getpid(), signal.SIGKILL)
    before(temporary, file)
files.commit = commit
compose.compose(*map(Path, sys.argv[2:]))
"""


@pytest.mark.parametrize("at", [1, 5, 14])
def test_row_54_after_a_kill_the_same_call_ends_with_the_same_bytes(
    at: int, parts: tuple[Path, Path], tmp_path: Path
) -> None:
    """Killed before the plan, the fourth picture, or the attributions get their names."""
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(at), *parts, tmp_path / "out"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert killed.returncode == -9
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "out").rglob("*.jpg")}
    assert len(before) == max(0, min(at - 2, 12))
    assert not (tmp_path / "out/manifest.jsonl").exists()
    assert [*(tmp_path / "out").rglob("*.tmp")]
    compose(*parts, tmp_path / "out")
    assert {file: file.stat().st_mtime_ns for file in before} == before
    compose(*parts, tmp_path / "expected")
    assert content(tmp_path / "out") == content(tmp_path / "expected")


def test_row_54_no_file_of_a_user_is_touched(parts: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("the work of a week")
    with pytest.raises(OutputError, match=r"out/thesis\.tex: is there already, and .*out holds no"):
        compose(*parts, out)
    assert content(out) == {"thesis.tex": b"the work of a week"}
    with pytest.raises(OutputError, match="is an input of this command or lies in one"):
        compose(*parts, parts[0] / "out")
    compose(*parts, tmp_path / "mine")
    mine = tmp_path / "mine/pictures/pear/one/sky.jpg"
    background((9, 9)).save(mine)
    before = content(tmp_path / "mine")
    with pytest.raises(OutputError, match=r"sky\.jpg: is there already, and not what this command writes"):
        compose(*parts, tmp_path / "mine")
    assert content(tmp_path / "mine") == before
    mine.unlink()
    (tmp_path / "mine/attributions.csv").write_text("corrected by hand")
    with pytest.raises(OutputError, match=r"attributions\.csv: is there already and differs"):
        compose(*parts, tmp_path / "mine")


def test_row_54_a_folder_goes_on_only_as_it_was_begun(parts: tuple[Path, Path], tmp_path: Path) -> None:
    compose(*parts, tmp_path / "out")
    before = content(tmp_path / "out")
    with pytest.raises(OutputError, match="was begun with other settings; use"):
        compose(*parts, tmp_path / "out", Settings(share=0.7))
    background((64, 64), 9).save(parts[1] / "wood.png")
    with pytest.raises(OutputError, match="was begun with other backgrounds; use"):
        compose(*parts, tmp_path / "out")
    assert content(tmp_path / "out") == before
