"""Text that others wrote, made safe to show: names of files, tags, classes and runs.

A name may hold what a terminal obeys (escape sequences, carriage returns), what turns the direction of
writing, what ends a line, and halves of characters, which no file can hold. Where a name is shown it goes
through here, and all that a command prints. Stands in the lowest row of the package, for every part of it.
"""

import codecs
import io
import os
import re
import sys
from collections.abc import Callable
from typing import TextIO

# Controls (C0, DEL, C1), also C1 as bytes that are not UTF-8; ends of lines; marks of direction.
CONTROLS = "\x00-\x1f\x7f-\x9f\udc80-\udc9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"
HALVES = "\ud800-\udfff"  # surrogates: of JSON, or bytes of a file name that are not UTF-8
SHORT = {"\t": "\\t", "\n": "\\n", "\r": "\\r"}

_ONE_LINE = re.compile(f"[{CONTROLS}{HALVES}]")
_LINES = re.compile(rf"(?![\n\t])[{CONTROLS}{HALVES}]")
# What Markdown obeys, with GitHub's addresses; _ only at the ends of words, where it means something.
_MARKDOWN = re.compile(r"[\\`*\[\]<>|~&$]|(?<!\w)_|_(?!\w)|:(?=//)|(?<=www)\.|^[#+=-]", re.IGNORECASE)


def shown(text: object) -> str:
    r"""A name as it can stand in a line: what is not seen is written \t, \n, \r or \uNNNN, as in JSON."""
    return _ONE_LINE.sub(lambda found: escaped(found[0]), str(text))


def shown_lines(text: object) -> str:
    """The same for a text of several lines, whose ends and tabs stay."""
    return _LINES.sub(lambda found: escaped(found[0]), str(text))


def escaped(character: str) -> str:
    return SHORT.get(character) or f"\\u{ord(character):04x}"


def markdown(text: object) -> str:
    r"""A name as Markdown shows it: no tags, links, code or emphasis come of it, and it ends no cell."""
    return _MARKDOWN.sub(r"\\\g<0>", shown(text))


# the streams of a process


def guard_streams() -> None:
    """Let nothing through to stdout and stderr that a terminal obeys, whichever command, error or warning
    says it; and let no print fail for its letters. Bytes written to a stream's buffer are not looked at.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and not hasattr(stream, "guarded"):
            # A stream for ASCII alone click would go around.
            ascii_only = codecs.lookup(stream.encoding).name == "ascii"
            stream.reconfigure(encoding="utf-8" if ascii_only else stream.encoding, errors="backslashreplace")
            stream.write = _guarded(stream.write)  # type: ignore[method-assign]
            stream.guarded = True  # type: ignore[attr-defined]


def _guarded(write: Callable[[str], int]) -> Callable[[str], int]:
    # What is no text, `write` refuses: click tries it to learn what a stream takes.
    return lambda text: write(shown_lines(text) if isinstance(text, str) else text)


def bare_stderr() -> TextIO:
    """Standard error for bars, which draw with what a terminal obeys."""
    return open(sys.stderr.fileno(), "w", encoding="utf-8", errors="backslashreplace", closefd=False)


def use_utf8() -> None:
    """Start this process anew in Python's UTF-8 mode where the locale is for other letters: names of files
    then mean the same bytes everywhere, and in processes that this one starts."""
    if sys.getfilesystemencoding() != "utf-8":
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, "PYTHONUTF8": "1"})
