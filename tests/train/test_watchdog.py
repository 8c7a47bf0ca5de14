"""A step that never ends is ended, with the stacks of all threads; one that takes its time is not."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny

from hpcscale import config, ranks
from hpcscale.train import watchdog
from hpcscale.train.watchdog import Watchdog

PROGRAM = """
import ctypes, sys, time
from pathlib import Path
from hpcscale import config
from hpcscale.train import watchdog
watchdog.COMPANY, watchdog.NET = 0.2, 1.0
def here_it_hangs():
    {hang}
with watchdog.Watchdog(config.Watchdog(floor=0.3, multiple=3, patience={patience}), Path({file!r})) as dog:
    for step in range({steps}):
        dog.step()
    here_it_hangs()
"""


def run(file: Path, hang: str, steps: int = 3, patience: float = 60) -> "subprocess.CompletedProcess[str]":
    program = PROGRAM.format(file=str(file), hang=hang, steps=steps, patience=patience)
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(("steps", "patience"), [(3, 60), (0, 0.3)], ids=["a step", "before the first"])
def test_a_hang_ends_with_77_and_its_stack(tmp_path: Path, steps: int, patience: float) -> None:
    file = tmp_path / "jobs" / "7.0" / "stack.0.txt"
    done = run(file, "time.sleep(1000)", steps, patience)
    assert done.returncode == 77, done.stderr
    assert "here_it_hangs" in file.read_text()
    assert "no end of a step within 0 s" in done.stderr
    assert str(file) in done.stderr


def test_a_hang_that_holds_the_interpreter_is_ended_all_the_same(tmp_path: Path) -> None:
    done = run(tmp_path / "stack", "ctypes.PyDLL(None).sleep(1000)")
    assert done.returncode == -signal.SIGALRM
    assert "here_it_hangs" in done.stderr


def test_a_file_that_cannot_be_written_delays_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert run(tmp_path / "file" / "stack", "time.sleep(1000)").returncode == 77


def test_the_limit_follows_the_steps_and_pauses_have_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(watchdog, "monotonic", lambda: now)
    with Watchdog(config.Watchdog(floor=1000.0, multiple=10.0, patience=5000.0), tmp_path / "stack") as dog:
        limits = []
        for seconds in (500.0, 110.0, 130.0, 10.0):
            dog.step()
            limits.append((dog.limit, dog.deadline - now))
            now += seconds
        assert [limit for limit, _ in limits] == [5000.0, 5000.0, 3050.0, 1300.0]
        assert all(limit == left for limit, left in limits)
        dog.pause()
        assert (dog.limit, len(dog.times)) == (5000.0, 4)
        now += 4000.0
        dog.step()
        assert (dog.limit, len(dog.times)) == (1200.0, 4)


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    """The test suite's own timer runs on SIGALRM too."""
    signal.setitimer(signal.ITIMER_REAL, 500)
    handler = signal.getsignal(signal.SIGALRM)
    with Watchdog(config.Watchdog(), tmp_path / "stack") as dog:
        dog.step()
        assert signal.getsignal(signal.SIGALRM) == signal.SIG_DFL
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 1000
    assert signal.getsignal(signal.SIGALRM) is handler
    assert 400 < signal.getitimer(signal.ITIMER_REAL)[0] <= 500
    assert not dog.thread.is_alive()
    assert list(tmp_path.iterdir()) == []


def test_a_floor_of_zero_turns_it_off(tmp_path: Path) -> None:
    before = signal.getitimer(signal.ITIMER_REAL)[0]
    with Watchdog(config.Watchdog(floor=0), tmp_path / "stack") as dog:
        dog.step()
        assert signal.getitimer(signal.ITIMER_REAL)[0] <= before
        assert not hasattr(dog, "thread")


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2])
def test_a_rank_that_hangs_ends_the_run_and_all_say_where(tmp_path: Path, count: int) -> None:
    """The last rank hangs in its fourth step, with the others in a collective; then the run goes on."""
    recipe = tiny.make(tmp_path)
    program = tmp_path / "program.py"
    program.write_text(
        f"""
import sys, time
from hpcscale import ranks
from hpcscale.cli import main
from hpcscale.train import pretrain
real, calls = pretrain.LOSSES["logistic"], 0
def in_the_fourth_step_i_hang():
    time.sleep(1000)
def loss(*arguments):
    global calls
    calls += 1
    if calls == 4 and ranks.rank() == {count - 1}:
        in_the_fourth_step_i_hang()
    return real(*arguments)
pretrain.LOSSES["logistic"] = loss
sys.argv = ["hpcscale", "train", {str(tmp_path / "run")!r}, "--config", {str(recipe)!r}]
sys.argv += ["--set", "watchdog.floor=4", "--set", "watchdog.multiple=4"]
main()
"""
    )
    began = time.monotonic()
    code = ranks.launch([sys.executable, str(program)], count)
    assert code == 77
    assert time.monotonic() - began < 100
    stacks = [(tmp_path / "run" / f"stack.{rank}.txt").read_text() for rank in range(count)]
    assert "in_the_fourth_step_i_hang" in stacks[-1]
    assert count == 1 or " in wait\n" in stacks[0]
