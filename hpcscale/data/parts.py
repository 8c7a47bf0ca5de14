"""Work that the tasks of an array share: who may write into a folder at the same time, and under which names.

In: a folder, and (I, N), the share I of N (from 0) that a task does, or None for a call that does and joins
everything. Tasks run on several nodes, are killed, and run again while their former self still lives on a
node that was only cut off. So locks only save work: no file's content depends on them, since everything is
written under a name of its own (`files.aside`), and the file that it becomes is the same whoever wrote it.
"""

import fcntl
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from hpcscale.files import AGAIN, OutputError, Told, lock

Part = tuple[int, int]

# In OUT.parts: rows of a hash file; a search's task, pairs and sorted pairs; files aside; locks.
PARTS = re.compile(
    r"(\d{5}\.h5|task\.json|\d+-(\d+|all)\.pairs|piece-\d+)(\..+-[0-9a-f]{8}\.tmp)?|\.lock(-\d+-\d+)?"
)


class Busy(Told):
    """Another call holds what this one needs; a matter for another try."""

    code = 75


def part_of(total: int, part: Part | None) -> range:
    """The items, of `total`, that a task does: neighbours, so that a source is walked once."""
    mine, of = part or (0, 1)
    return range(mine * total // of, (mine + 1) * total // of)


def check_part(part: Part | None) -> None:
    """Raises ValueError."""
    if part is not None and not 0 <= part[0] < part[1]:
        raise ValueError(f"part must be I/N with 0 <= I < N, found {part[0]}/{part[1]}")


@contextmanager
def locked(folder: Path, part: Part | None) -> Iterator[bool]:
    """One call at a time does a task's share, and none joins meanwhile. Raises Busy.

    The folder must exist. False: on a file system without locks (some Lustre mounts) nothing is locked.
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
    """OUT.parts, in which calls leave what they have done; made if need be. Raises OutputError where it holds
    other files, which a later call would be taken to own."""
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
