"""Ten times kill -9 at random moments, of the launcher or one of two ranks: the same weights as without."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny
from runs import assert_same_bits, weights

STEPS = 40


def command(recipe: Path, run: Path) -> list[str]:
    options = ["--ranks", "2", "--set", f"train.steps={STEPS}", "--set", "train.checkpoint_every=3"]
    return [sys.executable, "-m", "hpcscale", "train", str(run), "--config", str(recipe), *options]


def children(process: int) -> list[int]:
    """Oldest first, so that rank r is the r-th."""
    try:
        return [int(p) for p in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    except OSError:
        return []


@pytest.mark.chaos
@pytest.mark.timeout(3600)
def test_ten_kills_leave_the_same_weights(tmp_path: Path) -> None:
    recipe = tiny.make(tmp_path)
    begin = time.monotonic()
    subprocess.run(command(recipe, tmp_path / "expected"), check=True)
    duration = time.monotonic() - begin
    seed = random.randrange(1 << 30)
    print(f"seed {seed}, uninterrupted {duration:.1f} s")
    moments = random.Random(seed)
    runs, kills, ended = 0, 0, False
    while kills < 10 or not ended:
        run = tmp_path / f"run{runs}"
        process = subprocess.Popen(command(recipe, run), stderr=subprocess.PIPE)
        if kills < 10:
            time.sleep(moments.uniform(0.05, 0.6) * duration)
        ranks = children(process.pid)
        victim = [process.pid, *ranks][kills % 3] if len(ranks) == 2 else process.pid
        if kills < 10 and process.poll() is None:
            os.kill(victim, signal.SIGKILL)
            kills += 1
            which = "launcher" if victim == process.pid else f"rank {ranks.index(victim)}"
            print(f"kill {kills} of run {runs}: {which}")
        _, errors = process.communicate(timeout=600)
        assert process.returncode in (0, -9, 137), errors.decode()
        ended = process.returncode == 0
        if ended:  # this run is through; further kills meet a new one
            assert weights(run, STEPS)
            assert_same_bits(run, tmp_path / "expected")
            runs += 1
            print(f"run {runs} ended with the same bits after {kills} kills")
