"""One packed set, many studies: a grid of sizes, noise and samplings packs nothing twice."""

import itertools
import json
from pathlib import Path

import labelled
import numpy as np
from click.testing import CliRunner

from hpcscale.cli import main


def test_a_grid_of_choices_over_one_set_says_what_each_trains_on(tmp_path: Path) -> None:
    data = labelled.make_set(tmp_path)
    before = {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in data.folder.iterdir()}
    found = {}
    for size, noise, sampling in itertools.product((60, 200), (0, 0.25), ("natural", "sqrt", "uniform")):
        (tmp_path / "selection.toml").write_text(f"size = {size}\n")
        words = ["stats", tmp_path / "vocabulary.json", "--data", data.folder, "--noise", noise, "--json",
                 "--selection", tmp_path / "selection.toml", "--sampling", sampling]  # fmt: skip
        result = CliRunner().invoke(main, ["labels", *map(str, words)])
        assert result.exit_code == 0, result.output
        found[size, noise, sampling] = json.loads(result.stdout)
    assert {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in data.folder.iterdir()} == before
    for size, noise in itertools.product((60, 200), (0, 0.25)):
        entropies = [found[size, noise, sampling]["entropy"] for sampling in ("natural", "sqrt", "uniform")]
        assert (np.diff(entropies) > 0.02).all(), (size, noise, entropies)
    assert len({each["entropy"] for each in found.values()}) == len(found)
    assert {found[key]["labelled"] for key in found if key[0] == 60} == {60}
