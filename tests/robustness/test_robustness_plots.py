"""robustness/plot.py: marks and bars stand where the numbers say; the same files give the same bytes."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from cut_outs import background
from matplotlib.figure import Figure
from PIL import Image

from hpcscale.cli import main
from hpcscale.files import FileError, OutputError, Usage
from hpcscale.robustness import plot, result
from hpcscale.robustness.result import Class, InContext, Predicted, measured

RUNS = [  # name, network, parameters, trained before on, top-1 in context, hits of 8 pictures
    ("r50x1-s", "bit_r50x1", 25_549_352, "ILSVRC-2012", 0.77, 1),
    ("r101x3-s", "bit_r101x3", 387_934_888, "ILSVRC-2012", 0.79, 2),
    ("r50x1-m", "bit_r50x1", 25_549_352, "ImageNet-21k", 0.80, 3),
    ("r101x3-m", "bit_r101x3", 387_934_888, "ImageNet-21k", 0.84, 5),
    ("r50x1-l", "bit_r50x1", 25_549_352, "JFT-300M", 0.81, 5),
    ("r152x4-l", "bit_r152x4", 936_533_224, "JFT-300M", 0.875, 7),
]
GUESSES = ("zebra", "hartebeest", "prison, prison house", "crossword puzzle", "$x$ <b>")


def result_of(folder: Path, run: int, /, **changes) -> result.Result:
    name, network, parameters, upstream, top1, hits = RUNS[run]
    pictures = tuple(
        Predicted(
            image=f"pictures/zebra/z/b{k}.png", of="zebra", foreground="zebra/z.png", background=f"b{k}.png",
            guesses=GUESSES[k % 2 :] + GUESSES[: k % 2],
            probabilities=(0.6 + 0.05 * run, 0.1, 0.02, 0.003, 10.0 ** -(3 + run / 2)),
            right=tuple(each == "zebra" and k < hits for each in GUESSES[k % 2 :] + GUESSES[: k % 2]),
        )
        for k in range(8)
    )  # fmt: skip
    values = {
        "run": name, "step": 500, "checkpoint": "0" * 64, "architecture": network, "parameters": parameters,
        "upstream": upstream, "folder": str(folder), "digest": "1" * 32,
        "in_context": InContext(set="validation", step=500, top1=top1, top5=0.95),
        "classes": (Class(name="zebra", classes=("zebra",), relation="="),),
        **measured(pictures),
    }  # fmt: skip
    return result.Result(**values | changes)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    (tmp_path / "pictures/zebra/z").mkdir(parents=True)
    for k in range(8):
        background((60, 60), k).save(tmp_path / f"pictures/zebra/z/b{k}.png")
    found = []
    for run in range(len(RUNS)):
        file = tmp_path / f"{RUNS[run][0]}.json"
        file.write_text(result.dump(result_of(tmp_path, run)))
        found.append(file)
    return found


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are saved."""
    kept: list[Figure] = []
    save = plot.save
    monkeypatch.setattr(plot, "save", lambda figure, file: (kept.append(figure), save(figure, file)))
    return kept


def command(*words: object) -> Result:
    return CliRunner().invoke(main, ["robustness", "plot", *map(str, words)])


def test_row_55_marks_lie_at_both_accuracies_and_larger_networks_have_larger_ones(
    files: list[Path], tmp_path: Path, drawn: list[Figure]
) -> None:
    done = command(*files, tmp_path / "plot.svg")
    assert done.exit_code == 0, done.output
    (figure,) = drawn
    (axes,) = figure.axes
    marks = {tuple(mark.get_offsets()[0].round(6)): mark for mark in axes.collections}
    top1 = {name: result_of(tmp_path, run).all.top1 for run, (name, *_) in enumerate(RUNS)}
    assert set(marks) == {
        (round(100 * inside, 6), round(100 * top1[name], 6)) for name, _, _, _, inside, _ in RUNS
    }
    assert 0 < top1["r50x1-s"] < top1["r152x4-l"] < 1
    areas: dict[str, set[float]] = {}
    shapes: dict[str, set[str]] = {}
    for name, network, _, upstream, inside, _ in RUNS:
        mark = marks[round(100 * inside, 6), round(100 * top1[name], 6)]
        areas.setdefault(network, set()).add(mark.get_sizes()[0])
        shapes.setdefault(upstream, set()).add(mark.get_paths()[0].vertices.tobytes())
    assert all(len(each) == 1 for each in (*areas.values(), *shapes.values()))
    assert len(set(map(frozenset, shapes.values()))) == 3  # without colour, too
    assert min(areas["bit_r50x1"]) < min(areas["bit_r101x3"]) < min(areas["bit_r152x4"])
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "ILSVRC-2012", "ImageNet-21k", "JFT-300M", "network, parameters",
        "bit_r50x1, 25.5M", "bit_r101x3, 387.9M", "bit_r152x4, 936.5M",
    ]  # fmt: skip


