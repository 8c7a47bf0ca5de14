"""Work that array tasks share: who may write into a folder at the same time, and under which names.

In: a folder, and (I, N) for share I of N (from 0), or None for a call that does what is left and joins all.
Tasks run on several nodes. They are killed, and may run a second time while the first one still lives on a
node that was only cut off. So locks only save work. Correctness does not need them: every file is written
under a unique name (`files.aside`) and then renamed, and its content is the same whoever wrote it.
"""

import fcntl
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from hpcscale.files import AGAIN, OutputError, Told, lock

Part = tuple[int, int]

# Names in OUT.parts: rows of a hash file; a search's task, pairs and sorted pairs; files aside; locks.
PARTS = re.compile(
    r"(\d{5}\.h5|task\.json|\d+-(\d+|all)\.pairs|piece-\d+)(\..+-[0-9a-f]{8}\.tmp)?|\.lock(-\d+-\d+)?"
)


class Busy(Told):
    """Another call holds what this one needs; try again later."""

    code = 75


def part_of(total: int, part: Part | None) -> range:
    """Which of `total` items a task does: neighbours, so that it walks the source once."""
    mine, of = part or (0, 1)
    return range(mine * total // of, (mine + 1) * total // of)


def check_part(part: Part | None) -> None:
    """Raises ValueError."""
    if part is not None and not 0 <= part[0] < part[1]:
        raise ValueError(f"part must be I/N with 0 <= I < N, found {part[0]}/{part[1]}")


@contextmanager
def locked(folder: Path, part: Part | None) -> Iterator[bool]:
    """Within it, no other call does the same share, and none joins the shares. Raises Busy.

    The folder must exist. Gives False if nothing is locked, on a file system without locks (some Lustre
    mounts).
    """
    try:
        stream = (folder / ".lock").open("a+b")
    except FileNotFoundError:
        raise Busy(f"{folder}: another call has just finished and removed it; {AGAIN}") from None
    with stream as whole:
        if part is None:
            yield _lock(whole, fcntl.LOCK_EX, f"{folder}: another call is writing into it")
            return
        _lock(whole, fcntl.LOCK_SH, f"{folder}: a call without --part is writing into it")
        file = folder / f".lock-{part[0]}-{part[1]}"
        with file.open("a+b") as own:
            held = _lock(own, fcntl.LOCK_EX, f"{folder}: another call does part {part[0]}/{part[1]}")
            try:
                yield held
            finally:
                file.unlink(missing_ok=True)


def parts_folder(out: Path) -> Path:
    """OUT.parts, where calls leave finished work; made if needed. Raises OutputError if it holds other files:
    a later call would take them for its own."""
    folder = out.with_name(out.name + ".parts")
    folder.mkdir(parents=True, exist_ok=True)
    if others := sorted(entry.name for entry in folder.iterdir() if not PARTS.fullmatch(entry.name)):
        raise OutputError(f"{folder}: holds files that no such command wrote, first {others[0]!r}; move them")
    return folder


def remove_parts(out: Path) -> None:
    """Remove what calls have left in OUT.parts, and the folder if nothing else is in it."""
    folder = out.with_name(out.name + ".parts")
    with suppress(OSError):
        for entry in folder.iterdir():
            if PARTS.fullmatch(entry.name):
                entry.unlink(missing_ok=True)
        folder.rmdir()


def _lock(stream: IO[bytes], kind: int, held: str) -> bool:
    try:
        return lock(stream, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Busy(f"{held}; {AGAIN}") from None
