"""transfer/vtab/tasks.py and scores.py: the table of VTAB, its switches, its mean, and the commands."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from stored import Pictures

from hpcscale import config
from hpcscale.cli import main
from hpcscale.data.order import Whole
from hpcscale.files import FileError, Usage
from hpcscale.inputs.crops import random_crops
from hpcscale.transfer.vtab import scores
from hpcscale.transfer.vtab.tasks import GROUPS, TASKS, Task, find, overrides

# Name, group (natural, specialised, structured), classes, samples, what is off; independent of the package:
# section 25 of the project's collection of facts, supplement E of BiT, tests of task_adaptation.
TABLE = """
Caltech101 n 102 2754 306 6084
CIFAR-100 n 100 45000 5000 10000
DTD n 47 1880 1880 1880
Flowers102 n 102 1020 1020 6149
Pets n 37 2944 736 3669
SVHN n 10 65931 7326 26032
Sun397 n 397 76128 10875 21750
Camelyon sp 2 262144 32768 32768
EuroSAT sp 10 16200 5400 5400
Resisc45 sp 45 18900 6300 6300
Retinopathy sp 5 35126 10906 42670
Clevr-count st 8 63000 7000 15000 crop
Clevr-dist st 6 63000 7000 15000 crop
DMLab st 6 65550 22628 22735 crop
KITTI-dist st 4 6347 423 711 crop
dSpr-loc st 16 589824 73728 73728 flip crop
dSpr-ori st 16 589824 73728 73728 flip
sNORB-azim st 18 24300 12150 12150 flip
sNORB-elev st 9 24300 12150 12150
"""
# Accuracies in percent that task_adaptation publishes (docs/data/results.csv), in the order of our table.
SUP_1K = (90.95395, 57.02999, 66.01064, 88.60677, 89.87445, 87.31945, 34.41409, 80.61218, 95.31481,
          80.84498, 73.19754, 40.95999, 56.11333, 36.28564, 70.56962, 85.73133, 45.96083, 45.74275,
          35.44137)  # fmt: skip
SUP_FULL = (94.11184, 83.81999, 74.04255, 93.21289, 91.94869, 96.96912, 70.74595, 83.93249, 98.75926,
            95.33037, 79.25886, 99.82, 92.09333, 76.43436, 80.6962, 100.0, 96.44639, 99.7859,
            97.66139)  # fmt: skip


def by_task(percent: tuple[float, ...]) -> dict[str, float]:
    return {task.name: value / 100 for task, value in zip(TASKS, percent, strict=True)}


def row(task: Task) -> str:
    group = {"natural": "n", "specialised": "sp", "structured": "st"}[task.group]
    numbers = (task.classes, task.train, task.val, task.test)
    return " ".join(map(str, (task.name, group, *numbers, *task.off)))


def test_row_43_the_table_is_that_of_the_papers() -> None:
    assert [row(task) for task in TASKS] == TABLE.split("\n")[1:-1]
    assert len({task.folder for task in TASKS}) == 19
    assert all(task.label for task in TASKS)


@pytest.mark.parametrize(("percent", "mean"), [(SUP_1K, 66.3676), (SUP_FULL, 89.7405)])
def test_row_43_the_score_is_the_published_mean(percent: tuple[float, ...], mean: float) -> None:
    """Of its ResNet-50 supervised with all of ImageNet, on 1,000 samples a task and on all."""
    found = scores.score(by_task(percent))
    assert found.mean == pytest.approx(mean / 100, abs=1e-6)
    assert found.missing == ()


def test_row_43_groups_weigh_by_their_tasks_as_in_bit() -> None:
    """Its R152x4 has 80.77 on natural tasks, 85.67 on specialised and 61.08 on structured, 73.51 on all."""
    printed = dict(zip(GROUPS, (0.8077, 0.8567, 0.6108), strict=True))
    found = scores.score({task.name: printed[task.group] for task in TASKS})
    assert found.mean == pytest.approx(0.7351, abs=5e-5)
    assert found.groups == pytest.approx(printed)


def test_a_set_that_lacks_tasks_has_no_mean_unless_asked() -> None:
    given = {name: value for name, value in by_task(SUP_1K).items() if name not in ("Pets", "dSpr-ori")}
    found = scores.score(given)
    assert found.missing == ("Pets", "dSpr-ori")
    assert found.mean is found.groups["natural"] is found.groups["structured"] is None
    assert found.groups["specialised"] == pytest.approx(np.mean(SUP_1K[7:11]) / 100)
    part = scores.score(given, partial=True)
    assert part.mean == pytest.approx(np.mean(list(given.values())))
    assert (part.missing, part.tasks) == (found.missing, given)
    nothing = scores.score({}, partial=True)
    assert (nothing.mean, len(nothing.missing)) == (None, 19)


@pytest.mark.parametrize(("text", "said"), [
    ('{"Pets": 89.8}', "Pets: the accuracy must be from 0 to 1, found 89.8"),
    ('{"Pets": true}', "found True"),
    ('{"Pets": "0.5"}', "found '0.5'"),
    ('{"Pets": 0.5, "oxford_iiit_pet": 0.6}', "oxford_iiit_pet: Pets has an accuracy already"),
    ("[0.5]", "expected an object of tasks and accuracies, found list"),
    ("{", "not JSON"),
])  # fmt: skip
def test_scores_that_are_none_name_their_file(text: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "scores.json"
    file.write_text(text)
    with pytest.raises(FileError, match=f"^{file}") as error:
        scores.read(file)
    assert said in str(error.value)


def test_a_task_is_found_by_both_names() -> None:
    assert find("sNORB-elev") is find("smallnorb_ele")
    with pytest.raises(Usage, match="no task 'imagenet' of VTAB; there are Caltech101, CIFAR-100"):
        find("imagenet")


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_row_43_recipes_leave_out_what_a_task_switches_off(task: Task, tmp_path: Path) -> None:
    """By the crops that a run would take of pictures of other shapes than a square."""
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        '[data]\ntrain = "d"\nvocabulary = "v"\n[input]\nmethod = "square"\nresize = 40\ncrop = 32\n'
        "[schedule]\nlr = 0.1\n[train]\nsteps = 1\nbatch = 1\n"
    )
    settings = config.load(
        recipe, [f"{key}={json.dumps(value)}" for key, value in overrides(task, 32, 32).items()]
    )
    data, count = Pictures([], None), 64
    data.samples = count

    def sizes(samples: np.ndarray) -> np.ndarray:
        return np.tile(np.array([[48, 60]], np.int32), (len(samples), 1))

    cut = random_crops(data, Whole(count, 0), settings.input, 0, sizes)  # type: ignore[arg-type]
    crops = cut(np.arange(count, dtype=np.int64))
    assert bool(crops.mirror.any()) is task.flip
    places = {tuple(each) for each in np.concatenate([crops.windows, crops.starts], axis=1).tolist()}
    assert (len(places) > 1) is task.crop


def run(*words: str) -> str:
    done = CliRunner().invoke(main, ["transfer", *words])
    assert done.exit_code == 0, done.output
    return done.output


def test_the_table_is_printed_as_json_and_to_be_read() -> None:
    found = json.loads(run("tasks", "--json"))
    assert [task["name"] for task in found["tasks"]] == [task.name for task in TASKS]
    assert found["tasks"][15]["off"] == ["flip", "crop"]
    assert found["sources"]["group"].startswith("assumed")
    text = run("tasks")
    assert "| dSpr-loc    |  structured |      16 | 589824 | 73728 | 73728 | flip crop |" in text
    assert "sNORB-elev: elevation of the camera" in text


def test_scores_are_printed_with_what_is_missing(tmp_path: Path) -> None:
    file = tmp_path / "scores.json"
    file.write_text(json.dumps({"Pets": 0.5, "DTD": 0.25}))
    text = run("tasks", "--scores", str(file))
    assert "| all         |     – |" in text
    assert "17 of 19 tasks are missing: Caltech101, CIFAR-100, Flowers102" in text
    found = json.loads(run("tasks", "--scores", str(file), "--partial", "--json"))
    assert found["mean"] == found["groups"]["natural"] == 0.375
    assert len(found["missing"]) == 17
