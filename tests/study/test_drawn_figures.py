"""Figures of the papers from points: lines, axes, families, seeds, printed numbers, the same bytes."""

import csv

import numpy as np
import pytest
from click.testing import CliRunner
from filled_runs import detector, run, transfer
from matplotlib.colors import to_rgb

from hpcscale.cli import main
from hpcscale.config import ConfigError
from hpcscale.files import FileError, OutputError
from hpcscale.study import figures, papers, points
from hpcscale.study.outputs import draw, fill
from hpcscale.study.points import Point

SIZES = {"10M": 10e6, "30M": 30e6, "100M": 100e6, "300M": 300e6}
FIGURES = papers.figures()


def some(figure):
    """Points of every family at two places and two seeds: y = 40 and 50, each a little up and down."""
    places = dict(list(figure.places.items())[:2]) or {"10M": 10e6, "100M": 100e6}
    return [
        Point(family, name, x, 40 + 10 * place + shift, f"seed {shift}")
        for family in figure.families
        for place, (name, x) in enumerate(places.items())
        for shift in (-1, 1)
    ]


def legend(canvas):
    return [text.get_text() for text in canvas.legends[0].get_texts()]


# the log-linear line


def test_row_57_the_figure_says_slope_and_r2_and_draws_the_line_over_decades():
    figure = FIGURES["sun2017-4-coco"]
    found = [Point("Fine-tuning", name, x, 4.9 * np.log10(x) - 5, "") for name, x in SIZES.items()]
    canvas = figures.compose(figure, found, [])
    assert legend(canvas) == ["Fine-tuning: +4.90 points per decade, R² 1.000"]
    (axes,) = canvas.axes
    assert axes.get_xscale() == "log"
    (line,) = [line for line in axes.lines if line.get_linestyle() == "-" and len(line.get_xdata()) == 2]
    assert list(line.get_xdata()) == [10e6, 300e6]
    assert line.get_ydata() == pytest.approx([4.9 * 7 - 5, 4.9 * np.log10(300e6) - 5])
    assert [tick.get_text() for tick in axes.get_xticklabels()] == [*SIZES]


# all figures


def test_row_58_every_result_figure_is_described():
    assert {"sun2017-3", "sun2017-4-coco", "sun2017-4-voc", "sun2017-5", "sun2017-6-left", "sun2017-6-right",
            "sun2017-classes", "sun2017-epochs", "mahajan2018-1", "mahajan2018-2-1k", "mahajan2018-2-5k",
            "mahajan2018-2-9k", "mahajan2018-2-cub", "mahajan2018-3", "mahajan2018-4", "mahajan2018-5",
            "mahajan2018-6-ap", "mahajan2018-6-ap50", "kolesnikov2020-shots", "kolesnikov2020-upstream",
            "kolesnikov2020-low-data", "kolesnikov2020-s5"} == FIGURES.keys()  # fmt: skip


@pytest.mark.parametrize("name", list(FIGURES))
def test_row_58_each_figure_has_its_axes_and_families(name):
    figure = FIGURES[name]
    canvas = figures.compose(figure, some(figure), points.anchors(figure))
    (axes,) = canvas.axes
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_title()) == (figure.x, figure.y, figure.title)
    assert "%" in figure.y
    assert axes.get_xscale() == ("log" if figure.log else "linear")
    told = [text.partition(": ")[0] for text in legend(canvas)]
    assert told == figure.families + ["printed in the paper (open)"] * bool(figure.anchors)
    ticks = [tick.get_text() for tick in axes.get_xticklabels()]
    if figure.kind == "bars":
        assert ticks == [*figure.places]
        assert len(axes.patches) == 2 * len(figure.families)
        assert axes.get_ylim()[0] == 0
    elif figure.places:
        assert set(ticks) <= set(figure.places)


@pytest.mark.parametrize("name", ["mahajan2018-2-1k", "mahajan2018-1"])
def test_row_58_families_differ_without_colours(name):
    figure = FIGURES[name]
    canvas = figures.compose(figure, some(figure), [])
    handles = canvas.legends[0].legend_handles
    if figure.kind == "bars":
        looks = {handle.get_hatch() or "" for handle in handles}
    else:
        looks = {(handle.get_marker(), str(handle.get_linestyle())) for handle in handles}
    assert len(looks) == len(figure.families) > 4
    assert len({figures._look(index)["marker"] for index in range(8)}) == 8
    assert len({str(figures._look(index)["linestyle"]) for index in range(8)}) == 8


