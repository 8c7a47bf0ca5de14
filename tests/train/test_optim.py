"""Optimizers against published vectors and torch's own."""

from collections.abc import Iterable
from typing import Any

import pytest
import torch
from torch import nn

from hpcscale.config import Optimizer
from hpcscale.train import optim

GRADIENTS = (0.1, 0.1, -0.2)


class One(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, 1, dtype=torch.float64))


def path(settings: Optimizer, rates: tuple[float, ...] = (1e-3,) * 3) -> list[float]:
    """The weight after each of three gradients, with the learning rates of these steps."""
    model = One()
    optimizer = optim.build(model, settings)
    weights = []
    for rate, gradient in zip(rates, GRADIENTS, strict=True):
        optim.set_lr(optimizer, rate)
        model.weight.grad = torch.full_like(model.weight, gradient)
        optimizer.step()
        weights.append(model.weight.item())
    return weights


@pytest.mark.parametrize(
    ("epsilon", "wanted"),
    [
        (1.0, [-7.252854e-5, -2.120947e-4, -1.858536e-4]),
        (1e-10, [-1.053507e-4, -3.111474e-4, -2.630337e-4]),
    ],
)
def test_row_21_rmsprop_is_tensorflows(epsilon: float, wanted: list[float]) -> None:
    settings = Optimizer(name="rmsprop", momentum=0.9, decay=0.9, epsilon=epsilon, weight_decay=0.0)
    assert path(settings) == pytest.approx(wanted, rel=1e-6)


RATES = (1e-3, 1e-4, 1e-2)


def test_row_21_rmsprop_puts_the_learning_rate_into_its_momentum() -> None:
    """square = 0.8 square + 0.2 g^2; m = 0.9 m + lr g / sqrt(square + epsilon); w = w - m. So a step's rate
    stays with what that step adds to the momentum."""
    weight, square, momentum, wanted = 0.0, 1.0, 0.0, []
    for rate, gradient in zip(RATES, GRADIENTS, strict=True):
        square = 0.8 * square + 0.2 * gradient**2
        momentum = 0.9 * momentum + rate * gradient / (square + 0.1) ** 0.5
        weight -= momentum
        wanted.append(weight)
    settings = Optimizer(name="rmsprop", momentum=0.9, decay=0.8, epsilon=0.1, weight_decay=0.0)
    assert path(settings, RATES) == pytest.approx(wanted, rel=1e-12)


def corrected(gradients: Iterable[float]) -> list[float]:
    """Equation 10 of Goyal et al. 2017 with the correction: m = 0.9 (lr / last lr) m + lr g; w = w - m."""
    weight, momentum, last, wanted = 0.0, 0.0, RATES[0], []
    for rate, gradient in zip(RATES, gradients, strict=True):
        momentum = 0.9 * (rate / last) * momentum + rate * gradient
        weight, last = weight - momentum, rate
        wanted.append(weight)
    return wanted


@pytest.mark.parametrize("key", [False, True])
def test_row_23_sgd_is_momentum_with_correction(key: bool) -> None:
    """Equation 9 and equation 10 with the correction are one, while rates change."""
    found = path(Optimizer(momentum=0.9, weight_decay=0.0, momentum_correction=key), RATES)
    assert found == pytest.approx(corrected(GRADIENTS), rel=1e-12)


def test_row_23_correction_of_rmsprop_scales_its_momentum_with_the_rate() -> None:
    square, scaled = 1.0, []
    for gradient in GRADIENTS:
        square = 0.8 * square + 0.2 * gradient**2
        scaled.append(gradient / (square + 0.1) ** 0.5)
    keys: dict[str, Any] = {"name": "rmsprop", "decay": 0.8, "epsilon": 0.1, "weight_decay": 0.0}
    found = path(Optimizer(**keys, momentum_correction=True), RATES)
    assert found == pytest.approx(corrected(scaled), rel=1e-12)
    with_, without = (path(Optimizer(**keys, momentum_correction=key)) for key in (True, False))
    assert with_ == pytest.approx(without, rel=1e-12)  # one rate


