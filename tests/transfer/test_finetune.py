"""Finetuning with a grid: which trials, which is chosen, what is opened when, what is told."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from grounds import LEAKED, Grounds, plan

from hpcscale import config
from hpcscale.cli import main
from hpcscale.config import ConfigError
from hpcscale.evaluate import evaluations
from hpcscale.models import checkpoint
from hpcscale.train import pretrain, process
from hpcscale.train.state import Diverged
from hpcscale.transfer import finetune, trials
from hpcscale.transfer.settings import Grid
from hpcscale.transfer.trials import Outcome, TransferError


@pytest.fixture(scope="module")
def whole(grounds: Grounds, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undisturbed transfer; only to be read."""
    out = tmp_path_factory.mktemp("whole")
    assert finetune.finetune(plan(grounds), out) is not None
    return out


@contextmanager
def away(folder: Path) -> Iterator[None]:
    """Without the folder."""
    hidden = folder.with_name("hidden")
    folder.rename(hidden)
    try:
        yield
    finally:
        hidden.rename(folder)


def said(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "transfer.json").read_text())
    return found


def test_row_38_every_combination_is_a_trial_and_the_best_trains_on_everything(whole: Path) -> None:
    lines = [json.loads(line) for line in (whole / "trials.jsonl").read_text().splitlines()]
    assert [list(line["keys"].values()) for line in lines] == [[2, 0.001], [2, 0.01], [3, 0.001], [3, 0.01]]
    best = max(lines, key=lambda line: line["metrics"]["top1"])  # the first of several
    found, settings = said(whole), config.read(whole / "last-0" / "config.json")
    assert (found["chosen"], found["keys"], found["trials"]) == (best["number"], best["keys"], 4)
    assert (settings.train.steps, settings.schedule.lr) == tuple(best["keys"].values())
    assert (settings.data.held_out, settings.data.stratified) == (0.0, False)
    for line in lines:
        trial = config.read(whole / "trials" / f"{line['number']:03}" / "config.json")
        assert (trial.data.held_out, trial.data.stratified, trial.data.validation) == (0.1, True, None)
        assert line["metrics"]["samples"] == 3  # one of each class


def test_row_38_nothing_opens_the_test_set_before_the_choice(grounds: Grounds, tmp_path: Path) -> None:
    """It is not even there while the trials run; then it is wanted."""
    with away(grounds.test):
        assert finetune.finetune(plan(grounds), tmp_path, (0, 1)) is None
        assert len(list(tmp_path.glob("trials/*/trial.json"))) == 4
        with pytest.raises(Exception, match="packed"):
            finetune.finetune(plan(grounds), tmp_path)
        assert not (tmp_path / "last-0" / "checkpoints").exists()
    assert finetune.finetune(plan(grounds), tmp_path) is not None


def test_row_38_ties_go_to_fewest_steps_then_to_the_lowest_rate_then_to_the_least_decay() -> None:
    grid = Grid(lr=(0.1, 0.2), steps=(5, 9), weight_decay=(0.0, 0.1))
    keys = list(finetune.combinations(grid))
    assert [tuple(one.values()) for one in keys[:3]] == [(5, 0.1, 0.0), (5, 0.1, 0.1), (5, 0.2, 0.0)]
    scores = (0.1, 0.7, None, 0.7)
    outcomes = [Outcome(n, {}, {"top1": score}) for n, score in enumerate(scores)]
    assert trials.best(outcomes, "top1").number == trials.best(outcomes[::-1], "top1").number == 1
    assert list(finetune.combinations(Grid())) == [{}]
    with pytest.raises(TransferError, match=r"no trial can be chosen: trial 3: loss is NaN"):
        trials.best([Outcome(3, {}, {}, "loss is NaN")], "top1")


def test_row_16_the_classifier_is_new_and_all_else_comes_from_the_run(whole: Path, grounds: Grounds) -> None:
    begun = checkpoint.stated(whole / "last-0")
    assert begun is not None
    source = checkpoint.find(grounds.run)
    assert begun["init"] == source.sha256 == said(whole)["weights"]["sha256"]


