"""One case: a copy of the world, something made bad in it, commands, and what must hold of each.

Commands run in this process. A case is one of a family by its number; its random numbers come of the seed,
the family and the number, so that it can be run again alone.
"""

import ctypes
import hashlib
import os
import resource
import shutil
import signal
import stat
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from click.testing import CliRunner

from hpcscale.cli import main
from hpcscale.ingest.sources import Record

HANG = 30  # seconds
BAD = ("crash", "hang", "traceback", "loss", "wrong")
CODES = (0, 1, 2, 75)


class Hang(BaseException):
    pass


class Problem(Exception):
    """One of BAD, and what was found."""

    def __init__(self, kind: str, found: str) -> None:
        super().__init__(f"{kind}: {found}")
        self.kind = kind


class Done(NamedTuple):
    code: int
    out: str
    err: str
    data: bytes  # of stdout


Snapshot = dict[str, tuple[int, bytes]]


class Case:
    """The sandbox of a case. `place`: the copy of the world, and the working folder."""

    def __init__(self, world: Path, place: Path, random: Random) -> None:
        self.world, self.place, self.random = world, place, random
        self.codes: Counter[int] = Counter()
        self.note = ""  # what was made bad
        self.last: tuple[object, ...] = ()

    def copy(self, *names: str) -> None:
        """Bring in only these of the world; all, if none is named."""
        for name in names or os.listdir(self.world):
            source, target = self.world / name, self.place / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target)
            else:
                shutil.copyfile(source, target)

    def spoil(self, name: str, how: Callable[[Random, Any], bytes], binary: bool = True) -> None:
        """Change the content of a file."""
        file = self.place / name
        before = file.read_bytes() if binary else file.read_text()
        after = how(self.random, before)
        file.write_bytes(after)
        self.note += f" {name}: {getattr(how, '__name__', how)} {after[:60]!r}..."

    def run(self, *words: object, writes: Iterable[str] = (), inputs: bytes | None = None) -> Done:
        """Run a command. Raises Problem: its code and what it says must be of ours, and nothing that was
        there but `writes`, files and folders, may have changed."""
        self.last = words
        before = snapshot(self.place)
        result = CliRunner().invoke(main, [str(word) for word in words], input=inputs)
        self.codes[result.exit_code] += 1
        error = result.exception
        if error is not None and not isinstance(error, SystemExit):
            raise Problem("traceback", f"{type(error).__name__}: {str(error)[:200]}") from error
        said = result.stderr
        if "Traceback (most recent call last)" in said or result.exit_code not in CODES:
            raise Problem("traceback", f"exit code {result.exit_code}: {said[-300:]}")
        if result.exit_code and not (said or result.stdout).strip():
            raise Problem("wrong", f"exit code {result.exit_code} without a word")
        if found := [letter for letter in said if letter < " " and letter not in "\n\t"]:
            raise Problem("wrong", f"control characters on the terminal: {found[:5]}")
        self.unharmed(before, writes)
        return Done(result.exit_code, result.stdout, said, result.stdout_bytes)

    def unharmed(self, before: Snapshot, writes: Iterable[str]) -> None:
        after = snapshot(self.place)
        for name, what in before.items():
            free = any(name == other or name.startswith(f"{other}/") for other in writes)
            if after.get(name) != what and not free:
                raise Problem("loss", f"{name} was {'changed' if name in after else 'removed'}")

    def expect(self, holds: bool, found: str) -> None:
        """What must be so, else the case is silently wrong."""
        if not holds:
            raise Problem("wrong", found)


def snapshot(place: Path) -> Snapshot:
    """Kind and content of all that is in a folder; of a link, where it leads."""
    found: Snapshot = {}
    for folder, names, files in os.walk(place):
        for name in names + files:
            path = os.path.join(folder, name)
            mode = os.lstat(path).st_mode
            content = b""
            if stat.S_ISLNK(mode):
                content = os.fsencode(os.readlink(path))
            elif stat.S_ISREG(mode) and mode & 0o400:
                with open(path, "rb") as stream:
                    content = hashlib.blake2b(stream.read(), digest_size=16).digest()
            found[os.path.relpath(path, place)] = stat.S_IFMT(mode), content
    return found


Family = Callable[[Case], None]


def attempt(family: Family, world: Path, place: Path, random: Random) -> dict[str, Any]:
    """Run a case in a new folder `place`, which is removed: its kind, exit codes and what was found."""
    place.mkdir()
    case = Case(world, place, random)
    os.chdir(place)
    kind, found = "accepted", ""
    signal.signal(signal.SIGALRM, _hang)
    signal.alarm(HANG)
    try:
        family(case)
        if any(case.codes[code] for code in (1, 2, 75)):
            kind = "refused"
    except Problem as problem:
        kind, found = problem.kind, str(problem)
        if problem.__cause__ is not None:
            found += f" [{_where(problem.__cause__)}]"
    except Exception as error:  # of a function that the family calls itself
        kind, found = "traceback", f"{type(error).__name__}: {str(error)[:200]} [{_where(error)}]"
        if found.endswith("[?]"):
            raise
    except Hang as hang:
        kind, found = "hang", f"{HANG} s [{_where(hang)}]"
    finally:
        signal.alarm(0)
        os.chdir(world)
        _remove(place)
    last = " ".join(map(str, case.last))
    return {"kind": kind, "found": found, "note": case.note[:400], "command": last[:300]}


def _hang(*_: Any) -> None:
    raise Hang


def _where(error: BaseException) -> str:
    """The last place in hpcscale that an error came through."""
    trace, place = error.__traceback__, "?"
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if "/hpcscale/" in file:
            place = f"{file.rpartition('/hpcscale/')[2]}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place


def _remove(place: Path) -> None:
    for folder, _, _ in os.walk(place):
        os.chmod(folder, 0o700)
    shutil.rmtree(place, ignore_errors=True)


def prepare() -> None:
    """Of a process that runs cases: no workers of its own, a limit of memory, no more rights than a user, and
    a network of a few numbers."""
    import torch

    from hpcscale.dedup import hashes
    from hpcscale.dedup.study import calibrate
    from hpcscale.ingest import packing
    from hpcscale.models import backbone, networks

    class Averages(backbone.Network):
        def __init__(self, classes: int) -> None:
            super().__init__()
            self.fc = torch.nn.Linear(3, classes)

        def stages(self, images: torch.Tensor) -> Iterator[torch.Tensor]:
            yield images

    networks.build = lambda settings, classes: Averages(classes)  # type: ignore[assignment,return-value]
    for module in (packing, hashes, calibrate):
        module.answers = _answers  # type: ignore[attr-defined]
    resource.setrlimit(resource.RLIMIT_DATA, (6 << 30, 6 << 30))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _drop_rights()
    sys.stdout.flush()


def _answers(
    records: Iterable[Record], workers: int, function: Callable[..., Any], *options: Any
) -> Iterator[tuple[Record, Any]]:
    """In the place of data.workers.answers, in this process."""
    for record in records:
        yield record, None if record.problem else function(record.file, record.offset, record.size, *options)


def _drop_rights() -> None:
    """Root may read and write everything; without two capabilities, only what is root's."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # version 3, this process
    sets = (ctypes.c_uint32 * 6)()
    libc = ctypes.CDLL(None, use_errno=True)
    if os.geteuid() == 0 and libc.capget(header, sets) == 0:
        for i in range(3):
            sets[i] &= ~0b110  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
        libc.capset(header, sets)


@contextmanager
def quiet() -> Iterator[None]:
    """What libraries print by themselves, to nowhere."""
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
