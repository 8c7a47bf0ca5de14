"""A published split in a transfer: trials are judged by the samples that a list names, the result by none."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from grounds import Grounds, plan

from hpcscale import config
from hpcscale.cli import words
from hpcscale.config import ConfigError
from hpcscale.data.store import open_data
from hpcscale.evaluate import evaluations
from hpcscale.files import Told
from hpcscale.transfer import path
from hpcscale.transfer.finetune import finetune
from hpcscale.transfer.linear import probe
from hpcscale.transfer.search import search
from hpcscale.transfer.vtab import splits

SMALL = ("search.trials=1", "search.steps=[1]", "search.resolution=[32]", "train.batch=6")


@pytest.fixture
def listed(grounds: Grounds, tmp_path: Path) -> Path:
    """`val6.txt` of our own split of the training set."""
    data = open_data(grounds.file.parent / "target" / "data")
    return splits.write_hashed(data, tmp_path / "split", sizes=(20, 6)).with_name("val6.txt")


def counts(run: Path) -> tuple[int, int]:
    (start,) = tiny.events(run, "start")
    return start["data"]["trained_on"], start["data"]["held_out"]


def test_row_42_a_search_is_judged_by_the_published_split(
    grounds: Grounds, listed: Path, tmp_path: Path
) -> None:
    key, out = f"data.held_out_names={listed}", tmp_path / "out"
    assert search(plan(grounds, *SMALL, key, method="search"), out) is not None
    trial, last = out / "trials" / "000", out / "last-0"
    assert (counts(trial), counts(last)) == ((20, 6), (26, 0))
    (folder,) = (trial / "evaluations").glob("held_out-*[0-9]")
    assert sorted(evaluations.read(folder)[1]) == listed.read_text().split()
    settings = config.read(last / "config.json").data
    assert (settings.held_out, settings.held_out_names, settings.stratified) == (0.0, None, False)


def test_a_trial_that_other_names_judged_is_not_taken_over(
    grounds: Grounds, listed: Path, tmp_path: Path
) -> None:
    keys = ("grid.steps=[1]", f"data.held_out_names={listed}")
    assert finetune(plan(grounds, *keys), tmp_path / "out", (0, 2)) is None
    moved = listed.rename(tmp_path / "moved.txt")
    keys = ("grid.steps=[1]", f"data.held_out_names={moved}")
    assert finetune(plan(grounds, *keys), tmp_path / "out", (0, 2)) is None
    moved.write_text("".join(moved.read_text().splitlines(keepends=True)[1:]))
    with pytest.raises(ConfigError, match=r"000/trial\.json: it had other settings"):
        finetune(plan(grounds, *keys), tmp_path / "out", (0, 2))


def test_a_probe_is_judged_by_the_names_too(
    grounds: Grounds, listed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[Any] = []
    choose = path.choose

    def watching(x: Any, y: Any, l2s: Any, out: Any, *rest: Any) -> path.Chosen:
        held.append(np.flatnonzero(out))
        return choose(x, y, l2s, out, *rest)

    monkeypatch.setattr(path, "choose", watching)
    keys = ("probe.l2=[0.01, 0.1]", f"data.held_out_names={listed}")
    assert probe(plan(grounds, *keys), tmp_path / "out") is not None
    data = open_data(grounds.file.parent / "target" / "data")
    assert sorted(data.names(held[0])) == listed.read_text().split()


def test_names_that_are_not_there_and_a_second_split_are_refused(
    grounds: Grounds, listed: Path, tmp_path: Path
) -> None:
    key = f"data.held_out_names={listed}"
    with pytest.raises(ConfigError, match="'held_out_names' stands instead of 'held_out'"):
        search(plan(grounds, *SMALL, key, "data.held_out=0.2", method="search"), tmp_path / "out")
    listed.write_text(listed.read_text() + "elsewhere.jpg\n")
    with pytest.raises(Told, match=r"val6\.txt: 1 of 7 names are not in .* 'elsewhere\.jpg'"):
        search(plan(grounds, *SMALL, key, method="search"), tmp_path / "out")


def test_a_job_reads_the_list(grounds: Grounds, listed: Path) -> None:
    typed = ["transfer", "search", str(grounds.run), "--config", str(grounds.file), "--out", "found"]
    typed += ["--set", f"data.held_out_names={listed}"]
    assert listed in words.read(typed, exists=True).paths