def test_shares_of_array_tasks_and_a_stopped_trial_give_the_same(
    grounds: Grounds, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained, train = [], pretrain.train

    def stopping(settings: config.Config, run: Path) -> None:
        trained.append(run.name)
        if len(trained) == 2:
            raise KeyboardInterrupt
        train(settings, run)

    monkeypatch.setattr(pretrain, "train", stopping)
    with pytest.raises(KeyboardInterrupt):
        finetune.finetune(plan(grounds), tmp_path, (1, 2))
    assert finetune.finetune(plan(grounds), tmp_path, (1, 2)) is None
    assert trained == ["001", "003", "003"]
    assert finetune.finetune(plan(grounds), tmp_path) is not None
    assert trained[3:] == ["000", "002", "last-0"]
    assert (tmp_path / "trials.jsonl").read_text() == (whole / "trials.jsonl").read_text()
    one, other = (
        evaluations.read(next((out / "last-0").glob("evaluations/*")))[0] for out in (tmp_path, whole)
    )
    assert (one.scores == other.scores).all()


def test_a_trial_that_diverges_fails_alone(
    grounds: Grounds, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    train = pretrain.train

    def diverging(settings: config.Config, run: Path) -> None:
        if run.name == "000":
            raise Diverged("the loss is not a number")
        if run.name == "001":
            raise torch.OutOfMemoryError("tried to allocate 20 GiB\nmore of it")
        train(settings, run)

    monkeypatch.setattr(pretrain, "train", diverging)
    found = finetune.finetune(plan(grounds), tmp_path)
    assert found is not None
    assert (found["failed"], found["chosen"]) == (2, 2)
    told = capsys.readouterr().err
    assert "trial 0 of 4 (train.steps 2, schedule.lr 0.001): failed: the loss is not a number\n" in told
    assert "failed: not enough memory: tried to allocate 20 GiB\n" in told


def test_a_leak_between_pretraining_and_the_test_set_is_in_the_result(whole: Path) -> None:
    (result,) = said(whole)["results"]
    audit = result["audit"]
    assert audit["duplicates"] == LEAKED
    assert audit["samples"] == result["metrics"]["samples"] == 26
    assert audit["dedup"]["samples"] == 26 - LEAKED
    assert audit["full"] == result["metrics"]


def test_other_settings_in_the_same_folder_are_refused(grounds: Grounds, whole: Path) -> None:
    before = (whole / "trials.jsonl").read_bytes()
    with pytest.raises(ConfigError, match=r"000/trial\.json: it had other settings; choose another folder"):
        finetune.finetune(plan(grounds, "train.seed=9"), whole)
    assert (whole / "trials.jsonl").read_bytes() == before


def test_a_finished_transfer_trains_nothing_again(
    grounds: Grounds, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, trained = said(whole), []
    train = pretrain.train
    monkeypatch.setattr(
        pretrain, "train", lambda settings, run: (trained.append(run.name), train(settings, run))
    )
    assert finetune.finetune(plan(grounds), whole) == before == said(whole)
    assert trained == ["last-0"]  # which finds itself finished


def test_the_command_prints_the_result(
    grounds: Grounds, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "keep_memory", lambda: None)
    command = ["transfer", "finetune", "random", "--config", str(grounds.file), "--out", str(tmp_path / "o")]
    command += ["--set", "grid.steps=[1]", "--set", "grid.lr=[0.1]", "--set", "target.seeds=[0, 1]", "--json"]
    found = CliRunner().invoke(main, command)
    assert found.exit_code == 0, found.output
    result = json.loads(found.stdout)
    assert (result["source"], result["target"], result["weights"]) == ("random", "fruit", None)
    assert [one["seed"] for one in result["results"]] == [0, 1]
    assert result["results"][0]["unaudited"] == "random weights have seen no pictures"
    table = CliRunner().invoke(main, ["report", str(tmp_path / "o")])
    assert table.exit_code == 0, table.output
    assert "| random, finetune |" in table.stdout
    assert " ± " in table.stdout
