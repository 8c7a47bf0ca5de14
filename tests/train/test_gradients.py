"""Gradients of a step: added up over passes, without frozen parameters, with those of one rank alone."""

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from hpcscale import ranks
from hpcscale.train.gradients import GradientBuckets

IMAGES = torch.randn(8, 3, 6, 6, generator=torch.Generator().manual_seed(1))


def network() -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(128, 5)]
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)


def whole(model: nn.Module) -> list[Tensor | None]:
    """Gradients of the whole batch in one pass, by torch alone."""
    model.zero_grad()
    model(IMAGES).square().sum().backward()
    return [p.grad if p.grad is None else p.grad.clone() for p in model.parameters()]


@pytest.mark.parametrize("limit", [None, 700])
@pytest.mark.parametrize("passes", [1, 2, 4])
def test_passes_add_up(limit: int | None, passes: int) -> None:
    wanted, model = whole(network()), network()
    buckets = GradientBuckets(model.parameters(), limit)
    for _ in range(2):  # the second time in used buffers
        buckets.clear(passes)
        for part in IMAGES.chunk(passes):
            model(part).square().sum().backward()
        assert buckets.finish(3.0, 4.0).tolist() == [3.0, 4.0]
        for parameter, gradient in zip(model.parameters(), wanted, strict=True):
            assert parameter.grad is not None
            torch.testing.assert_close(parameter.grad, gradient, rtol=1e-5, atol=1e-5)


def test_a_pass_too_few_is_an_error() -> None:
    model = network()
    buckets = GradientBuckets(model.parameters())
    buckets.clear(2)
    model(IMAGES).square().sum().backward()
    with pytest.raises(AssertionError, match="a parameter got no gradient"):
        buckets.finish(0.0, 0.0)


def test_frozen_parameters_are_left_out() -> None:
    model = network()
    model[0].requires_grad_(False)
    wanted = whole(model)
    buckets = GradientBuckets(model.parameters())
    assert sum(bucket.numel() for bucket in buckets.buckets) == 128 * 5 + 5 + 2
    buckets.clear()
    model(IMAGES).square().sum().backward()
    buckets.finish(0.0, 0.0)
    assert [p.grad is None for p in model.parameters()] == [True, True, False, False]
    torch.testing.assert_close(model[3].weight.grad, wanted[2])
    with pytest.raises(ValueError, match="no parameter is trained on all ranks"):
        GradientBuckets(model[0].parameters())


def test_frozen_parameters_of_one_rank_are_left_out_too() -> None:
    model = network()
    model[3].requires_grad_(False)
    buckets = GradientBuckets(model.parameters(), local=tuple(model[3].parameters()))
    buckets.clear()
    model(IMAGES).square().sum().backward()
    assert buckets.finish(3.0, 4.0).tolist() == [3.0, 4.0]


def test_a_parameter_of_one_rank_without_gradient_is_an_error() -> None:
    model, apart = network(), nn.Parameter(torch.zeros(2))
    buckets = GradientBuckets([*model.parameters(), apart], local=[apart])
    buckets.clear()
    model(IMAGES).square().sum().backward()
    with pytest.raises(AssertionError, match="a parameter got no gradient"):
        buckets.finish(0.0, 0.0)


@pytest.mark.slow
@pytest.mark.parametrize("broken", [False, True])
def test_a_rank_keeps_its_own_gradients_and_all_hear_if_they_are_broken(tmp_path: Path, broken: bool) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        f"""
import sys
from pathlib import Path
import torch
from hpcscale import ranks
from hpcscale.train.divergence import LARGEST, Guard
from hpcscale.train.gradients import GradientBuckets
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_gradients import IMAGES, network
ranks.init()
rank = ranks.rank()
model = network()
own = tuple(model[3].parameters())
buckets = GradientBuckets(model.parameters(), local=own)
buckets.clear()
loss = model(IMAGES[rank * 4 : rank * 4 + 4]).square().sum()
loss.backward()
if {broken} and rank == 1:
    own[0].grad[0, 0] = float("nan")
numbers = buckets.finish(loss.detach(), float(rank))
bad = Guard(model).judge(numbers[0], LARGEST, buckets.buckets)
torch.save([bad, numbers, *(p.grad for p in model.parameters())], Path({str(tmp_path)!r}, str(rank)))
"""
    )
    assert ranks.launch([sys.executable, str(program)], 2) == 0
    found = [torch.load(tmp_path / str(rank)) for rank in (0, 1)]
    assert [each[0].item() for each in found] == [float(broken)] * 2
    assert [each[1].tolist()[1] for each in found] == [1.0, 1.0]
    if broken:
        return
    summed = whole(network())
    for rank in (0, 1):
        model = network()
        model(IMAGES[rank * 4 : rank * 4 + 4]).square().sum().backward()
        own = [parameter.grad for parameter in model[3].parameters()]
        for gradient, wanted in zip(found[rank][2:], [*summed[:2], *own], strict=True):
            torch.testing.assert_close(gradient, wanted, rtol=1e-5, atol=1e-5)


def test_a_norm_above_the_limit_becomes_the_limit() -> None:
    """Of all weights together, however they lie in buckets; a smaller one, and what is no number, stay."""
    wanted = [gradient for gradient in whole(network()) if gradient is not None]
    norm = float(torch.cat([gradient.flatten() for gradient in wanted]).norm())
    for limit, most in ((None, norm / 3), (700, norm / 3), (700, norm * 3)):
        model = network()
        buckets = GradientBuckets(model.parameters(), limit)
        buckets.clear()
        model(IMAGES).square().sum().backward()
        buckets.finish(3.0, 4.0)
        buckets.clip(most)
        for parameter, gradient in zip(model.parameters(), wanted, strict=True):
            assert parameter.grad is not None
            torch.testing.assert_close(parameter.grad, gradient * min(1.0, most / norm))
        assert buckets.extras.tolist() == [3.0, 4.0]
