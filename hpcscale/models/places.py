"""Where a run keeps its checkpoints, for commands of a bare login node too: nothing here needs torch."""

import re
from pathlib import Path

from hpcscale.files import FileError

NAME = re.compile(r"step-([0-9]{8})\.(json|safetensors)((\..+-[0-9a-f]{8})?\.tmp)?")


class CheckpointError(FileError):
    """A checkpoint that cannot be written or read; the message names the file."""


def folder(run: Path) -> Path:
    return run / "checkpoints"


def run_of(place: Path) -> Path:
    """The run folder of a checkpoint's file; a folder is one. Raises CheckpointError for any other file."""
    if place.is_dir():
        return place
    if not NAME.fullmatch(place.name):
        raise CheckpointError(f"{place}: not a checkpoint: their names are step-, eight digits, .safetensors")
    return place.absolute().parent.parent
