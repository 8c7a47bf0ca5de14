"""How a rank's errors become exit codes that the batch shell of a job understands; see
hpcscale.ranks.exits."""

import errno
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import click

from hpcscale import ranks

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # would come again


@contextmanager
def exit_codes(usage: tuple[type[Exception], ...], told: tuple[type[Exception], ...]) -> Iterator[None]:
    """2 for `usage`, 1 for `told`, for ranks that do not fit and for a full disk; 76 for a lost rank; 70,
    behind a traceback, for anything else."""
    try:
        yield
    except click.ClickException:
        raise
    except usage as error:
        raise click.UsageError(str(error)) from None
    except ranks.RankLost as error:
        click.echo(str(error), err=True)
        sys.exit(ranks.LOST)
    except Exception as error:
        full = isinstance(error, OSError) and error.errno in NO_ROOM
        if full or isinstance(error, (*told, ranks.SlurmError)):
            raise click.ClickException(str(error)) from None
        traceback.print_exc()
        sys.exit(ranks.UNEXPECTED)
