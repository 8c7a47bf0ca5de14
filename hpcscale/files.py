"""Files, opened and written safely; the lowest row of the package, for every part of it.

- Reading: only regular files are opened (reading a named pipe might never end), and what is read into memory
  has a limit.
- Writing: files are written aside, synced and renamed, so that after a crash a file is whole or was never
  there.
- Outputs that a user names (`check_output`): they are checked before any work is done; an output is never an
  input; a file that hpcscale did not write is never replaced or removed.
"""

import errno
import fcntl
import filecmp
import glob
import json
import logging
import os
import secrets
import socket
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import IO, Any

MOST = 1 << 30  # most bytes of a file that is read whole, unless the caller says otherwise
HEAD = 1 << 16  # bytes at the start of a file in which a mark is searched
PNG = b"Software\0hpcscale"  # the mark of our pictures, a text chunk
# 524 is the kernel's ENOTSUPP, for which the C library has no name.
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, 524)
# Errors of files that would come again at a second try; others (a stale mount) may pass.
LASTING = (errno.ENOENT, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG,
           errno.ELOOP, errno.ENXIO, errno.EROFS, errno.EEXIST, errno.ENOTEMPTY, errno.EINVAL,
           errno.ENODEV)  # fmt: skip
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # a disk, a quota, a file

_log = logging.getLogger(__name__)


AGAIN = "run the same command again to go on"


class Told(Exception):
    """An error that the user can cause. The command prints the message and exits with `code`."""

    code = 1


class Usage(Told, ValueError):
    """Options, or a configuration, that cannot be used."""

    code = 2


class FileError(Told, ValueError):
    """A file that cannot be read, or must not be written; the message names it."""


class OutputError(FileError):
    """An output that must not be written there."""

    code = 2


# reading


def open_regular(file: Path | str) -> BufferedReader:
    """Open a regular file to read its bytes. Raises FileError for pipes, devices, folders, and OSError."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except ValueError as error:  # a NUL in the path
        raise FileError(f"{str(file)!r}: {error}") from None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise FileError(f"{file}: not a regular file")
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_bytes(file: Path, most: int = MOST) -> bytes:
    """The content of a regular file of at most `most` bytes. Raises FileError and OSError."""
    with open_regular(file) as stream:
        if os.fstat(stream.fileno()).st_size > most:
            raise FileError(f"{file}: more than the {most:,} bytes allowed here")
        return stream.read()  # read(most) would first allocate memory for `most` bytes


def read_text(file: Path, most: int = MOST) -> str:
    """The content of a regular UTF-8 file. Raises FileError and OSError."""
    try:
        return read_bytes(file, most).decode()
    except UnicodeDecodeError as error:
        raise FileError(f"{file}: not UTF-8: {error.reason} at byte {error.start}") from None


def parse_json(
    text: str | bytes, where: object, pairs: Callable[[list[tuple[str, Any]]], Any] | None = None
) -> Any:
    """The value of a JSON text. where: what messages call the text. pairs: makes an object from its keys and
    values. Raises FileError, also for a text that is nested too deep, for numbers of thousands of digits, and
    for NaN and Infinity, which are not JSON.
    """
    try:
        return json.loads(text, parse_constant=_no_number, object_pairs_hook=pairs)
    except RecursionError:
        raise FileError(f"{where}: not JSON that can be read: nested too deep") from None
    except ValueError as error:
        raise FileError(f"{where}: not JSON: {error}") from None


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is not a JSON number")


def read_json(file: Path, most: int = MOST) -> Any:
    """The value of a JSON file. Raises FileError and OSError."""
    return parse_json(read_bytes(file, most), file)


def lasting(error: OSError) -> bool:
    """Whether this error would come again at a second try."""
    return error.errno in (*LASTING, *FULL)


# writing


def check_output(
    out: Path,
    inputs: Iterable[Path | None] = (),
    ours: Callable[[Path], bool] = lambda file: False,
) -> None:
    """Raise OutputError if `out` must not be written; called before any work is done.

    inputs: files and folders that the command reads; the output must not be one of them or lie in one.
    ours: tells whether hpcscale wrote an existing file, which may then be replaced: `marked`, or `compared`
    for formats without room for a mark. An empty file may be replaced too.
    """
    if (out.parent / "plan.json").is_file():
        raise OutputError(f"{out}: lies in a data set, where only `data ingest` writes; choose another")
    for source in inputs:
        if source is not None and _same_or_inside(out, source):
            raise OutputError(f"{out}: is an input of this command or lies in one ({source}); choose another")
    try:
        mode = os.lstat(out)
    except (FileNotFoundError, NotADirectoryError):
        return _check_place(out)
    except ValueError as error:
        raise OutputError(f"{str(out)!r}: {error}") from None
    if not stat.S_ISREG(mode.st_mode):
        kind = {stat.S_IFDIR: "a folder", stat.S_IFLNK: "a symbolic link"}.get(stat.S_IFMT(mode.st_mode))
        raise OutputError(f"{out}: is {kind or 'not a regular file'}; choose another output")
    if mode.st_size and not ours(out):
        raise OutputError(
            f"{out}: is there already, and not what this command writes; choose another, or remove it"
        )
    return _check_place(out)


def _check_place(out: Path) -> None:
    """Check that a file can be made there; parent folders may be missing."""
    place = next(folder for folder in out.absolute().parents if os.path.lexists(folder))
    if not place.is_dir():
        raise OutputError(f"{out}: {place} is not a folder")
    if not os.access(place, os.W_OK | os.X_OK):
        raise FileError(f"{out}: nothing can be written in {place}")


def _same_or_inside(out: Path, source: Path) -> bool:
    try:
        if out.exists() and source.exists() and out.samefile(source):
            return True
        return out.resolve() == source.resolve() or (
            source.is_dir() and out.resolve().is_relative_to(source.resolve())
        )
    except (OSError, RuntimeError, ValueError):  # a loop of links, a name too long: opening it says more
        return False


def marked(mark: bytes) -> Callable[[Path], bool]:
    """For `check_output`: a file with this mark near its start is ours."""

    def ours(file: Path) -> bool:
        with open_regular(file) as stream:
            return mark in stream.read(HEAD)

    return ours


def compared(file: Path) -> bool:
    """For `check_output`: nobody can tell whose file it is, so `write_new` refuses to change its content."""
    return True


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """Gives a place to write to, which becomes `file` if nothing is raised: synced, renamed, the folder
    synced. So after a crash the file is whole or was never there. Makes the folder if needed."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = aside(file)
    try:
        yield temporary
        commit(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)


