"""A recipe of 336 GPUs on two ranks with `train.accumulate`: the same pictures at a time and gradients."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hpcscale import ranks
from hpcscale.inputs.crops import Steps
from hpcscale.train.gradients import GradientBuckets

GHOST = 24  # pictures over which batch normalisation computes statistics
BATCH = 4 * GHOST
KINDS = [(dtype, normalised) for dtype in (torch.float32, torch.float64) for normalised in (False, True)]


def gradients(dtype: torch.dtype, normalised: bool, parts: int) -> list[Tensor]:
    """Of the mean loss of the batch, on the ranks that there are, each in so many parts."""
    torch.manual_seed(0)
    torch.set_default_dtype(dtype)
    middle = nn.BatchNorm2d(8) if normalised else nn.Identity()
    model = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), middle, nn.ReLU(), nn.Flatten(), nn.Linear(128, 5))
    images = torch.randn(BATCH, 3, 6, 6)
    buckets = GradientBuckets(model.parameters())
    buckets.clear(parts)
    for part in images.chunk(ranks.size())[ranks.rank()].chunk(parts):
        (model(part).square().sum() / BATCH).backward()
    buckets.finish(0.0, 0.0)
    torch.set_default_dtype(torch.float32)
    return [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]


def distance(found: list[Tensor], wanted: list[Tensor]) -> float:
    """The largest difference, relative to the largest gradient of its tensor."""
    pairs = zip(found, wanted, strict=True)
    return max(float((a - b).abs().max() / b.abs().max().clamp(min=1e-3)) for a, b in pairs)


@pytest.mark.slow
def test_row_23_two_ranks_in_parts_are_one_rank(tmp_path: Path) -> None:
    """Without batch normalisation in any parts; with it where the parts are the ghost batches."""
    program = tmp_path / "program.py"
    program.write_text(
        f"""
import sys
from pathlib import Path
import torch
from hpcscale import ranks
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_accumulate import KINDS, gradients
ranks.init()
torch.save([gradients(*kind, parts) for kind in KINDS for parts in (1, 2)],
           Path({str(tmp_path)!r}, str(ranks.rank())))
"""
    )
    assert ranks.launch([sys.executable, str(program)], 2) == 0
    one, other = (torch.load(tmp_path / str(rank)) for rank in (0, 1))
    for n, (dtype, normalised) in enumerate(KINDS):
        tolerance = 1e-6 if dtype == torch.float32 else 1e-14
        halves, ghosts = one[2 * n], one[2 * n + 1]
        for found, same in ((halves, other[2 * n]), (ghosts, other[2 * n + 1])):
            assert all(torch.equal(a, b) for a, b in zip(found, same, strict=True))
        whole, in_parts = gradients(dtype, normalised, 1), gradients(dtype, normalised, 4)
        assert distance(ghosts, in_parts) < tolerance
        if normalised:  # other statistics
            assert distance(whole, in_parts) > 1e-3
            assert distance(halves, in_parts) > 1e-3
        else:
            assert distance(whole, in_parts) < tolerance
            assert distance(halves, whole) < tolerance


def groups(count: int, accumulate: int) -> list[list[int]]:
    """Places that pass through the network at a time in the second step, by all ranks."""
    of_ranks = [Steps(1, 1, 8064, rank, count, accumulate).places() for rank in range(count)]
    return [np.asarray(places).tolist() for parts in of_ranks for places in parts]


def test_row_23_two_ranks_have_the_ghost_batches_of_336() -> None:
    wanted = groups(336, 1)
    assert [len(group) for group in wanted] == [GHOST] * 336
    assert groups(2, 168) == wanted
    assert groups(42, 8) == wanted
