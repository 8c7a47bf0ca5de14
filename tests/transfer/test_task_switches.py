"""target.task: what a task of VTAB switches off is off in every training, whatever draws and rules say."""

from pathlib import Path

import pytest
from grounds import Grounds, plan

from hpcscale.config import ConfigError
from hpcscale.transfer import bit, settings
from hpcscale.transfer.bit import decided, hyperrule
from hpcscale.transfer.search import draw
from hpcscale.transfer.settings import Plan
from hpcscale.transfer.vtab.tasks import TASKS, Task

BOXES = (
    "input.method=inception",
    "input.crop=32",
    "evaluate.method=short",
    "evaluate.resize=48",
    "evaluate.crop=40",
)
KEYS = {"schedule.lr": 0.1, "train.steps": 3}


def seen(found: settings.Config) -> tuple[object, ...]:
    return (found.input.mirror, found.input.method, found.input.resize, found.input.crop)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_row_43_a_grid_trains_without_what_the_task_switches_off(grounds: Grounds, task: Task) -> None:
    found = plan(grounds, *BOXES, f"target.task={task.folder}")
    for config in (settings.trial(found, KEYS), settings.last(found, KEYS, 0)):
        method, resize = ("inception", None) if task.crop else ("square", 32)
        assert seen(config) == (task.flip, method, resize, 32)
        judged = (config.evaluate.method, config.evaluate.resize, config.evaluate.crop)
        assert judged == (("short", 48, 40) if task.crop else ("square", 40, 40))


def test_row_43_a_search_does_not_mirror_and_squeezes_to_the_drawn_resolution(grounds: Grounds) -> None:
    found = plan(grounds, "target.task=dSpr-loc", method="search")
    keys = draw(found.own.search, 0)
    side = keys["input.crop"]
    for config in (settings.trial(found, keys), settings.last(found, keys, 0)):
        assert seen(config) == (False, "square", side, side)
        assert (config.evaluate.resize, config.evaluate.crop) == (side, side)


def test_row_43_the_rule_gives_way_to_the_task_and_says_so(
    grounds: Grounds, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bit, "typical_size", lambda data: (64, 64))

    def ruled(*overrides: str) -> tuple[dict[str, object], Plan, settings.Config]:
        found = plan(grounds, *overrides, "train.steps=2", method="hyperrule")
        keys, instead = decided(found)
        assert not keys.keys() & instead.keys()
        return instead, found, settings.last(found, keys, 0)

    instead, _, config = ruled("target.task=dSpr-ori", "input.crop=96")
    assert (instead["input.mirror"], seen(config)) == (False, (False, "square", 120, 96))
    instead, _, config = ruled("target.task=Clevr-count", "input.crop=96")
    assert {key: instead[key] for key in ("input.resize", "input.crop")} == {
        "input.resize": 96,
        "input.crop": 96,
    }
    assert "input.mirror" not in instead
    assert seen(config) == (True, "square", 96, 96)
    instead, _, config = ruled("target.task=Pets", "input.crop=96")
    assert (instead.keys() & {"input.mirror", "input.resize"}, seen(config)) == (
        set(),
        (True, "square", 120, 96),
    )


def test_row_43_the_result_names_the_task(grounds: Grounds, tmp_path: Path) -> None:
    small = ("train.batch=8", "train.steps=1", "input.crop=32")
    said = hyperrule(plan(grounds, *small, "target.task=dSpr-loc", method="hyperrule"), tmp_path)
    assert said is not None
    assert (said["task"], said["instead"]["input.mirror"], said["instead"]["input.resize"]) == (
        "dSpr-loc",
        False,
        32,
    )


def test_a_task_gives_the_target_its_name(grounds: Grounds) -> None:
    assert plan(grounds, "target.task=dsprites_ori").target == "fruit"  # which the file says
    text = grounds.file.read_text()
    assert 'name = "fruit"\n' in text
    file = grounds.file.with_name("unnamed.toml")
    file.write_text(text.replace('name = "fruit"\n', ""))
    unnamed = grounds._replace(file=file)
    assert plan(unnamed, "target.task=dsprites_ori").target == "dSpr-ori"
    assert plan(unnamed).target == "data"


@pytest.mark.parametrize("method", ["finetune", "search", "hyperrule"])
@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["target.task=imagenet"], "target.task: .*no task 'imagenet' of VTAB; there are Caltech101, CIFAR-"),
        (["target.task="], "target.task: .*no task '' of VTAB"),
        (
            ["target.task=sNORB-azim", "input.mirror=true"],
            r"input\.mirror: true, but target\.task is sNORB-azim, whose mirrored .* \(azimuth of the camera",
        ),
    ],
)
def test_what_a_task_does_not_allow_is_refused(
    grounds: Grounds, method: str, overrides: list[str], said: str
) -> None:
    with pytest.raises(ConfigError, match=rf"transfer\.toml.*(\n.*)?{said}"):
        plan(grounds, *overrides, method=method)


def test_what_a_task_allows_may_be_said(grounds: Grounds) -> None:
    assert settings.trial(plan(grounds, "target.task=Pets", "input.mirror=true"), KEYS).input.mirror
    off = settings.trial(plan(grounds, "target.task=dSpr-ori", "input.mirror=false"), KEYS)
    assert not off.input.mirror