def test_row_55_bars_end_at_the_probability_on_a_logarithmic_scale(
    files: list[Path], tmp_path: Path, drawn: list[Figure]
) -> None:
    names = ["pictures/zebra/z/b0.png", "pictures/zebra/z/b3.png"]
    pictures = [word for name in names for word in ("--picture", name)]
    done = command(files[0], files[4], tmp_path / "bars.png", *pictures)
    assert done.exit_code == 0, done.output
    (figure,) = drawn
    cells = np.array(figure.axes).reshape(2, 3)
    assert np.array_equal(cells[1, 0].get_images()[0].get_array(), np.asarray(background((60, 60), 3)))
    for row, name in enumerate(names):
        for column, run in enumerate((0, 4)):
            axes = cells[row, 1 + column]
            (one,) = [each for each in result_of(tmp_path, run).pictures if each.image == name]
            assert axes.get_xscale() == "log"
            assert axes.get_xlim()[1] == 1
            assert axes.get_xlim()[0] < one.probabilities[-1]
            assert [axes.xaxis.get_major_formatter()(at) for at in (1, 0.01, 1e-5)] == ["1", "0.01", "10⁻⁵"]
            ends = [bar.get_x() + bar.get_width() for bar in axes.patches]
            assert ends == pytest.approx(one.probabilities)
            assert [bar.get_hatch() is None for bar in axes.patches] == list(one.right)
            assert [text.get_text().removeprefix("✓ ") for text in axes.texts] == list(one.guesses)
            assert [text.get_text().startswith("✓") for text in axes.texts] == list(one.right)


@pytest.mark.parametrize("ending", ["svg", "png"])
@pytest.mark.parametrize("pictures", [(), ("pictures/zebra/z/b1.png",)])
def test_row_55_the_same_files_give_the_same_bytes(
    ending: str, pictures: tuple[str, ...], files: list[Path], tmp_path: Path
) -> None:
    first, again = tmp_path / f"first.{ending}", tmp_path / f"again.{ending}"
    plot.plot(files, first, pictures)
    plot.plot(files, again, pictures)
    assert first.read_bytes() == again.read_bytes()
    if ending == "png":
        with Image.open(first) as image:
            assert len(image.convert("RGB").getcolors(1 << 24)) > 20
    else:
        text = first.read_text()
        assert text.startswith("<?xml")
        assert not re.search(r"<dc:date>|20\d\d-\d\d-\d\d", text)
    other = result_of(tmp_path, 0, in_context=InContext(set="train", step=1, top1=0.1, top5=0.2))
    changed = {"in_context": other.in_context} if not pictures else {"run": "another"}
    files[0].write_text(result.dump(result_of(tmp_path, 0, **changed)))
    plot.plot(files, again, pictures)
    assert first.read_bytes() != again.read_bytes()


def test_row_55_what_cannot_be_drawn_is_told(files: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "plot.svg"
    with pytest.raises(Usage, match=r"plot\.pdf: the name must end in \.svg or \.png"):
        plot.plot(files, tmp_path / "plot.pdf")
    with pytest.raises(
        FileError, match=r"no picture 'b1\.png'; they are called as 'pictures/zebra/z/b0\.png'"
    ):
        plot.plot(files, out, ["b1.png"])
    files[1].write_text(result.dump(result_of(tmp_path, 1, in_context=None)))
    with pytest.raises(FileError, match=r"r101x3-s\.json: has no accuracy in context"):
        plot.plot(files, out)
    files[1].write_text(result.dump(result_of(tmp_path, 1, digest="2" * 32)))
    with pytest.raises(FileError, match=r"r101x3-s\.json: is of other pictures than .*r50x1-s\.json"):
        plot.plot(files, out)
    (tmp_path / "pictures/zebra/z/b1.png").write_bytes(b"none")
    with pytest.raises(FileError, match=r"b1\.png: not a picture"):
        plot.plot(files[:1], out, ["pictures/zebra/z/b1.png"])
    assert not out.exists()
    out.write_text("<svg>mine</svg>")
    with pytest.raises(OutputError, match=r"plot\.svg: is there already"):
        plot.plot(files[:1], out)
    with pytest.raises(OutputError, match="is an input"):
        plot.plot([out], out)
    assert json.loads(files[0].read_text())["run"] == RUNS[0][0]


def test_row_55_areas_grow_with_the_root_of_the_parameters() -> None:
    areas = [plot.area(n, 400) for n in (0, 100, 400)]
    assert areas == [plot.SMALLEST, (plot.SMALLEST + plot.LARGEST) / 2, plot.LARGEST]
    assert math.sqrt(plot.LARGEST) < 24  # points: marks do not hide one another
