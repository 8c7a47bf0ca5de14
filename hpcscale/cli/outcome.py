"""How commands end: an error that the user can cause becomes a message and an exit code, in this one place.

0: fine. 1: a problem with a message, which would come again. 2: wrong usage. 75: run the same command again
to go on. Ranks also end with the codes of hpcscale.ranks.exits, which the batch shell of a job understands.
"""

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import click

from hpcscale import files
from hpcscale.files import AGAIN

RESUMABLE, UNEXPECTED = 75, 70  # as in hpcscale.ranks.exits, which is not imported for every --help


@contextmanager
def told() -> Iterator[None]:
    """Every command runs within it. Unexpected errors pass through unchanged, with their traceback."""
    try:
        yield
    except (click.ClickException, click.Abort, click.exceptions.Exit, BrokenPipeError):
        raise  # click handles its own errors, and a closed pipe
    except BaseException as error:
        message, code = outcome(error)
        if not message:
            raise
        raise ending(message, code) from None


def outcome(error: BaseException) -> tuple[str, int]:
    """Message and exit code for an error that a user can cause; an empty message for any other error."""
    if isinstance(error, KeyboardInterrupt):
        return f"interrupted; {AGAIN}", RESUMABLE
    if isinstance(error, files.Told):
        return str(error), error.code
    if isinstance(error, OSError):
        return (str(error), 1) if files.lasting(error) else (f"{error}; {AGAIN}", RESUMABLE)
    if isinstance(error, MemoryError):
        return f"not enough memory: {error}" if str(error) else "not enough memory", 1
    if isinstance(error, RecursionError):
        return "nested too deep", 1
    if isinstance(error, UnicodeError):
        return f"text that cannot be read or written in this locale: {error}", 1
    return "", 0


def ending(message: str, code: int) -> Exception:
    if code in (1, 2):
        return click.ClickException(message) if code == 1 else click.UsageError(message)
    click.echo(message, err=True)  # does not go through click's errors: the exit code is ours
    return click.exceptions.Exit(code)


@contextmanager
def of_a_rank() -> Iterator[None]:
    """In a rank, an unexpected error ends with code 70, after its traceback, because another try, perhaps on
    another node, may help. So does an error of the system that may pass."""
    try:
        yield
    except (click.ClickException, click.exceptions.Exit):
        raise
    except Exception as error:
        message, code = outcome(error)
        if message and not (isinstance(error, OSError) and code == RESUMABLE):
            raise
        traceback.print_exc()
        sys.exit(UNEXPECTED)
