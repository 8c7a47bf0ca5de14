"""What commands share: types of options, how they end early, and how they show progress on stderr."""

import math
import os
import re
import signal
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

import click

from hpcscale import progress


def _part(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[int, int] | None:
    if value is None:
        return None
    found = re.fullmatch("([0-9]{1,7})/([0-9]{1,7})", value)
    if not (found and int(found[1]) < int(found[2])):
        raise click.BadParameter(f"{value:.80}: expected I/N with I from 0 to N - 1, N below 10 million")
    return int(found[1]), int(found[2])


class Number(click.FloatRange):
    """A float within limits. NaN and infinity are refused: click would take NaN for within any limits."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r:.80} is not a finite number", param, ctx)
        return number


class PlainPath(click.Path):
    """A path; a pipe, device or socket is refused, because reading from it might never end."""

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> Any:
        with suppress(OSError, ValueError):  # click reports these
            mode = os.stat(value).st_mode
            if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
                self.fail(
                    f"{os.fsdecode(value)!r} is neither a regular file nor a folder.", parameter, context
                )
        return super().convert(value, parameter, context)


FILE = PlainPath(exists=True, dir_okay=False, path_type=Path)
FOLDER = PlainPath(exists=True, file_okay=False, path_type=Path)
SOURCE = PlainPath(exists=True, path_type=Path)  # a file or a folder
OUT = PlainPath(dir_okay=False, path_type=Path)
OUT_FOLDER = PlainPath(file_okay=False, path_type=Path)
ANY = PlainPath(path_type=Path)
RANKS = click.option("--ranks", "count", type=click.IntRange(1, 1024), default=1, show_default=True,
                     help="Ranks to start on this machine.")  # fmt: skip
ANNOTATIONS = click.option(
    "--annotations", type=SOURCE, multiple=True, metavar="PATH",
    help="A COCO .json, a folder of VOC .xml, or of class-map .png; may be repeated.",
)  # fmt: skip
SETTINGS = click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override one key of the recipe."
)
SELECTION = click.option(
    "--selection", metavar="F|NAME",
    help="Only these samples: a file with the keys of a recipe's [selection], or a name of the catalogue.",
)  # fmt: skip
VOCABULARY = click.option(
    "--vocabulary", type=FILE, help="Only samples to which this vocabulary gives a class."
)
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
PART = click.option(
    "--part", metavar="I/N", callback=_part, help="Do only share I of N, counted from 0; see below."
)


def start_ranks(count: int, *words: str | Path) -> None:
    """Run `hpcscale WORDS` as so many ranks of this machine, and end with their exit code. A count of 1 does
    nothing: then this process is the rank, alone or as srun started it."""
    from hpcscale import ranks

    if count > 1:
        if "HOROVOD_RANK" in os.environ:
            raise click.UsageError("--ranks: this process is a rank already (HOROVOD_RANK is set)")
        sys.exit(ranks.launch([sys.executable, "-m", "hpcscale", *map(str, words)], count))


def stop(message: str, code: int) -> NoReturn:
    click.echo(message, err=True)
    sys.exit(code)


@contextmanager
def progress_bar() -> Iterator[progress.Progress]:
    """Gives a function for `progress` arguments: it draws a bar if stderr is a terminal, else prints a line
    every 30 seconds. Within it, SIGTERM, which a job sends, ends the work as Ctrl-C does."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with progress.bar() as told:
            yield told
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)  # None: not set by Python
