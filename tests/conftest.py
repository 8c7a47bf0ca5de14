"""What holds for every test: default signals, no process left behind, cores shared by the workers."""

import ctypes
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import browser
import pytest

GRACE = 10.0  # seconds for what a test has told to end
WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
if WORKERS > 1:  # of torch and NumPy, here and in what tests start: more threads than cores would only wait
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // WORKERS)))


SIGNALS = (signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


def pytest_configure() -> None:
    """A shell's background job ignores SIGINT, and nohup SIGHUP; so would all that a test starts."""
    for number in SIGNALS:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


@pytest.fixture(autouse=True)
def _leaves_signals_alone() -> Iterator[None]:
    """A training in a job ignores signals when it has ended, in this process too where a test calls it."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        if signal.getsignal(number) is not handler:
            signal.signal(number, handler)


@pytest.fixture(autouse=True)
def _leaves_no_process(request: pytest.FixtureRequest) -> Iterator[None]:
    """Kill what a test has started and left running, and fail it."""
    if request.node.get_closest_marker("cluster"):  # which is there for the session
        yield
        return
    ctypes.CDLL(None).prctl(36, 1)  # PR_SET_CHILD_SUBREAPER: processes without a parent become our children
    before = _children()
    yield
    until = time.monotonic() + GRACE
    while (left := _children() - before) and time.monotonic() < until:
        time.sleep(0.02)
    commands = [_read(Path(f"/proc/{process}/cmdline")).replace("\0", " ") for process in left]
    while left:  # their children, in turn, become ours
        for process in left:
            os.kill(process, signal.SIGKILL)
        time.sleep(0.02)
        left = _children() - before
    if commands:
        text = "; ".join(command[:200] for command in commands)
        pytest.fail(f"left behind, and killed: {text}", pytrace=False)


def _children() -> set[int]:
    """Processes of this one that have not ended."""
    lists = [_read(file) for file in Path("/proc/self/task").glob("*/children")]
    found = {int(process) for each in lists for process in each.split()}
    return {process for process in found if _state(process) not in ("Z", "X", "")}


def _state(process: int) -> str:
    words = _read(Path(f"/proc/{process}/stat")).rpartition(")")[2].split()
    return words[0] if words else ""


def _read(file: Path) -> str:
    """A file of /proc; empty if the thread or process has ended since it was listed."""
    try:
        return file.read_text(errors="replace")
    except OSError:
        return ""


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A browser for the tests of one page."""
    with browser.browser(tmp_path_factory.mktemp("browser")) as page:
        yield page


@pytest.fixture
def chromium(opened: Any) -> Iterator[Any]:
    """The browser, remembering nothing of the test before."""
    yield opened
    opened.run("localStorage.clear()")
    for file in opened.downloads.iterdir():
        file.unlink()
