"""Text that others wrote, made safe to show: names of files, tags, classes and runs.

A name may contain control characters that a terminal obeys (escape sequences, carriage returns), marks that
turn the direction of writing, line breaks, and surrogates (halves of characters), which no UTF-8 file can
hold. Every name that is shown goes through here, and so does all that a command prints. This file is in the
lowest row of the package: every part may use it.
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
# Characters with a meaning in Markdown, and GitHub's addresses; _ has one only at the ends of words.
_MARKDOWN = re.compile(r"[\\`*\[\]<>|~&$]|(?<!\w)_|_(?!\w)|:(?=//)|(?<=www)\.|^[#+=-]", re.IGNORECASE)


def shown(text: object) -> str:
    r"""A name that fits in one line: invisible characters become \t, \n, \r or \uNNNN, as in JSON."""
    return _ONE_LINE.sub(lambda found: escaped(found[0]), str(text))


def shown_lines(text: object) -> str:
    """The same for a text of several lines: line breaks and tabs stay."""
    return _LINES.sub(lambda found: escaped(found[0]), str(text))


def escaped(character: str) -> str:
    return SHORT.get(character) or f"\\u{ord(character):04x}"


def markdown(text: object) -> str:
    r"""A name escaped for Markdown: it cannot become a tag, link, code or emphasis, or end a table cell."""
    return _MARKDOWN.sub(r"\\\g<0>", shown(text))


# the streams of a process


def guard_streams() -> None:
    """Escape control characters in all text for stdout and stderr, whichever command, error or warning it is
    from, and let no print fail because of its characters. Bytes written to a stream's buffer pass unchanged.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and not hasattr(stream, "guarded"):
            # click would bypass a stream that can only write ASCII.
            ascii_only = codecs.lookup(stream.encoding).name == "ascii"
            stream.reconfigure(encoding="utf-8" if ascii_only else stream.encoding, errors="backslashreplace")
            stream.write = _guarded(stream.write)  # type: ignore[method-assign]
            stream.guarded = True  # type: ignore[attr-defined]


def _guarded(write: Callable[[str], int]) -> Callable[[str], int]:
    # Bytes are left to `write`, which refuses them: that is how click finds out what a stream takes.
    return lambda text: write(shown_lines(text) if isinstance(text, str) else text)


def bare_stderr() -> TextIO:
    """Standard error without the guard, for progress bars, which need control characters."""
    return open(sys.stderr.fileno(), "w", encoding="utf-8", errors="backslashreplace", closefd=False)


def use_utf8() -> None:
    """Restart this process in Python's UTF-8 mode if the locale has another encoding. File names then mean
    the same bytes everywhere, also in processes that this one starts."""
    if sys.getfilesystemencoding() != "utf-8":
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, "PYTHONUTF8": "1"})
