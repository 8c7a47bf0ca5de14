"""How long work tells how far it is: bars on a terminal, lines elsewhere (hpcscale/progress.py)."""

import os
import pty
import re
import subprocess
import sys

import pytest

from hpcscale import progress

WORK = """
from hpcscale import progress
with progress.bar() as told:
    told("pack", 100, 400)
    told("pack", 250, 400)
    told("verify", 0, None)
    if isinstance(told, progress.Bars):
        told("train", 3, 10, "loss 0.5")
        told.say("a [red]name[/red] of\\x1b[2J others")
"""


def test_without_a_terminal_lines_come_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    with progress.bar() as told:
        for seconds, done, total in (
            (1, 100, 400),
            (11, 200, 400),
            (31, 250, 400),
            (60, 300, 400),
            (71, 380, None),
        ):
            clock[0] = seconds
            told("pack", done, total)
    assert capsys.readouterr().err.splitlines() == ["pack: 250 of 400, 30 s to go, 5/s", "pack: 380, 4/s"]


def test_on_a_terminal_every_stage_has_a_bar() -> None:
    terminal, end = pty.openpty()
    environment = {**os.environ, "COLUMNS": "100"}
    with subprocess.Popen([sys.executable, "-c", WORK], stderr=end, env=environment) as work:
        os.close(end)
        drawn = b""
        while text := _read(terminal):
            drawn += text
    os.close(terminal)
    assert work.returncode == 0
    seen = re.sub(r"\x1b\[1A", "\n", drawn.decode())  # up one line, to draw anew
    seen = re.sub(r"\x1b\[[?0-9;]*[A-Za-z]|[━╺╸]|\r", "", seen)
    assert "a [red]name[/red] of\\u001b[2J others\n" in seen
    last = [line.split() for line in seen.splitlines()[-3:]]
    assert [row[:2] for row in last] == [["pack", "250/400"], ["verify", "0/?"], ["train", "3/10"]]
    assert last[0][2].endswith("/s")
    assert last[2][2:4] == ["loss", "0.5"]


def _read(terminal: int) -> bytes:
    """What was drawn; nothing at the end, which Linux tells as an error."""
    try:
        return os.read(terminal, 65536)
    except OSError:
        return b""
