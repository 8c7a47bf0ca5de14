"""`hpcscale labels classes`: which classes are listed, what is told, what is refused."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from hpcscale.cli import main
from hpcscale.labels.restrict import read_classes
from hpcscale.labels.vocabulary import Vocabulary, load, save

FLAT = Vocabulary(
    classes=("tench", "crane", "dog", "cat", "flower", "tree"),
    parents=((),) * 6,
    senses=(("n01440764",), ("n02012849", "n03126707"), (), (), (), ()),
    tags={"tench": 0, "crane": 1, "dog": 2, "cat": 3, "flower": 4, "tree": 5},
    counts=(5, 1, 20, 30, 20, 20),
    samples=100,
    labelled=96,
    about={"hierarchy": "none"},
)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save(FLAT, Path("v.json"))
    Path("in.txt").write_text("n01440764\n#crane\n")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["labels", "classes", "v.json", "--out", "list.txt", *arguments])


def listed(file: str = "list.txt") -> list[str]:
    return Path(file).read_text().split("\n")


def test_row_07_longer_lists_contain_shorter_ones() -> None:
    sets = []
    for most in range(5):
        done = run("--with", "in.txt", "--most", str(most))
        assert (done.exit_code, done.stderr) == (0, "")
        assert done.stdout == f"list.txt: {most + 2} classes of 6, 2 of them listed\n"
        sets.append(set(read_classes(Path("list.txt"), load(Path("v.json")))))
    assert sets == [{0, 1}, {0, 1, 3}, {0, 1, 2, 3}, {0, 1, 2, 3, 4}, {0, 1, 2, 3, 4, 5}]
    assert listed() == ["# hpcscale classes 1", "tench", "crane", "dog", "cat", "flower", "tree", ""]


def test_the_most_frequent_alone() -> None:
    assert run("--most", "1").exit_code == 0
    assert listed() == ["# hpcscale classes 1", "cat", ""]
    done = run("--most", "7")
    assert done.exit_code == 0
    assert "v.json: there are only 6 other classes, not 7" in done.stderr


def test_row_07_classes_that_the_vocabulary_lacks_are_left_out_on_request() -> None:
    Path("in.txt").write_text("tench\n# x\nzebra\n#\ntrea\nlion\n")
    done = run("--with", "in.txt")
    assert done.exit_code == 1
    assert "in.txt: 3 of its names stand for no class of the vocabulary, the first is 'zebra' in line 3" in (
        " ".join(done.stderr.split())
    )
    assert not Path("list.txt").exists()
    done = run("--with", "in.txt", "--skip-missing")
    assert done.exit_code == 0
    assert done.stderr == "in.txt: left out 3 that the vocabulary lacks, the first is 'zebra' in line 3\n"
    assert listed() == ["# hpcscale classes 1", "tench", ""]
    Path("in.txt").write_text("zebra\n")
    Path("list.txt").unlink()
    done = run("--with", "in.txt", "--skip-missing")
    assert (done.exit_code, Path("list.txt").exists()) == (1, False)
    assert "no class is left" in done.stderr


def test_classes_that_no_picture_can_have_are_told() -> None:
    tree = FLAT._replace(parents=((), (), (5,), (5,), (), ()), tags={"dog": 2, "flower": 4})
    save(tree, Path("v.json"), force=True)
    Path("in.txt").write_text("tree\nflower\ntench\n")
    assert "no picture can have 1 of the classes, such as 'tench'" in run("--with", "in.txt").stderr
    Path("in.txt").write_text("tree\nflower\ndog\n")
    assert run("--with", "in.txt").stderr == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "which classes?"),
        (["--skip-missing"], "which classes?"),
        (["--with", "gone.txt"], "gone.txt"),
        (["--most", "-1"], "-1"),
        (["--with", "list.txt"], "is an input of this command"),
        (["--most", "1", "--out", "v.json"], "is an input of this command"),
        (["--most", "1", "--out", "other.txt"], "is there already, and not what this command writes"),
    ],
)
def test_wrong_usage(arguments: list[str], message: str) -> None:
    Path("other.txt").write_text("tench\n")
    Path("list.txt").write_text("# hpcscale classes 1\ntench\n")
    done = run(*arguments)
    assert done.exit_code == 2
    assert message in " ".join(done.stderr.split())
    assert listed("other.txt") == ["tench", ""]
