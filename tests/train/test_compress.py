"""Gradients that travel in half: sums within the rounding, the same bits on all ranks, extras whole."""

import sys
from pathlib import Path

import pytest
import torch
from test_gradients import network as network

from hpcscale import ranks
from hpcscale.train.compress import KINDS, HalfSum

# What a half does to a number, relative; and what of it is lost altogether.
ROUNDING = {"float16": (2**-11, 6e-8), "bfloat16": (2**-8, 1e-38)}


def numbers(rank: int) -> torch.Tensor:
    """(1001,) from 1e-6 to 100, of both signs: not as many as two ranks can share evenly."""
    random = torch.Generator().manual_seed(rank)
    sizes = 10.0 ** (torch.rand(1001, generator=random) * 8 - 6)
    return sizes * torch.randn(1001, generator=random).sign()


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_one_rank_rounds_nothing(kind: str) -> None:
    mine, dtype = numbers(0), KINDS[kind]
    assert dtype is not None
    HalfSum(mine, dtype)()
    assert torch.equal(mine, numbers(0))


@pytest.mark.slow
def test_sums_are_those_of_float32_but_for_rounding(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        f"""
import sys
from pathlib import Path
import torch
from hpcscale import ranks
from hpcscale.train.compress import KINDS, HalfSum
from hpcscale.train.gradients import GradientBuckets
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_compress import ROUNDING, numbers, network
from test_gradients import IMAGES
ranks.init()
rank, found = ranks.rank(), []
for name in ROUNDING:
    mine = torch.empty(1001)
    half = HalfSum(mine, KINDS[name])
    for _ in range(2):  # the second time in used memory
        mine.copy_(numbers(rank))
        half()
    found.append([mine])
    for limit in (None, 700):
        model = network()
        apart = tuple(model[3].parameters())
        buckets = GradientBuckets(model.parameters(), limit, local=apart, compress=KINDS[name])
        buckets.clear()
        model(IMAGES[rank * 2 : rank * 2 + 2]).square().sum().backward()
        own = [p.grad.clone() for p in model.parameters()]
        extras = buckets.finish(1234.567, 1.0)
        found[-1].append([own, extras, [p.grad for p in model.parameters()]])
torch.save(found, Path({str(tmp_path)!r}, str(rank)))
"""
    )
    assert ranks.launch([sys.executable, str(program)], 3) == 0
    of_ranks = [torch.load(tmp_path / str(rank)) for rank in range(3)]
    for kind, found in zip(ROUNDING, zip(*of_ranks, strict=True), strict=True):
        given = [numbers(rank) for rank in range(3)]
        within(kind, given, [each[0] for each in found])
        assert not torch.equal(found[0][0], sum(given))
        for way in (1, 2):
            owns, extras, gradients = zip(*(each[way] for each in found), strict=True)
            for each in extras:
                assert each.tolist() == pytest.approx([1234.567 * 3, 3.0], rel=1e-7)
            for at in (0, 1):
                within(kind, [own[at] for own in owns], [each[at] for each in gradients])
            for at in (2, 3):  # of a rank alone
                assert all(torch.equal(a[at], b[at]) for a, b in zip(owns, gradients, strict=True))


def within(kind: str, given: list[torch.Tensor], found: list[torch.Tensor]) -> None:
    """All ranks have the same bits, as far from the sum as two roundings allow."""
    relative, absolute = ROUNDING[kind]
    exact = sum(each.double() for each in given)
    most = sum(each.double().abs() for each in given) * 2.01 * relative + 4 * absolute
    for each in found:
        assert torch.equal(each, found[0])
        assert each.dtype == torch.float32
        assert ((each.double() - exact).abs() <= most).all()