@pytest.mark.parametrize("name", ["mahajan2018-4", "sun2017-classes", "kolesnikov2020-s5"])
def test_row_58_families_of_a_user_s_own_are_drawn_whatever_their_name(name):
    figure = FIGURES[name]
    names = ["_mine", "$x$ & <b>\n", "l" * 99]
    x = next(iter(figure.places.values()), 50.0)
    canvas = figures.compose(figure, [Point(family, "p", x, 3.0, "") for family in names], [])
    assert legend(canvas) == [" _mine", "$x$ & <b>\\n", "l" * 43 + "…"]


def test_row_58_a_point_is_the_mean_of_its_seeds_with_their_standard_error():
    """39 and 41: mean 40, s = sqrt(2), standard error 1."""
    figure = FIGURES["mahajan2018-4"]
    canvas = figures.compose(figure, some(figure)[:2], [])
    (axes,) = canvas.axes
    (bar,) = [box for box in axes.containers if box.has_yerr]
    assert list(bar.lines[0].get_ydata()) == [40]
    (segment,) = bar.lines[2][0].get_segments()
    assert segment[:, 1] == pytest.approx([39, 41])


def test_row_58_what_the_paper_prints_is_an_open_marker_in_the_colour_of_its_family():
    figure = FIGURES["mahajan2018-5"]
    canvas = figures.compose(figure, some(figure), points.anchors(figure))
    opened = [line for line in canvas.axes[0].lines if line.get_markerfacecolor() == "none"]
    found = {tuple(line.get_ydata()): line for line in opened if len(line.get_ydata())}
    assert found.keys() == {(84.2, 85.1, 85.4), (79.6,)}
    assert list(found[84.2, 85.1, 85.4].get_xdata()) == [36e9, 87e9, 153e9]
    assert to_rgb(found[79.6,].get_color()) == to_rgb(figures._look(1)["color"])


def test_row_58_a_figure_drawn_again_has_the_same_bytes(tmp_path):
    figure = FIGURES["mahajan2018-1"]
    for stem in ("a", "b"):
        figures.draw(figure, some(figure), points.anchors(figure), tmp_path / stem)
    for ending in ("svg", "png"):
        first = (tmp_path / f"a.{ending}").read_bytes()
        assert first == (tmp_path / f"b.{ending}").read_bytes()
    svg = (tmp_path / "a.svg").read_text()
    assert "<dc:date>" not in svg
    assert "hpcscale papers" in svg[:4000]


# from run folders


def study(folder, text):
    (folder / "study.toml").write_text(text)
    return folder / "study.toml"


def test_row_58_points_come_from_run_folders_and_draw_the_same_figure_from_their_csv(tmp_path):
    detector(tmp_path / "a", {"AP": 0.295})
    detector(tmp_path / "b", {"AP": 0.305})
    detector(tmp_path / "c", {"AP": 0.35})
    file = study(
        tmp_path,
        '[figures."sun2017-4-coco"."Fine-tuning"]\n"10M" = ["a", "b"]\n"100M" = ["c", "gone"]\n',
    )
    (filled,) = fill(file, tmp_path / "out")
    assert (filled.there, filled.lacking, filled.reasons) == (3, 1, ["gone: no such folder"])
    with filled.files[0].open(newline="") as stream:
        rows = list(csv.reader(stream))
    assert rows == [
        ["family", "place", "x", "y", "seed"],
        ["Fine-tuning", "10M", "10000000", "29.5", "a"],
        ["Fine-tuning", "10M", "10000000", "30.5", "b"],
        ["Fine-tuning", "100M", "100000000", "35", "c"],
    ]
    printed = CliRunner().invoke(
        main, ["papers", "draw", "sun2017-4-coco", str(filled.files[0]), str(tmp_path / "again")]
    )
    assert printed.exit_code == 0, printed.output
    for ending in ("svg", "png"):
        drawn = tmp_path / "out" / f"sun2017-4-coco.{ending}"
        assert drawn.read_bytes() == (tmp_path / f"again.{ending}").read_bytes()
        assert str(tmp_path / f"again.{ending}") in printed.output