def test_row_23_sgd_by_hand_and_nesterovs() -> None:
    """v = 0.9 v + g; w = w - lr v; with Nesterov w = w - lr (g + 0.9 v)."""
    for nesterov in (False, True):
        weight, velocity, wanted = 0.0, 0.0, []
        for rate, gradient in zip(RATES, GRADIENTS, strict=True):
            velocity = 0.9 * velocity + gradient
            weight -= rate * (gradient + 0.9 * velocity if nesterov else velocity)
            wanted.append(weight)
        found = path(Optimizer(momentum=0.9, nesterov=nesterov, weight_decay=0.0), RATES)
        assert found == pytest.approx(wanted, rel=1e-12)


def network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8 * 16, 5))


def trained(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int, first: int = 0) -> dict[str, Any]:
    for step in range(first, first + steps):
        optim.set_lr(optimizer, 1e-3 / (step + 1))
        optimizer.zero_grad()
        images = torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(step))
        model(images).square().mean().backward()
        optimizer.step()
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def test_sgd_equals_torchs_unfused() -> None:
    ours, theirs = network(), network()
    reference = torch.optim.SGD(
        [
            {"params": [p for p in theirs.parameters() if p.ndim > 1], "weight_decay": 0.01},
            {"params": [p for p in theirs.parameters() if p.ndim == 1]},
        ],
        lr=0.1,
        momentum=0.9,
        nesterov=True,
    )
    found = trained(ours, optim.build(ours, Optimizer(nesterov=True, weight_decay=0.01)), 4)
    torch.testing.assert_close(found, trained(theirs, reference, 4))


@pytest.mark.parametrize("name", ["sgd", "rmsprop"])
def test_row_23_biases_and_normalisations_are_not_decayed(name: str) -> None:
    model = network()
    optimizer = optim.build(model, Optimizer(name=name, momentum=0.0, weight_decay=0.5))
    optim.set_lr(optimizer, 0.1)
    before = {key: p.detach().clone() for key, p in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    changed = {key for key, p in model.named_parameters() if not torch.equal(p, before[key])}
    assert changed == {"0.weight", "3.weight"}


@pytest.mark.parametrize("corrected", [False, True])
def test_rmsprop_that_does_not_wait_has_the_same_bits(corrected: bool) -> None:
    """As on a GPU."""
    found = []
    for waits in (True, False):
        model = network()
        optimizer = optim.build(model, Optimizer(name="rmsprop", epsilon=0.1, momentum_correction=corrected))
        optimizer.waits = waits  # type: ignore[attr-defined]
        optimizer.found_inf = torch.tensor(0.0)  # type: ignore[attr-defined]
        found.append(trained(model, optimizer, 3))
    assert all(torch.equal(found[0][key], found[1][key]) for key in found[0])


@pytest.mark.parametrize("size", [1, 30, 216, 250])
def test_rmsprop_in_parts_has_the_same_bits(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts that cut tensors of 216, 8 and 640 numbers, that end with one, and that hold several."""
    found = []
    for each in (1 << 20, size):
        monkeypatch.setattr(optim, "PART", each)
        model = network()
        settings = Optimizer(name="rmsprop", epsilon=0.1, weight_decay=0.1)
        found.append(trained(model, optim.build(model, settings), 3))
    assert all(torch.equal(found[0][key], found[1][key]) for key in found[0])


@pytest.mark.parametrize("name", ["sgd", "rmsprop"])
def test_state_carries_on_bit_equal(name: str) -> None:
    settings = Optimizer(name=name, epsilon=0.1)
    whole = network()
    wanted = trained(whole, optim.build(whole, settings), 6)
    first = network()
    before = optim.build(first, settings)
    trained(first, before, 3)
    second = network()
    second.load_state_dict(first.state_dict())
    after = optim.build(second, settings)
    there, here = optim.state(first, before), optim.state(second, after)
    assert there.keys() == here.keys()
    assert len(there) == len(list(first.parameters())) * (1 if name == "sgd" else 2)
    for key, value in there.items():
        here[key].copy_(value)
    found = trained(second, after, 3, first=3)
    assert all(value.isfinite().all() for value in wanted.values())
    assert all(torch.equal(found[key], wanted[key]) for key in wanted)


def test_sgd_without_momentum_has_no_state() -> None:
    model = network()
    assert optim.state(model, optim.build(model, Optimizer(momentum=0.0))) == {}
