"""Which run a folder may go on with: refused are another configuration, other data, a second process."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny
from runs import assert_same_bits, begin, watch_samples

from hpcscale import config
from hpcscale.config import ConfigError
from hpcscale.models import checkpoint
from hpcscale.train import run_folder
from hpcscale.train.pretrain import train


def test_finished_run_does_nothing_more(recipe: Path, whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    train(tiny.settings(recipe), run)
    assert_same_bits(run, whole)


def test_cadence_may_change_and_steps_may_grow(recipe: Path, tmp_path: Path) -> None:
    settings = tiny.settings(recipe)
    begin(tmp_path, settings)
    longer = tiny.settings(recipe, train__steps=7, train__keep=9, train__log_every=2, input__threads=3)
    run_folder.agree(tmp_path, longer)
    run_folder.keep(tmp_path, longer)
    assert config.read(tmp_path / "config.json") == longer


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"schedule__lr": 0.5, "train__seed": 1},
            r"schedule.lr: 0.002 there, 0.5 here\n  train.seed: 3 there, 1 here",
        ),
        ({"train__steps": 5}, "train.steps: 6 there, 5 here"),
        ({"train__batch": 8}, "train.batch: 4 there, 8 here"),
        ({"schedule__name": "cosine"}, "schedule.name: 'constant' there, 'cosine' here"),
        ({"data__held_out": 0.5}, "data.held_out: 0.0 there, 0.5 here"),
    ],
)
def test_another_configuration_is_refused_by_key(
    recipe: Path, tmp_path: Path, keys: dict[str, Any], message: str
) -> None:
    settings = tiny.settings(recipe)
    begin(tmp_path, settings)
    with pytest.raises(ConfigError, match=message):
        run_folder.agree(tmp_path, tiny.settings(recipe, **keys))
    assert config.read(tmp_path / "config.json") == settings


def test_steps_may_not_grow_under_a_schedule_that_depends_on_them(recipe: Path, tmp_path: Path) -> None:
    begin(tmp_path, tiny.settings(recipe, schedule__name="cosine"))
    with pytest.raises(ConfigError, match=r"train.steps: 6 there, 9 here"):
        run_folder.agree(tmp_path, tiny.settings(recipe, schedule__name="cosine", train__steps=9))


def test_other_data_under_the_same_name_are_refused(recipe: Path, whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    for record in checkpoint.folder(run).glob("*.json"):
        tiny.rewrite(record, lambda content: content["metadata"].update(classes="other"))
    with pytest.raises(ConfigError, match=r"data\.vocabulary: not the contents that .*step-00000006"):
        train(tiny.settings(recipe, train__steps=8), run)


def test_dropped_samples_are_never_seen_and_the_list_may_not_change(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dropped = [f"{i:02}.jpg" for i in range(0, tiny.PICTURES, 2)]
    (tmp_path / "drop.txt").write_text("".join(f"{name}\n" for name in dropped))
    seen = watch_samples(monkeypatch)
    run = tmp_path / "run"
    train(tiny.settings(recipe, data__drop=str(tmp_path / "drop.txt")), run)
    assert {i % 2 for batch in seen for i in batch} == {1}
    (tmp_path / "drop.txt").write_text("00.jpg\n")
    with pytest.raises(ConfigError, match=r"data\.drop, .*: not the contents that .*step-00000006"):
        train(tiny.settings(recipe, data__drop=str(tmp_path / "drop.txt"), train__steps=8), run)


def test_one_process_at_a_time(recipe: Path, tmp_path: Path) -> None:
    with run_folder.lock(tmp_path), pytest.raises(run_folder.RunError, match=f"process {os.getpid()} on"):
        train(tiny.settings(recipe), tmp_path)