def test_row_58_both_axes_of_a_scatter_are_measured(tmp_path):
    transfer(tmp_path / "x", [0.75, 0.77])
    transfer(tmp_path / "y", [0.3, 0.35])
    text = '[figures."kolesnikov2020-s5"."JFT-300M"]\nR50x1 = { x = "x", y = "y" }\n'
    text += 'R101x1 = { x = "x", y = "z" }'
    (filled,) = fill(study(tmp_path, text), tmp_path / "out")
    assert points.read(filled.files[0]) == [
        Point("JFT-300M", "R50x1", 75, 30, "x 0"),
        Point("JFT-300M", "R50x1", 77, 35, "x 1"),
    ]
    assert filled.reasons == ["z: no such folder"]
    transfer(tmp_path / "z", [0.4])
    (filled,) = fill(tmp_path / "study.toml", tmp_path / "out")
    assert filled.reasons == ["R101x1: 2 numbers for x and 1 for y; they must be as many"]


def test_row_58_progress_is_the_metric_over_the_steps_of_a_run(tmp_path):
    run(tmp_path / "a", 8)
    text = '[figures."sun2017-3"."Random initialization"]\na = ["a", "gone"]'
    (filled,) = fill(study(tmp_path, text), tmp_path / "out")
    found = points.read(filled.files[0])
    assert [(point.x, point.y) for point in found] == [(20, 5), (40, 10), (60, 15), (80, 20), (100, 40)]
    assert filled.reasons == ["gone: no such folder"]


def test_row_58_without_a_point_there_is_no_figure_and_none_of_before(tmp_path):
    detector(tmp_path / "a", {"AP": 0.3})
    file = study(tmp_path, '[figures."mahajan2018-6-ap"."IN-1k"]\n"32x4d" = "a"')
    fill(file, tmp_path / "out")
    assert sorted(place.suffix for place in (tmp_path / "out").iterdir()) == [".csv", ".png", ".svg"]
    (tmp_path / "a").rename(tmp_path / "b")
    (filled,) = fill(file, tmp_path / "out")
    assert [place.suffix for place in (tmp_path / "out").iterdir()] == [".csv"]
    assert filled.reasons == ["a: no such folder"]


HEAD = "family,place,x,y,seed\n"


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("sun2017-5", "", "the columns are '', expected family, place, x, y, seed"),
        ("sun2017-5", HEAD, "no points"),
        ("sun2017-5", HEAD + "a,b,1,2", "not enough values"),
        ("sun2017-5", HEAD + "a,b,one,2,", ":2: could not convert"),
        ("sun2017-5", HEAD + "a,b,1,nan,", "x and y must be finite"),
        ("sun2017-4-coco", HEAD + "a,b,0,2,", "a logarithmic axis begins above 0"),
        ("sun2017-classes", HEAD + "a,b,7,2,", "bars stand at 0 (1K ImageNet), 1 (18K JFT)"),
    ],
)
def test_row_58_points_that_cannot_be_drawn_are_refused(tmp_path, name, text, said):
    (tmp_path / "p.csv").write_text(text)
    with pytest.raises(FileError) as error:
        draw(name, tmp_path / "p.csv", tmp_path / "out")
    assert said in str(error.value)
    assert "p.csv" in str(error.value)
    assert not (tmp_path / "out.svg").exists()


def test_row_58_an_unknown_figure_and_another_s_file_are_refused(tmp_path):
    (tmp_path / "p.csv").write_text(HEAD + "a,b,1,2,")
    with pytest.raises(ConfigError, match="no figure 'other'; there are: sun2017-3"):
        draw("other", tmp_path / "p.csv", tmp_path / "out")
    (tmp_path / "out.svg").write_text("mine")
    with pytest.raises(OutputError):
        draw("sun2017-5", tmp_path / "p.csv", tmp_path / "out")
    assert (tmp_path / "out.svg").read_text() == "mine"


def test_row_58_the_command_lists_figures_with_axes_and_families():
    printed = CliRunner().invoke(main, ["papers", "figures", "--paper", "mahajan2018"]).output
    assert "mahajan2018-4  Sampling of pretraining" in printed
    assert "families: natural; uniform; square root" in printed
    assert "sun2017" not in printed
