"""Other programs, run with an end: what they print, and never a wait for ever."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from typing import NamedTuple

MISSING, LATE = 127, 124  # exit codes, as a shell and timeout(1) have them


class Done(NamedTuple):
    code: int  # MISSING: there is no such program; LATE: it gave no answer in time
    out: str
    err: str


def run(words: Sequence[str], seconds: float, environment: Mapping[str, str] | None = None) -> Done:
    """Run a program without input, and end it with all that it has started after so many seconds."""
    try:
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",  # a banner may be of any encoding
            env=environment,
            start_new_session=True,  # a wrapper's children hold the pipes open: they are ended with it
        )
    except FileNotFoundError:
        return Done(MISSING, "", f"no '{words[0]}' on PATH")
    except OSError as error:  # no right to run it, or no program at all
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
