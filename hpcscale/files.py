"""Files, opened and written safely; the lowest row of the package, for every part of it.

Reading: only regular files are opened (a named pipe would be waited for, for ever), and what is held in
memory has a limit. Writing: aside, synced, renamed, so that after a crash a file is whole or was never there.
One rule for what a user names as an output (`check_output`): it is looked at before anything is done, it is
never an input, and what hpcscale did not write is never written over or removed.
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
from collections.abc import Callable, Iterable
from io import BufferedReader
from pathlib import Path
from typing import IO, Any

MOST = 1 << 30  # bytes of a file that is read whole, unless its reader says otherwise
HEAD = 1 << 16  # bytes in which a mark is looked for
PNG = b"Software\0hpcscale"  # the mark of our pictures, a text chunk
# 524 is ENOTSUPP, which the kernel has and C has not.
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, 524)
# Errors of a file that a second try would meet again; others (a stale mount) may pass.
LASTING = (errno.ENOENT, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG,
           errno.ELOOP, errno.ENXIO, errno.EROFS, errno.EEXIST, errno.ENOTEMPTY, errno.EINVAL,
           errno.ENODEV)  # fmt: skip
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # a disk, a quota, a file

_log = logging.getLogger(__name__)


AGAIN = "run the same command again to go on"


class Told(Exception):
    """What the user can cause: the message says all, and the command line ends with it and with `code`."""

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
        return stream.read()  # a read of `most` bytes would get memory for all of them first


def read_text(file: Path, most: int = MOST) -> str:
    """The content of a regular UTF-8 file. Raises FileError and OSError."""
    try:
        return read_bytes(file, most).decode()
    except UnicodeDecodeError as error:
        raise FileError(f"{file}: not UTF-8: {error.reason} at byte {error.start}") from None


def parse_json(
    text: str | bytes, where: object, pairs: Callable[[list[tuple[str, Any]]], Any] | None = None
) -> Any:
    """The value of a JSON text; `where` is its place in messages. Raises FileError, also for what is nested
    too deep, for numbers of thousands of digits, and for NaN and Infinity, which are not JSON. pairs: makes
    an object of its keys and values.
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
    """Whether a second try would meet this error again."""
    return error.errno in (*LASTING, *FULL)


# writing


def check_output(
    out: Path,
    inputs: Iterable[Path | None] = (),
    ours: Callable[[Path], bool] = lambda file: False,
) -> None:
    """Refuse an output file before any work is done, or raise nothing. Raises OutputError.

    inputs: files and folders that the command reads; the output may be none of them, and lie in no folder of
    them. ours: whether hpcscale wrote the file that is there, which may then be replaced: `marked`, or
    `compared` for formats without room for a mark. What is empty may be replaced too.
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
    """That a file can be made there; folders on the way may be missing."""
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
    except (OSError, RuntimeError, ValueError):  # loops of links, names too long: opening it says more
        return False


def marked(mark: bytes) -> Callable[[Path], bool]:
    """For `check_output`: files that have the mark near their begin are ours."""

    def ours(file: Path) -> bool:
        with open_regular(file) as stream:
            return mark in stream.read(HEAD)

    return ours


def compared(file: Path) -> bool:
    """For `check_output`: whose file it is cannot be told. `write_new` replaces it by none but the same."""
    return True


def write_new(file: Path, content: bytes) -> None:
    """As `write_file`, where there is no such file yet, or an empty one, or the same. Raises OutputError."""
    _write(file, content, commit_new)


def commit_new(temporary: Path, file: Path) -> None:
    """As `commit`, where there is no such file yet, or an empty one, or the same. Raises OutputError."""
    refuse_other(temporary, file)
    commit(temporary, file)


def refuse_other(temporary: Path, file: Path) -> None:
    """Raises OutputError where `file` is there, not empty, and not the same as what is to take its name."""
    if os.path.lexists(file) and file.stat().st_size and not filecmp.cmp(temporary, file, shallow=False):
        raise OutputError(f"{file}: is there already and differs; choose another, or remove it")


def aside(file: Path) -> Path:
    """Where to write what becomes `file`: a name that no other process has, on no node; ends in .tmp."""
    return file.with_name(f"{file.name}.{socket.gethostname()}-{secrets.token_hex(4)}.tmp")


def remove_asides(file: Path) -> None:
    """Those that calls killed on this node have left; other nodes' may still be written."""
    for leftover in file.parent.glob(f"{glob.escape(file.name)}.{socket.gethostname()}-*.tmp"):
        leftover.unlink(missing_ok=True)


def write_file(file: Path, content: bytes) -> None:
    """Write aside, sync, rename, sync the folder: after a crash the file is whole or was never there. Its
    folder is made if need be."""
    _write(file, content, commit)


def _write(file: Path, content: bytes, finish: Callable[[Path, Path], None]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = aside(file)
    try:
        temporary.write_bytes(content)
        finish(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)


def write_once(file: Path, content: bytes) -> bytes:
    """As `write_file`, unless the file is there: of several calls at once one wins. Returns what it holds."""
    temporary = aside(file)
    try:
        if not file.exists():
            temporary.write_bytes(content)
            sync(temporary)
            try:
                os.link(temporary, file)
            except FileExistsError:
                pass
            except OSError as error:  # no hard links here: of calls at the same moment the last wins
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
    """`flock` an open file. False, behind a warning, on a file system without locks (some Lustre mounts).

    kind: fcntl.LOCK_EX or LOCK_SH, with LOCK_NB. Raises BlockingIOError where another process holds it.
    """
    try:
        fcntl.flock(stream, kind)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        _log.warning("%s: this file system has no locks; see that nothing else writes here", stream.name)
        return False
    return True
