"""The file of a transfer and its source: what is filled in, what is refused."""

from pathlib import Path

import pytest
from grounds import Grounds, plan

from hpcscale import config
from hpcscale.config import ConfigError
from hpcscale.models import checkpoint
from hpcscale.transfer import settings
from hpcscale.transfer.settings import RECIPES
from hpcscale.transfer.source import find

METHODS = {"sun2017_to_imagenet": "finetune", "kolesnikov2020_to_vtab": "search"}


def test_a_recipe_gets_what_the_run_needs_and_may_say_otherwise(grounds: Grounds) -> None:
    trial = settings.trial(plan(grounds), {"schedule.lr": 0.5, "train.steps": 7})
    assert (trial.model.init, trial.model.name, trial.model.stride) == (grounds.run, "resnet50", "3x3")
    assert (trial.schedule.lr, trial.train.steps, trial.data.held_out) == (0.5, 7, 0.1)
    other = plan(grounds, "model.name=resnet101", "data.held_out=0.3", source="random")
    trial = settings.trial(other, {"schedule.lr": 0.5, "train.steps": 7})
    assert (trial.model.init, trial.model.name) == (None, "resnet101")
    assert (trial.data.held_out, trial.data.stratified) == (0.3, False)


def test_sources(grounds: Grounds, tmp_path: Path) -> None:
    newest = checkpoint.find(grounds.run)
    assert find(str(newest.file)).run == find(str(grounds.run)).run
    assert find(str(newest.file)).name == find(str(grounds.run)).name == "run"
    weights = tmp_path / "published.npz"
    weights.touch()
    assert (find(str(weights)).run, find(str(weights)).name) == (None, "published.npz")
    assert find("random").recipe() == {"model": {}, "input": {}}


@pytest.mark.parametrize("source", ["nowhere", ""])
def test_a_source_that_is_none_is_refused(tmp_path: Path, source: str) -> None:
    with pytest.raises(ConfigError, match="neither a run folder, nor a file of weights, nor 'random'"):
        find(source or str(tmp_path))


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["data.validation=x"], r"data\.validation: a transfer is judged on target\.test"),
        (["grid.lr=[0.1, 0.01]"], r"'lr' must rise strictly, found \[0\.1, 0\.01\]: ties go to the first"),
        (["grid.lr=[0.1, 0.1]"], "must rise strictly"),
        (["target.metric=top5"], r"target\.metric"),
        (["target.tets=x"], r"target\.tets: unknown key; known are test, name, task, metric"),
        (["target.seeds=[]"], r"target\.seeds"),
        (["ranks.backend=mpi"], "backend"),
    ],
)
def test_what_cannot_be_is_refused(grounds: Grounds, overrides: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        plan(grounds, *overrides)


def test_problems_of_the_recipe_name_the_file(grounds: Grounds) -> None:
    with pytest.raises(
        ConfigError, match=r"transfer\.toml, a trial: 2 problem\(s\)\n  schedule\.lr: missing"
    ):
        settings.trial(plan(grounds), {})


@pytest.mark.parametrize("name", sorted(file.stem for file in RECIPES.glob("*.toml")))
def test_recipes_of_the_package_are_whole(name: str) -> None:
    """And found by their names; what they lack, a grid or a search has."""
    method = METHODS.get(name, "finetune")
    found = settings.load(Path(f"{name}.toml"), (), find("random"), method)
    keys = {"schedule.lr": 0.1, "train.steps": 100} if name != "sun2017_to_imagenet" else {}
    trial = settings.trial(found, keys)
    assert trial.data.held_out == (0.2 if method == "search" else 0.1)
    text = (RECIPES / f"{name}.toml").read_text()
    assert "We have not run it." in text
    assert f"--config {name}.toml" in text


def test_row_39_from_jft_to_imagenet(grounds: Grounds) -> None:
    """Sun et al. 2017, 5.1: the baseline's recipe with another rate and length; no search."""
    ours = settings.load(Path("sun2017_to_imagenet.toml"), (), find(str(grounds.run)))
    last = settings.last(ours, {}, 0)
    baseline = config.load(Path("sun2017_imagenet.toml"))
    assert (last.schedule.lr, last.train.steps) == (1e-3, 4_000_000)
    assert last.schedule.model_copy(update={"lr": 5e-2, "at": baseline.schedule.at}) == baseline.schedule
    assert last.schedule.at == baseline.schedule.at[:3]
    for section in ("input", "loss", "optimizer", "sampling", "noise", "downpour"):
        assert getattr(last, section) == getattr(baseline, section), section
    assert (last.train.batch, last.model.init) == (baseline.train.batch, grounds.run)
    assert (last.model.head, last.data.held_out, last.data.validation) == ("new", 0.0, Path("val"))
