"""What tests of transfer start from; conftest.py makes it."""

from pathlib import Path
from typing import NamedTuple

from hpcscale.transfer import settings
from hpcscale.transfer.settings import Plan
from hpcscale.transfer.source import find

LEAKED = 5  # pictures of the test set that the run was trained on


class Grounds(NamedTuple):
    run: Path
    file: Path  # of a transfer: a grid of two rates and two lengths
    test: Path  # packed


def plan(grounds: Grounds, *overrides: str, source: str | None = None, method: str = "finetune") -> Plan:
    return settings.load(grounds.file, overrides, find(source or str(grounds.run)), method)
