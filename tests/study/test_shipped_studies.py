"""The studies of the package: their heads, and that every command of every cell is one."""

from pathlib import Path

import pytest

from hpcscale.cli import words
from hpcscale.study import cells, definition

FILES = {file.name: file for file in definition.STUDIES.glob("*.toml")}
# Cells of each stage.
CELLS = {
    "sun2017_data_size.toml": {"pretrain": 4, "detect": 4},
    "mahajan2018_data_size.toml": {"pretrain": 4, "finetune": 4},
    "mahajan2018_noise.toml": {"pretrain": 4, "finetune": 4},
    "mahajan2018_sampling.toml": {"pretrain": 3, "finetune": 3},
    "mahajan2018_vocabulary.toml": {"pretrain": 9, "finetune": 9},
    "kolesnikov2020_upstream.toml": {"pretrain": 15, "transfer": 15},
    "demo_data_size.toml": {"train": 8},
    "demo_noise.toml": {"train": 6},
    "demo_sampling.toml": {"train": 6},
}


def test_all_are_known() -> None:
    assert FILES.keys() == CELLS.keys()


@pytest.mark.parametrize("name", CELLS)
def test_row_f_every_cell_is_a_command(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    if name.startswith("kolesnikov"):  # the target's file is the user's
        text = '[target]\ntest = "x"\n[data]\ntrain = "x"\nvocabulary = "x.json"\n[train]\nbatch = 512\n'
        (tmp_path / "hyperrule.toml").write_text(text)
    found = cells.of_study(definition.load(Path(name)), tmp_path)
    count = {stage: sum(cell.stage == stage for cell in found.values()) for stage, _ in found}
    assert count == CELLS[name]
    assert definition.load(Path(name)).report
    for cell in found.values():
        command = words.read(cell.words, exists=False)
        if cell.words[0] == "train":
            assert command.recipe is not None
            assert command.folder == cell.folder


@pytest.mark.parametrize("name", CELLS)
def test_heads_say_command_and_what_to_expect(name: str) -> None:
    text = FILES[name].read_text()
    head = " ".join(text.partition('\nout = "')[0].split())
    assert f"hpcscale study run {name}" in head
    assert all(len(line) <= 124 for line in text.splitlines())
    if not name.startswith("demo"):
        for word in (" et al. 20", "Assumed:", "Expected (", "We have not run it."):
            assert word in head.replace("# ", "")
    else:
        assert "make demo && " in head