def write_file(file: Path, content: bytes) -> None:
    """Write `file` whole, in the place of what is there."""
    with replacing(file) as temporary:
        temporary.write_bytes(content)


def write_new(file: Path, content: bytes) -> None:
    """As `write_file`; raises OutputError if a file is there that is neither empty nor equal to `content`."""
    with replacing(file) as temporary:
        temporary.write_bytes(content)
        refuse_other(temporary, file)


def refuse_other(temporary: Path, file: Path) -> None:
    """Raises OutputError if `file` is there and is neither empty nor equal to `temporary`."""
    if os.path.lexists(file) and file.stat().st_size and not filecmp.cmp(temporary, file, shallow=False):
        raise OutputError(f"{file}: is there already and differs; choose another, or remove it")


def aside(file: Path) -> Path:
    """A temporary name for `file`, which no other process on any node uses; it ends in .tmp."""
    return file.with_name(f"{file.name}.{socket.gethostname()}-{secrets.token_hex(4)}.tmp")


def remove_asides(file: Path) -> None:
    """Remove temporary files that killed calls of this node left; those of other nodes may be in use."""
    for leftover in file.parent.glob(f"{glob.escape(file.name)}.{socket.gethostname()}-*.tmp"):
        leftover.unlink(missing_ok=True)


def write_once(file: Path, content: bytes) -> bytes:
    """As `write_file`, unless the file exists; of several calls at once, one wins. Returns its content."""
    temporary = aside(file)
    try:
        if not file.exists():
            temporary.write_bytes(content)
            sync(temporary)
            try:
                os.link(temporary, file)
            except FileExistsError:
                pass
            except OSError as error:  # no hard links here: of calls at the same moment, the last wins
                if error.errno not in (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP):
                    raise
                temporary.rename(file)
            sync(file.parent)
    finally:
        temporary.unlink(missing_ok=True)
    return file.read_bytes()


def commit(temporary: Path, file: Path) -> None:
    """Give a finished temporary file its name, so that it survives a power cut."""
    sync(temporary)
    temporary.rename(file)
    sync(file.parent)


def sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def lock(stream: IO[Any], kind: int) -> bool:
    """`flock` an open file. Warns and returns False on a file system without locks (some Lustre mounts).

    kind: fcntl.LOCK_EX or LOCK_SH, with LOCK_NB. Raises BlockingIOError if another process holds the lock.
    """
    try:
        fcntl.flock(stream, kind)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        _log.warning("%s: this file system has no locks; see that nothing else writes here", stream.name)
        return False
    return True
