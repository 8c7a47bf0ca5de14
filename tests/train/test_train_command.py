"""`hpcscale train` as scripts use it: what it says and its exit codes, those of the batch shell included."""

import errno
from pathlib import Path
from typing import Any

import pytest
import tiny
from click.testing import CliRunner
from runs import begin

from hpcscale import ranks
from hpcscale.cli import main
from hpcscale.train import pretrain, process


def cli(*words: object) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(process, "keep_memory", lambda: None)  # of this process, it would be for good
        return CliRunner().invoke(main, ["train", *map(str, words)])


def test_usage_errors_are_2(recipe: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    for words, message in [
        ([run], "--config"),
        ([run, "--config", tmp_path / "none.toml"], "none.toml"),
        ([run, "--config", recipe, "--set", "train.stepz=3"], "train.stepz: unknown key; known are steps"),
        ([run, "--config", recipe, "--set", "train.batch=3", "--ranks", "2"], "which 2 ranks cannot share"),
        (
            [run, "--config", recipe, "--set", "train.batch=1", "--set", "input.crop=32"],
            "one value per channel is too few",
        ),
        ([run, "--config", recipe, "--ranks", "0"], "0 is not in the range"),
    ]:
        result = cli(*words)
        assert (result.exit_code, message in result.output) == (2, True), result.output
    assert not run.exists()


def test_configuration_of_another_run_is_a_usage_error(recipe: Path, tmp_path: Path) -> None:
    begin(tmp_path, tiny.settings(recipe))
    result = cli(tmp_path, "--config", recipe, "--set", "schedule.lr=1.0")
    assert (result.exit_code, "schedule.lr: 0.002 there, 1.0 here" in result.output) == (2, True)


def test_missing_data_is_a_problem_of_the_data(recipe: Path, tmp_path: Path) -> None:
    result = cli(tmp_path / "run", "--config", recipe, "--set", f"data.train={tmp_path / 'none'}")
    assert (result.exit_code, "none" in result.output) == (1, True)


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (KeyError("why"), 70, "KeyError: 'why'"),
        (OSError(errno.ENOSPC, "No space left on device"), 1, "No space left on device"),
        (OSError(errno.EIO, "Input/output error"), 70, "Input/output error"),
        (ranks.RankLost("rank 3 has gone"), 76, "rank 3 has gone"),
        (ranks.SlurmError("not in block order"), 1, "not in block order"),
    ],
)
def test_codes_that_the_batch_shell_knows(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, code: int, text: str
) -> None:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(pretrain, "train", fail)
    result = cli(tmp_path / "run", "--config", recipe)
    assert (result.exit_code, text in result.output) == (code, True), result.output
