"""Figures are laid out once, at round places: the last digits of the layout are in the names of an SVG."""

from pathlib import Path

import pytest
from matplotlib.figure import Figure

from hpcscale.report.figures import save, style


@pytest.mark.parametrize("ending", ["svg", "png"])
def test_places_are_round_and_nothing_moves_them_again(tmp_path: Path, ending: str) -> None:
    with style():
        figure = Figure(figsize=(5.3, 3.1), layout="constrained")
        for axes in figure.subplots(1, 2):
            axes.plot([1, 2, 3], [2.7, 1.1, 3.3], label="a line")
            axes.set(xlabel="pictures", ylabel="accuracy")
        figure.legend(loc="outside lower center")
        save(figure, tmp_path / f"one.{ending}")
        bounds = [axes.get_position(original=True).bounds for axes in figure.axes]
        for of in bounds:
            assert of == pytest.approx([round(value, 4) for value in of], rel=0, abs=1e-12)
        assert all(0 < of[2] < 0.5 for of in bounds)
        save(figure, tmp_path / f"other.{ending}")
        assert [axes.get_position(original=True).bounds for axes in figure.axes] == bounds
    assert (tmp_path / f"one.{ending}").read_bytes() == (tmp_path / f"other.{ending}").read_bytes()
