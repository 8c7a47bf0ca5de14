"""What commands share: ranks that they start on this machine (cli/terminal.py)."""

import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from hpcscale.cli import main

TRAIN = ("train", "run", "--config", "demo.toml", "--set", "data.train=a b", "--set", "train.batch=30")
COMMANDS = {
    TRAIN: TRAIN,
    ("evaluate", "."): ("evaluate", "."),
    ("evaluate", ".", "--set", "train", "--json", "--batch", "2"):
        ("evaluate", ".", "--set=train", "--batch=2", "--json"),
}  # fmt: skip


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[object]:
    """What `ranks.launch` is called with, which then ends with code 9."""
    calls: list[object] = []

    def launch(*given: object) -> int:
        calls.extend(given)
        return 9

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("hpcscale.ranks.launch", launch)
    monkeypatch.delenv("HOROVOD_RANK", raising=False)
    return calls


@pytest.mark.parametrize("words", list(COMMANDS))
def test_every_rank_runs_the_command_without_ranks(started: list[object], words: tuple[str, ...]) -> None:
    done = CliRunner().invoke(main, [*words, "--ranks", "3"])
    assert done.exit_code == 9, done.output
    assert started == [[sys.executable, "-m", "hpcscale", *COMMANDS[words]], 3]


@pytest.mark.parametrize("words", [TRAIN, ("evaluate", ".")])
def test_a_rank_starts_no_ranks(
    started: list[object], monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.setenv("HOROVOD_RANK", "0")
    done = CliRunner().invoke(main, [*words, "--ranks", "3"])
    assert (done.exit_code, "this process is a rank already" in done.output) == (2, True)
    assert started == []
