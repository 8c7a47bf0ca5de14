"""A thin `resnet50`, for tests of what is around a network."""

import os
import runpy
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from places import ROOT

from hpcscale.models.shapes import SHAPES

WHOLE = SHAPES["resnet50"]
FOLDER = ROOT / "tests" / "thin_network"


@contextmanager
def network() -> Iterator[None]:
    """Within, `resnet50` is thin, in processes that are started too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SHAPES, "resnet50", SHAPES["resnet50"])  # which is put back
        runpy.run_path(str(FOLDER / "sitecustomize.py"))
        before = os.environ.get("PYTHONPATH")
        patch.setenv("PYTHONPATH", os.pathsep.join(map(str, filter(None, (FOLDER, ROOT, before)))))
        yield


@contextmanager
def own_settings() -> Iterator[None]:
    """What a run switches on for its process is switched off again."""
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(False)
