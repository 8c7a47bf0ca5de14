"""samples/make.py: an index file is the same, whatever kills calls and whoever shares the work."""

import signal
import subprocess
import sys
from pathlib import Path

import labelled
import pytest
from click.testing import CliRunner

from hpcscale.cli import main
from hpcscale.data.store import DataSet
from hpcscale.files import Told
from hpcscale.samples.make import make_index

KILLED = """
import os, pathlib, signal, sys
sys.path.insert(0, sys.argv[1])
import labelled
from hpcscale.data.store import open_data
from hpcscale.samples import make
passed, moment = 0, 0
def may_die(function):
    def step(*arguments, **options):
        pass_by()
        answer = function(*arguments, **options)
        pass_by()
        return answer
    return step
def pass_by():
    global passed
    passed += 1
    if passed == moment:
        os.kill(os.getpid(), signal.SIGKILL)
os.fsync, pathlib.Path.rename, pathlib.Path.unlink = map(
    may_die, (os.fsync, pathlib.Path.rename, pathlib.Path.unlink)
)
make.build = may_die(make.build)
settings = labelled.settings(open_data(pathlib.Path(sys.argv[2])), **eval(sys.argv[3]))
for file in sys.stdin:
    moment += 1
    if not (child := os.fork()):
        make.make_index(settings, pathlib.Path(file[:-1]))
        os._exit(0)
    print(os.waitpid(child, 0)[1], flush=True)
"""
KEYS = {"selection__size": 100, "noise__share": 0.3, "sampling__name": "sqrt", "data__held_out_per_class": 1}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    return labelled.make_set(tmp_path_factory.mktemp("labelled"), 120)


def test_killed_at_any_step_the_same_command_goes_on(data: DataSet, tmp_path: Path) -> None:
    settings = labelled.settings(data, **KEYS)
    make_index(settings, tmp_path / "whole.h5")
    wanted, kills = (tmp_path / "whole.h5").read_bytes(), 0
    command = [sys.executable, "-c", KILLED, str(Path(__file__).parents[1]), str(data.folder), repr(KEYS)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        while True:
            file = tmp_path / f"killed-{kills}" / "index.h5"
            print(file, file=process.stdin, flush=True)
            status = int(process.stdout.readline())
            assert not file.exists() or file.read_bytes() == wanted
            make_index(settings, file)
            assert file.read_bytes() == wanted
            assert [path.name for path in file.parent.iterdir()] == ["index.h5"]
            if status != signal.SIGKILL:
                break
            kills += 1
    assert (status, kills > 15) == (0, True)


def run(*words: object) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["data", "index", *map(str, words)])
    return result.exit_code, result.output


def test_tasks_share_the_work_of_the_command(data: DataSet, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        f'[data]\ntrain = "{data.folder}"\nvocabulary = "{data.folder.parent / "vocabulary.json"}"\n'
        "[schedule]\nlr = 1\n[train]\nsteps = 1\nbatch = 1\n"
    )
    size = ("--set", "selection.size=50")
    for part in ("1/2", "0/2"):
        assert run(recipe, tmp_path / "index.h5", *size, "--part", part) == (0, "")
    code, said = run(recipe, tmp_path / "index.h5", *size)
    assert (code, "50 samples to train on, 0 held out" in said, "24 samples have no class" in said) == (
        0,
        True,
        True,
    )
    assert run(recipe, tmp_path / "index.h5", *size)[0] == 0
    code, said = run(recipe, tmp_path / "index.h5")
    assert (code, "index.h5: is there already, and is no index of this recipe" in said) == (2, True), said
    code, said = run(recipe, data.folder.parent / "vocabulary.json")
    assert (code, "vocabulary.json" in said) == (2, True), said
    assert (data.folder.parent / "vocabulary.json").read_text().startswith("{")


def test_nothing_is_left_where_a_list_is_wrong(data: DataSet, tmp_path: Path) -> None:
    (tmp_path / "drop.txt").write_text("x.png\n")
    settings = labelled.settings(data, data__drop=str(tmp_path / "drop.txt"))
    with pytest.raises(Told, match=r"drop\.txt: 1 of 1 names are not in"):
        make_index(settings, tmp_path / "index.h5")
    assert not (tmp_path / "index.h5").exists()
