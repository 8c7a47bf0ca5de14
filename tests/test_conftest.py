"""What conftest.py promises of every test, in a session of its own."""

import os
import signal
import subprocess
import sys
from pathlib import Path

INNER = """
import signal
import subprocess
import sys
from pathlib import Path

import conftest

conftest.GRACE = 0.2
IGNORED = "import signal; print([s.name for s in signal.Signals if signal.getsignal(s) is signal.SIG_IGN])"


def test_signals():
    found = subprocess.run([sys.executable, "-c", IGNORED], stdout=subprocess.PIPE, text=True, check=True)
    assert "SIGINT" not in found.stdout
    assert "SIGHUP" not in found.stdout
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ignoring():
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)


def test_signals_are_as_before():
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL


def test_tidy():
    child = subprocess.Popen(["sleep", "600"])
    child.kill()


def test_a_thread_that_ends_while_it_is_looked_at(monkeypatch):
    found, ended = Path.glob, Path("/proc/self/task/0/children")
    monkeypatch.setattr(Path, "glob", lambda self, pattern: [ended, *found(self, pattern)])
    assert conftest._children() == set()


def test_child():
    subprocess.Popen(["sleep", "6001"])


def test_orphan():
    subprocess.run(["sh", "-c", "setsid sh -c 'sleep 6002; true' &"], check=True)
"""


def ignoring() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def test_signals_are_the_defaults_and_no_process_is_left(tmp_path: Path) -> None:
    (tmp_path / "test_inner.py").write_text(INNER)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = cluster\n")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "conftest",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
    ]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    path = os.pathsep.join([str(Path(__file__).parent), environment.get("PYTHONPATH", "")])
    done = subprocess.run(
        command, cwd=tmp_path, env=environment | {"PYTHONPATH": path}, preexec_fn=ignoring, text=True,
        stdout=subprocess.PIPE, timeout=120,
    )  # fmt: skip
    assert "7 passed, 2 errors" in done.stdout, done.stdout
    assert "left behind, and killed: sleep 6001" in done.stdout
    assert "left behind, and killed: sh -c sleep 6002; true" in done.stdout
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = file.read_bytes().split(b"\0")
        except OSError:  # it has ended meanwhile
            continue
        assert b"6001" not in words
        assert b"6002" not in words
