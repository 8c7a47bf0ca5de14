"""ResNets and ResNeXts: names of torchvision, strides, first weights, gradients that reach everything."""

import pytest
import torch
from torch.nn import functional as F

from hpcscale import config
from hpcscale.models import networks, resnet


def build(classes: int = 10, **keys: object) -> resnet.ResNet:
    torch.manual_seed(0)
    return resnet.build(config.Model.model_validate(keys), classes)


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


def test_row_13_state_dict_has_the_shapes_of_torchvision() -> None:
    with torch.device("meta"):
        state = build(1000, name="resnext101_32x8d").state_dict()
    assert len(state) == 626
    for name, shape in {
        "layer1.0.conv1.weight": (256, 64, 1, 1),
        "layer1.0.conv2.weight": (256, 8, 3, 3),
        "layer2.0.downsample.0.weight": (512, 256, 1, 1),
        "layer3.22.conv2.weight": (1024, 32, 3, 3),
        "layer4.2.conv3.weight": (2048, 2048, 1, 1),
        "fc.weight": (1000, 2048),
    }.items():
        assert state[name].shape == shape


@pytest.mark.parametrize(("place", "strides"), [("3x3", [1, 2, 1]), ("1x1", [2, 1, 1])])
def test_row_12_the_stride_lies_where_the_recipe_says(place: str, strides: list[int]) -> None:
    block = build(stride=place).layer2[0]
    assert [layer.stride[0] for layer in (block.conv1, block.conv2, block.conv3)] == strides


@pytest.mark.parametrize("stride", ["3x3", "1x1"])
@pytest.mark.parametrize("smaller", [8, 16])
def test_row_12_dense_maps_hold_those_of_stride_32(stride: str, smaller: int) -> None:
    """The identity by which TF-slim tests its own: the same weights, every 4th (2nd) place of the maps."""
    keys = {"stride": stride, "zero_init_residual": False}
    network = build(**keys)
    images = torch.randn(2, 3, 65, 65)
    network(torch.randn(4, 3, 64, 64))  # statistics of batch normalisation that are not 0 and 1
    dense = build(**keys, output_stride=smaller)
    dense.load_state_dict(network.state_dict())
    with torch.inference_mode():
        wanted, maps = network.eval().maps(images), dense.eval().maps(images)
    side = -(-65 // smaller)
    assert maps.shape == (2, 2048, side, side)
    step = 32 // smaller
    torch.testing.assert_close(maps[:, :, ::step, ::step], wanted, rtol=1e-4, atol=1e-4)


def test_row_13_a_grouped_convolution_is_32_of_its_own_beside_one_another() -> None:
    layer = build(name="resnext101_32x4d").layer2[0].conv2
    images = torch.randn(2, 256, 9, 9)
    parts = zip(images.split(8, dim=1), layer.weight.split(8), strict=True)
    alone = [F.conv2d(part, weight, stride=2, padding=1) for part, weight in parts]
    assert len(alone) == 32
    torch.testing.assert_close(layer(images), torch.cat(alone, dim=1))


def test_first_weights() -> None:
    network = build(5000, head_bias=-5.0)
    assert network.conv1.weight.std().item() == pytest.approx((2 / (64 * 49)) ** 0.5, rel=0.05)
    assert network.classifier.weight.std().item() == pytest.approx(0.01, rel=0.01)
    assert torch.all(network.classifier.bias == -5.0)
    assert torch.all(network.layer3[2].bn3.weight == 0)
    assert torch.all(build(zero_init_residual=False).layer3[2].bn3.weight == 1)


def test_row_13_every_block_without_projection_is_the_identity_at_first() -> None:
    network = build(name="resnext101_32x4d")
    for stage, channels in zip((network.layer1, network.layer4), (256, 2048), strict=True):
        images = torch.rand(2, channels, 8, 8)
        for block in stage[1:]:
            torch.testing.assert_close(block(images), images)
            assert not block.bn3.weight.any()
            assert torch.all(block.bn1.weight == 1)
            assert torch.all(block.bn2.weight == 1)


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
        networks.build(config.Model(), 0)
