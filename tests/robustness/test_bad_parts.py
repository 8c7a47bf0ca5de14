"""robustness/parts.py, compose.py and composition.py: what cannot be composed or read is told, and why."""

from pathlib import Path

import pytest
from click.testing import CliRunner
from cut_outs import background, cut_out, make
from PIL import Image

from hpcscale.cli import main
from hpcscale.files import FileError, Told, Usage
from hpcscale.robustness import composition
from hpcscale.robustness.compose import Settings, compose


@pytest.fixture
def parts(tmp_path: Path) -> tuple[Path, Path]:
    return make(tmp_path)


def _no_alpha(objects: Path) -> None:
    background((9, 9)).save(objects / "pear/one.png")


def _clear(objects: Path) -> None:
    Image.new("RGBA", (9, 9)).save(objects / "pear/one.png")


def _torn(objects: Path) -> None:
    file = objects / "pear/one.png"
    file.write_bytes(file.read_bytes()[:-300])


def _two_tags(objects: Path) -> None:
    (objects / "manifest.jsonl").write_text('{"image": "pear/one.png", "tags": ["pear", "fruit"]}\n')


def _twice(objects: Path) -> None:
    line = '{"image": "pear/one.png", "tags": ["pear"]}\n'
    (objects / "manifest.jsonl").write_text(2 * line)


def _outside(objects: Path) -> None:
    cut_out((9, 9), (1, 2, 3)).save(objects / "stray.png")


def _no_utf_8(objects: Path) -> None:
    (objects / "pear").rename(objects / "\udcff")


def _empty(objects: Path) -> None:
    (objects / "manifest.jsonl").write_text("")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_no_alpha, r"pear/one\.png: has no transparency"),
        (_clear, r"pear/one\.png: is transparent everywhere"),
        (_torn, r"pear/one\.png: cannot be decoded"),
        (_two_tags, r"pear/one\.png: needs one tag, its class, found \['pear', 'fruit'\]"),
        (_twice, r"two pictures would be 'pictures/pear/one/beach\.jpg'"),
        (_outside, r"stray\.png: lies in no class folder"),
        (_no_utf_8, r"'\\udcff/one\.png' is not UTF-8; rename it"),
        (_empty, "objects: holds no picture"),
    ],
)
def test_row_54_bad_objects_are_told_before_anything_is_written(
    spoil, said: str, parts: tuple[Path, Path], tmp_path: Path
) -> None:
    spoil(parts[0])
    with pytest.raises(Told, match=said):
        compose(*parts, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_row_54_bad_options_are_told(parts: tuple[Path, Path], tmp_path: Path) -> None:
    for settings in (Settings(share=0), Settings(share=1.01), Settings(share=float("nan"))):
        with pytest.raises(Usage, match="share: over 0, up to 1, found"):
            compose(*parts, tmp_path / "out", settings)
    with pytest.raises(Usage, match="position: one of centre"):
        compose(*parts, tmp_path / "out", Settings(position="somewhere"))
    assert (
        CliRunner().invoke(main, ["robustness", "compose", *map(str, parts), "out", "--share", "0"]).exit_code
        == 2
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "names no picture"),
        ("{}\n", "manifest.jsonl:1: image: Field required"),
        ('{"image": "a.jpg", "tags": ["a", "b"]}\n', "manifest.jsonl:1: tags"),
        ("[" * 5000, "manifest.jsonl:1: the line"),
    ],
)
def test_a_folder_that_was_not_composed_is_told(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"has no manifest\.jsonl"):
        composition.read(tmp_path)
    (tmp_path / "manifest.jsonl").write_text(text)
    with pytest.raises(FileError, match=said):
        composition.read(tmp_path)
