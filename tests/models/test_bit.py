"""BiT's networks and their published weights by our names.

Standardised weights, group normalisation, a root that pads with zeros, samples that do not touch one another.
"""

import math

import pytest
import torch
from reference import bit as oracle
from torch.nn import functional as F

from hpcscale import config
from hpcscale.models import bit, published


def build(classes: int = 10, **keys: object) -> bit.BiT:
    torch.manual_seed(0)
    return bit.build(config.Model.model_validate({"name": "bit_r50x1", **keys}), classes)


def noisy(network: torch.nn.Module) -> None:
    """Normalisations that change something, and a classifier that is not zero."""
    for name, parameter in network.named_parameters():
        if parameter.ndim == 1 or name == "fc.weight":
            torch.nn.init.normal_(parameter, mean=float("gn" in name and "weight" in name), std=0.1)


def test_row_14_weights_are_standardised_over_inputs_and_window() -> None:
    layer = bit.StandardConv(6, 5, 3, 2, padding=1, bias=False)
    images = torch.randn(2, 6, 9, 9)
    weight = layer.weight
    mean = weight.mean((1, 2, 3), keepdim=True)
    standard = (weight - mean) / ((weight - mean).square().mean((1, 2, 3), keepdim=True) + 1e-10).sqrt()
    wanted = F.conv2d(images, standard, stride=2, padding=1)
    torch.testing.assert_close(layer(images), wanted)
    layer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    torch.testing.assert_close(layer(images), wanted)


def test_row_14_the_small_constant_is_that_of_the_published_models() -> None:
    """Of 1e-10, beside a variance of 1e-10: a half."""
    layer = bit.StandardConv(2, 1, 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([1e-5, -1e-5]).reshape(1, 2, 1, 1))
    images = torch.tensor([1.0, 0.0]).reshape(1, 2, 1, 1)
    assert layer(images).item() == pytest.approx(math.sqrt(0.5), rel=1e-5)


def test_row_14_scale_and_shift_of_the_weights_change_nothing() -> None:
    network = build().eval()
    images = torch.randn(2, 3, 32, 32)
    before = network.features(images)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, bit.StandardConv):
                module.weight.mul_(3.0).add_(0.25)
    torch.testing.assert_close(network.features(images), before, rtol=1e-3, atol=1e-3)


def test_row_14_normalisation_is_over_32_groups() -> None:
    layer = build().layer1[0].gn2
    maps = torch.randn(2, 64, 5, 5) * 3 + 1
    groups = maps.reshape(2, 32, -1)
    wanted = (groups - groups.mean(2, keepdim=True)) / (
        groups.var(2, correction=0, keepdim=True) + 1e-5
    ).sqrt()
    torch.testing.assert_close(layer(maps), wanted.reshape(maps.shape))


def test_row_14_the_root_is_padded_with_zeros() -> None:
    """Where all values are negative, a pooling that pads would leave the border negative."""
    network = build()
    maps = network.maxpool(network.pad(-torch.ones(1, 64, 8, 8)))
    assert maps.shape == (1, 64, 4, 4)
    assert torch.all(maps[:, :, 0] == 0)
    assert torch.all(maps[:, :, 1:, 1:] == -1)


def test_row_14_a_zero_classifier_has_the_loss_of_chance() -> None:
    logits = build(37)(torch.randn(2, 3, 32, 32))
    loss = F.cross_entropy(logits, torch.tensor([3, 36]))
    assert loss.item() == pytest.approx(math.log(37), rel=1e-6)
    assert torch.all(build(5, head_bias=-10.0)(torch.randn(1, 3, 32, 32)) == -10.0)


def test_row_14_samples_do_not_touch_one_another() -> None:
    """Even in training: a batch of one will do."""
    network = build().train()
    noisy(network)
    images = torch.randn(2, 3, 32, 32, requires_grad=True)
    logits = network(images)
    (gradient,) = torch.autograd.grad(logits[0].sum(), images)
    assert torch.all(gradient[1] == 0)
    assert torch.any(gradient[0] != 0)
    torch.testing.assert_close(network(images[:1]), logits[:1], rtol=1e-4, atol=1e-4)


def test_row_14_all_parameters_get_gradients() -> None:
    network = build(7)
    noisy(network)
    network(torch.randn(2, 3, 32, 32)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


@pytest.mark.parametrize("smaller", [8, 16])
def test_row_14_maps_may_be_dense(smaller: int) -> None:
    assert build(output_stride=smaller).maps(torch.randn(1, 3, 65, 65)).shape[-1] == -(-65 // smaller)


@pytest.mark.parametrize(
    ("name", "blocks", "factor"), [("bit_r50x1", (3, 4, 6, 3), 1), ("bit_r152x2", (3, 8, 36, 3), 2)]
)
def test_row_14_published_names_and_shapes_are_those_of_our_parameters(
    name: str, blocks: tuple[int, ...], factor: int
) -> None:
    empty = {
        key: torch.zeros((), device="meta").expand(shape)
        for key, shape in oracle.shapes(blocks, factor, 21_843)
    }
    found = {key: tensor.shape for key, tensor in published.ours(empty)[0].items()}
    with torch.device("meta"):
        network = build(21_843, name=name)
    assert found == {key: tensor.shape for key, tensor in network.state_dict().items()}


def test_row_14_a_number_behind_a_published_name_means_nothing() -> None:
    place = "resnet/block2/unit01/a/proj/standardized_conv2d"
    found, known = published.ours({f"{place}_7/kernel": torch.zeros(1, 1, 3, 2)})
    assert {name: tuple(tensor.shape) for name, tensor in found.items()} == {
        "layer2.0.downsample.weight": (2, 3, 1, 1)
    }
    assert known["preprocessing"]["mean"] == [127.5] * 3


@pytest.mark.parametrize("parts", [("conv1",), ("conv1", "layer1")])
def test_what_follows_a_frozen_part_is_trained(parts: tuple[str, ...]) -> None:
    """torch's group normalisation ends the process here, on the CPU, with maps that are channels_last."""
    network = build()
    for name in parts:
        network.get_submodule(name).requires_grad_(False)
    network.maps(torch.randn(2, 3, 32, 32).to(memory_format=torch.channels_last)).square().mean().backward()
    for name, parameter in network.named_parameters():
        assert (parameter.grad is not None) == (parameter.requires_grad and "fc." not in name), name
