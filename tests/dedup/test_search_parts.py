"""dedup search --part: the bytes of one call, however many tasks shared it, killed, run twice or at once."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from tasks import NO_LOCKS, together
from test_search import brute, codes_file, kill_at

from hpcscale.cli import main
from hpcscale.data.codes import Codes, write_codes
from hpcscale.data.parts import Busy, locked
from hpcscale.dedup import blocks, cosine
from hpcscale.dedup.search import Near, SearchError, search

# Short blocks, and slow, so that a kill finds something to interrupt.
SLOW = """
import time
import hpcscale.dedup.blocks as blocks
blocks.LEAST, blocks.PIECE, do = 4, 50, blocks._do
blocks._do = lambda *arguments: (time.sleep(0.05), do(*arguments))
"""


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "LEAST", 4)
    monkeypatch.setattr(blocks, "PIECE", 50)


def start(out: Path, *arguments: str | Path, before: str = SLOW) -> subprocess.Popen[str]:
    code = f"{before}\nfrom hpcscale.cli import main; main()"
    command = [sys.executable, "-c", code, "dedup", "search", *map(str, arguments), "--out", str(out)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def end(process: subprocess.Popen[str]) -> tuple[int, str]:
    output, errors = process.communicate(timeout=120)
    return process.returncode, output + errors


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize("tasks", [1, 2, 5])
def test_tasks_find_what_one_call_finds(tmp_path: Path, short: None, alone: bool, tasks: int) -> None:
    a, b = codes_file(tmp_path / "a.h5", 100, 1), codes_file(tmp_path / "b.h5", 70, 2)
    first, second, out = tmp_path / "a.h5", None if alone else tmp_path / "b.h5", tmp_path / "out.tsv"
    found = [search(first, second, out, part=(task, tasks)) for task in range(tasks)]
    assert not out.exists()
    assert len(list((tmp_path / "out.tsv.parts").glob("*.pairs"))) >= 2 * tasks
    if tasks > 1:  # each had something to do
        assert all(share.pairs for share in found)
    whole = search(first, second, out)
    assert out.read_text() == brute(a, None if alone else b, 31, 50)
    assert sum(share.pairs for share in found) == whole.pairs
    assert {share[1:] for share in found} == {whole[1:]}
    assert sorted(os.listdir(tmp_path)) == ["a.h5", "b.h5", "out.tsv", "out.tsv.json"]


@pytest.mark.parametrize("options", [{"cosine": 0.2}, {"neighbours": 3}, {"neighbours": 3, "cosine": 0.5}])
@pytest.mark.parametrize("alone", [True, False])
def test_tasks_over_embeddings(
    tmp_path: Path, short: None, monkeypatch: pytest.MonkeyPatch, options: dict, alone: bool
) -> None:
    for name, rows in (("a", 50), ("b", 33)):
        features = np.random.default_rng(rows).normal(size=(rows, 5)).astype(np.float32)
        features[rows // 2] = features[0]  # ties
        features /= np.linalg.norm(features, axis=1, keepdims=True)
        names = [f"{name}{row}" for row in range(rows)]
        write_codes(
            tmp_path / name, Codes(names, features, np.full(rows, 100, np.uint8), "mean", checkpoint="c")
        )
    other = None if alone else tmp_path / "b"
    search(tmp_path / "a", other, tmp_path / "whole", Near(**options))
    monkeypatch.setattr(cosine, "FLOATS", 5 * 19)  # blocks of 19, then of 9: some of A lie across two of B
    for task in (3, 0, 1):
        search(tmp_path / "a", other, tmp_path / "out", Near(**options), part=(task, 4))
    assert len(list((tmp_path / "out.parts").glob("*.pairs"))) >= 3
    search(tmp_path / "a", other, tmp_path / "out", Near(**options))  # and what task 2 did not
    assert (tmp_path / "out").read_text() == (tmp_path / "whole").read_text()
    assert (tmp_path / "out").stat().st_size


def test_tasks_at_the_same_time(tmp_path: Path) -> None:
    a, out = codes_file(tmp_path / "a.h5", 100, 1), tmp_path / "out.tsv"
    small = "import hpcscale.dedup.blocks as blocks\nblocks.LEAST = 4\n"
    before = small + together("hpcscale.dedup.blocks", "_do", tmp_path / "marks", 3)
    tasks = [start(out, tmp_path / "a.h5", "--part", f"{i}/3", before=before) for i in range(3)]
    for task, (code, output) in enumerate([end(process) for process in tasks]):
        assert (code, f"part {task}/3: " in output) == (0, True), output
    assert end(start(out, tmp_path / "a.h5", before=""))[0] == 0
    assert out.read_text() == brute(a, None, 31, 50)


def test_killed_tasks_run_again_or_are_made_up_for(tmp_path: Path) -> None:
    a, out = codes_file(tmp_path / "a.h5", 100, 1), tmp_path / "out.tsv"
    killed = 0
    for part, sign in (("0/2", "task.json"), ("0/2", "0-0.pairs"), ("0/2", "random"), ("1/2", "0-12.pairs")):
        process = start(out, tmp_path / "a.h5", "--part", part)
        kill_at(process, tmp_path / "out.tsv.parts" / sign)
        killed += end(process)[0] == -signal.SIGKILL
    assert killed >= 2
    assert end(start(out, tmp_path / "a.h5", "--part", "0/2"))[0] == 0
    assert end(start(out, tmp_path / "a.h5"))[0] == 0
    assert out.read_text() == brute(a, None, 31, 50)
    assert sorted(os.listdir(tmp_path)) == ["a.h5", "out.tsv", "out.tsv.json"]


def test_twins_without_locks_do_no_harm(tmp_path: Path) -> None:
    a, out = codes_file(tmp_path / "a.h5", 100, 1), tmp_path / "out.tsv"
    twins = [start(out, tmp_path / "a.h5", "--part", "0/1", before=SLOW + NO_LOCKS) for _ in range(3)]
    for code, output in [end(twin) for twin in twins]:
        assert code == 0, output
    assert end(start(out, tmp_path / "a.h5"))[0] == 0
    assert out.read_text() == brute(a, None, 31, 50)


def test_tasks_agree_or_are_refused(tmp_path: Path, short: None) -> None:
    a, out = codes_file(tmp_path / "a.h5", 100, 1), tmp_path / "out.tsv"
    search(tmp_path / "a.h5", None, out, part=(0, 3))
    with pytest.raises(SearchError, match=r"other files or options .*\"radius\": 31"):
        search(tmp_path / "a.h5", None, out, Near(radius=30), part=(1, 3))
    search(tmp_path / "a.h5", None, out, part=(1, 7))  # another number of tasks takes over the blocks
    with locked(tmp_path / "out.tsv.parts", (2, 3)):
        for part in ((2, 3), None):
            with pytest.raises(Busy, match="another call"):
                search(tmp_path / "a.h5", None, out, part=part)
    search(tmp_path / "a.h5", None, out)
    assert out.read_text() == brute(a, None, 31, 50)
    result = CliRunner().invoke(main, ["dedup", "search", str(tmp_path / "a.h5"), "--part", "0/2"])
    assert (result.exit_code, "a part needs --out" in " ".join(result.output.split())) == (2, True)
    with pytest.raises(SearchError, match="0 <= I < N"):
        search(tmp_path / "a.h5", None, out, part=(2, 2))
