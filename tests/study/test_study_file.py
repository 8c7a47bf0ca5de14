"""The file of a study: which cells it has, what they are called, what they need, and what is refused."""

from pathlib import Path

import pytest

from hpcscale.files import Usage
from hpcscale.sections import ConfigError
from hpcscale.study import cells, definition

STUDY = """
[axes]
size = [10, 20]
seed = [0, 1]
[stages.pack]
over = []
run = "data ingest pictures {here}"
[stages.pretrain]
run = "train {here} --config recipe.toml --set data.train={pack} --set a.b={size} --set train.seed={seed}"
[stages.probe]
run = "transfer probe {pretrain} --config 'a probe.toml' --out {here}"
[stages.report]
over = ["size"]
run = "report {probe*} --out {here}/report.md"
"""


def of(folder: Path, text: str) -> dict[cells.Key, cells.Cell]:
    (file := folder / "study.toml").write_text(text)
    return cells.of_study(definition.load(file), folder)


def test_a_cell_for_each_combination_with_its_words_and_needs(tmp_path: Path) -> None:
    found = of(tmp_path, STUDY)
    assert [sum(stage == name for stage, _ in found) for name in ("pack", "pretrain", "probe", "report")] == [
        1, 4, 4, 2,
    ]  # fmt: skip
    cell = found["pretrain", "size=20,seed=1"]
    pack = found["pack", "all"].folder
    assert cell.words[:2] == ("train", str(cell.folder))
    assert f"data.train={pack}" in cell.words
    assert cell.words[-3:] == ("a.b=20", "--set", "train.seed=1")
    assert cell.needs == (("pack", "all"),)
    assert cell.folder.parent == Path("study/pretrain")
    assert cell.folder.name.startswith("size=20,seed=1-")
    assert "a probe.toml" in found["probe", "size=10,seed=0"].words
    report = found["report", "size=10"]
    folders = [str(found["probe", f"size=10,seed={seed}"].folder) for seed in (0, 1)]
    assert report.words == ("report", *folders, "--out", f"{report.folder}/report.md")
    assert [key[1] for key in report.needs] == ["size=10,seed=0", "size=10,seed=1"]


def test_what_is_left_out_is_in_no_stage(tmp_path: Path) -> None:
    found = of(tmp_path, "skip = [{size = 20, seed = 1}]\n" + STUDY)
    assert ("pretrain", "size=20,seed=1") not in found
    assert len(found["report", "size=20"].needs) == 1
    with pytest.raises(Usage, match=r"stages.report.run: \{probe\*\}: probe has no cell at size=20"):
        of(tmp_path, "skip = [{size = 20, seed = 1}, {size = 20, seed = 0}]\n" + STUDY)


def test_a_change_moves_what_depends_on_it_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text("a = 1\n")
    (tmp_path / "a probe.toml").write_text("a = 1\n")
    before = of(tmp_path, STUDY)
    assert of(tmp_path, STUDY) == before

    def moved(text: str) -> set[str]:
        after = of(tmp_path, text)
        return {" ".join(key) for key, cell in after.items() if cell.folder != before[key].folder}

    (tmp_path / "recipe.toml").write_text("a = 2\n")
    assert moved(STUDY) == {" ".join(key) for key in before if key[0] != "pack"}
    (tmp_path / "recipe.toml").write_text("a = 1\n")
    (tmp_path / "a probe.toml").write_text("a = 2\n")
    assert {name.split()[0] for name in moved(STUDY)} == {"probe", "report"}
    (tmp_path / "a probe.toml").write_text("a = 1\n")
    assert moved(STUDY.replace("ingest pictures", "ingest others")) == {" ".join(key) for key in before}
    assert moved(STUDY.replace("{here}/report.md", "{here}/other.md")) == {"report size=10", "report size=20"}
    more = of(tmp_path, STUDY.replace("seed = [0, 1]", "seed = [0, 1, 2]"))
    assert all(more[key] == cell for key, cell in before.items() if key[0] != "report")


def test_the_contents_of_what_cells_make_are_no_part_of_a_name(tmp_path: Path) -> None:
    before = of(tmp_path, STUDY)
    made = tmp_path / before["report", "size=10"].folder
    made.mkdir(parents=True)
    (made / "report.md").write_text("made")
    assert of(tmp_path, STUDY) == before


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (("{pack}", "{packed}"), r"stages.pretrain.run: \{packed\} is none of its axes and no earlier stage"),
        (("{here} --config recipe", "x --config recipe"), "stages.pretrain.run: names {here} nowhere"),
        (('over = ["size"]', 'over = ["sise"]'), "stages.report.over: sise is no axis; there are size, seed"),
        (("{probe*}", "{probe}"), r"stages.report.run: \{probe\} has a cell for each seed"),
        (("{probe*}", "x{probe*}"), "a name with \\* is a word of its own"),
        (("size = [10, 20]", "size = [10, 10]"), "axes.size: a value stands twice"),
        (("size = [10, 20]", "size = []"), "axes.size: .*at least 1 item"),
        (("[stages.pack]", "[stages.seed]"), "seed is the name of two"),
        (("[stages.pack]", "[stages.Pack]"), "'Pack' is no name of an axis or stage"),
        (("train {here}", "train elsewhere --x {here}"), "a training is of its own folder"),
        (("'a probe.toml'", "'a probe.toml"), "stages.probe.run: No closing quotation"),
        (('over = ["size"]', 'nodes = 2\nover = ["size"]'), "nodes and ranks_per_node are of train"),
        (("[axes]", "[given]\nprobe = 1\n[axes]"), "probe is the name of two"),
        (("[axes]", "[along.size]\nsteps = [1]\n[axes]"), "along.size.steps: 1 values, of an axis of 2"),
        (('over = ["size"]', "nod = 3"), "stages.report.nod: unknown key; known are run, over, nodes"),
        (("[axes]", "skip = [{size = 30}]\n[axes]"), "skip: size = 30 is no value of an axis"),
    ],
)  # fmt: skip
def test_what_cannot_be_a_study_is_told(tmp_path: Path, change: tuple[str, str], named: str) -> None:
    assert change[0] in STUDY
    with pytest.raises(ConfigError, match=named):
        of(tmp_path, STUDY.replace(change[0], change[1], 1))


def test_values_go_along_with_an_axis(tmp_path: Path) -> None:
    text = STUDY.replace("[stages.pack]", "[along.size]\nsteps = [100, 400]\n[stages.pack]")
    text = text.replace("a.b={size}", "train.steps={steps}").replace("[axes]", "[given]\nn = 5\n[axes]")
    text = text.replace("ingest pictures", "ingest pictures-{n}")
    found = of(tmp_path, text)
    for size, steps in ((10, 100), (20, 400)):
        assert f"train.steps={steps}" in found["pretrain", f"size={size},seed=0"].words
    assert "pictures-5" in found["pack", "all"].words
    changed = definition.load(tmp_path / "study.toml", ["given.n=6", "axes.seed=[3]"])
    assert "pictures-6" in cells.of_study(changed, tmp_path)["pack", "all"].words
    assert ("pretrain", "size=10,seed=3") in cells.of_study(changed, tmp_path)
