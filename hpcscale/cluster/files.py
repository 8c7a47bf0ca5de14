"""Where the job scripts and the image recipes lie, in a clone or in the installed package (setup.py); and how
records in JSON are read."""

from pathlib import Path
from typing import Any

from hpcscale import files
from hpcscale.files import FileError

PACKAGE = Path(__file__).parents[1]


def slurm() -> Path:
    return _place("slurm")


def containers() -> Path:
    return _place("containers")


def _place(name: str) -> Path:
    installed = PACKAGE / name
    return installed if installed.is_dir() else PACKAGE.parent / name


class DamagedError(FileError):
    """A JSON file that does not hold what it should; the message names it."""


def read_json(file: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises FileNotFoundError, and DamagedError if anything else is wrong."""
    try:
        values = files.read_json(file)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise DamagedError(f"{file}: cannot be read: {error.strerror or error}") from None
    except FileError as error:
        raise DamagedError(f"{file}: is damaged: {str(error).removeprefix(f'{file}: ')}") from None
    if not isinstance(values, dict):
        raise DamagedError(f"{file}: is damaged: holds no JSON object, but {str(values)[:40]!r}")
    return values
