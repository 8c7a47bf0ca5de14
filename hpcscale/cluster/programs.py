"""Runs other programs with a time limit, so that no call waits for ever, and returns what they print."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from typing import NamedTuple

MISSING, LATE = 127, 124  # exit codes, as a shell and timeout(1) have them


class Done(NamedTuple):
    code: int  # MISSING: there is no such program; LATE: it did not answer in time
    out: str
    err: str


def run(words: Sequence[str], seconds: float, environment: Mapping[str, str] | None = None) -> Done:
    """Run a program without input; after this many seconds, end it and all that it has started."""
    try:
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",  # a site's banner may have any encoding
            env=environment,
            start_new_session=True,  # so that children, which hold the pipes open, are ended too
        )
    except FileNotFoundError:
        return Done(MISSING, "", f"no '{words[0]}' on PATH")
    except OSError as error:  # no right to run it, or it is not a program
        return Done(MISSING, "", f"{words[0]}: {error.strerror or error}")
    with process:
        try:
            out, err = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            _end(process)
            out, err = process.communicate()
            return Done(LATE, out, f"{err}{words[0]}: no answer in {seconds:.0f} s")
        except BaseException:
            _end(process)
            raise
    return Done(process.returncode, out, err)


def _end(process: "subprocess.Popen[str]") -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
