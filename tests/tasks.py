"""Code to put before a command, for tests of processes that share work."""

from pathlib import Path

# A file system without locks.
NO_LOCKS = """
import errno, fcntl
def flock(*arguments):
    raise OSError(errno.ENOSYS, "no locks here")
fcntl.flock = flock
"""


def together(module: str, function: str, marks: Path, tasks: int) -> str:
    """Go on with `module.function` only when all tasks have come as far: none may wait for another."""
    marks.mkdir()
    return f"""
import os, pathlib, time
import {module} as module
function, marks = module.{function}, pathlib.Path({str(marks)!r})
def waiting(*arguments):
    (marks / str(os.getpid())).touch()
    until = time.monotonic() + 60
    while len(list(marks.iterdir())) < {tasks}:
        assert time.monotonic() < until, "the tasks do not run at the same time"
        time.sleep(0.01)
    return function(*arguments)
module.{function} = waiting
"""
