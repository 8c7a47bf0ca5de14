"""ResNets: exact sizes, names of torchvision, first weights, gradients that reach everything."""

import json

import pytest
import torch
from places import GOLDEN

from hpcscale import config
from hpcscale.models import complexity, resnet

SIZES = json.loads((GOLDEN / "complexity.json").read_text())


def build(classes: int = 10, **keys: object) -> resnet.ResNet:
    torch.manual_seed(0)
    return resnet.build(config.Model.model_validate(keys), classes)


def test_golden_covers_every_model() -> None:
    assert set(SIZES) == set(complexity.STAGES)


@pytest.mark.parametrize("name", complexity.STAGES)
def test_size_from_shape_is_golden(name: str) -> None:
    assert SIZES[name] == {
        "parameters": complexity.parameters(name, 1000),
        "body": complexity.parameters(name, 0),
        "multiply_adds_224": complexity.multiply_adds(name, 1000, 224),
    }


@pytest.mark.parametrize("name", complexity.STAGES)
def test_network_has_the_size_computed(name: str) -> None:
    with torch.device("meta"):
        network = resnet.ResNet(resnet.STAGES[name], 1000)
    assert sum(p.numel() for p in network.parameters()) == SIZES[name]["parameters"]


@pytest.mark.parametrize("side", [32, 65, 299])
def test_multiply_adds_equal_those_of_the_layers(side: int) -> None:
    """Odd sizes too, where every stride rounds up."""
    counted = []

    def count(module: torch.nn.Module, inputs: object, output: torch.Tensor) -> None:
        if isinstance(module, torch.nn.Conv2d):
            counted.append(output[0].numel() * module.weight[0].numel())
        elif isinstance(module, torch.nn.Linear):
            counted.append(module.weight.numel())

    with torch.device("meta"):
        network = resnet.ResNet(resnet.STAGES["resnet50"], 1000).eval()
        for module in network.modules():
            module.register_forward_hook(count)
        network(torch.empty(1, 3, side, side))
    assert sum(counted) == complexity.multiply_adds("resnet50", 1000, side)


def test_state_dict_has_the_names_and_shapes_of_torchvision() -> None:
    state = build(1000).state_dict()
    assert len(state) == 320
    for name, shape in {
        "conv1.weight": (64, 3, 7, 7),
        "bn1.num_batches_tracked": (),
        "layer1.0.downsample.0.weight": (256, 64, 1, 1),
        "layer1.0.downsample.1.running_var": (256,),
        "layer2.0.conv2.weight": (128, 128, 3, 3),
        "layer3.5.bn3.bias": (1024,),
        "layer4.2.conv3.weight": (2048, 512, 1, 1),
        "fc.weight": (1000, 2048),
        "fc.bias": (1000,),
    }.items():
        assert state[name].shape == shape


def test_stride_is_on_the_3x3() -> None:
    block = build().layer2[0]
    assert (block.conv1.stride, block.conv2.stride, block.conv3.stride) == ((1, 1), (2, 2), (1, 1))


def test_first_weights() -> None:
    network = build(5000, head_bias=-5.0)
    assert network.conv1.weight.std().item() == pytest.approx((2 / (64 * 49)) ** 0.5, rel=0.05)
    assert network.classifier.weight.std().item() == pytest.approx(0.01, rel=0.01)
    assert torch.all(network.classifier.bias == -5.0)
    assert torch.all(network.layer3[2].bn3.weight == 0)
    assert torch.all(build(zero_init_residual=False).layer3[2].bn3.weight == 1)


def test_block_without_projection_is_the_identity_at_first() -> None:
    block = build().layer1[1]
    images = torch.rand(2, 256, 8, 8)
    torch.testing.assert_close(block(images), images)


def test_logits_are_the_classifier_of_the_features_and_all_parameters_get_gradients() -> None:
    network = build(7, zero_init_residual=False)
    images = torch.randn(2, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    features = network.features(images)
    assert features.shape == (2, 2048)
    logits = network(images)
    torch.testing.assert_close(network.classifier(features), logits)
    logits.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_same_seed_same_weights() -> None:
    first, second = build().state_dict(), build().state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_no_class_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one class, found 0"):
        build(0)
