"""Where the job scripts and the image recipes lie: in the clone, or in the installed package (setup.py)."""

from pathlib import Path

PACKAGE = Path(__file__).parents[1]


def slurm() -> Path:
    return _place("slurm")


def containers() -> Path:
    return _place("containers")


def _place(name: str) -> Path:
    installed = PACKAGE / name
    return installed if installed.is_dir() else PACKAGE.parent / name
