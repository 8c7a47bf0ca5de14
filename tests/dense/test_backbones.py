"""Backbones of detectors: shapes, the network's own maps, frozen parts, weights and preprocessing."""

from pathlib import Path

import pytest
import torch

from hpcscale import config
from hpcscale.config import ConfigError
from hpcscale.dense import backbones
from hpcscale.dense.ops import torchvision
from hpcscale.models import networks, surgery
from hpcscale.models.preprocessing import DEVIATIONS, MEANS
from hpcscale.models.shapes import SHAPES
from hpcscale.models.weights import Weights

NAMES = ["resnet50", "resnext101_32x8d", "bit_r50x1"]


@pytest.fixture(autouse=True)
def short(request, monkeypatch):
    """One block a stage, and few channels, but where a test asks for the networks' own."""
    whole = "stages" in request.node.name
    for name in NAMES:
        shape = SHAPES[name]._replace(stages=(1, 1, 1, 1))
        monkeypatch.setitem(SHAPES, name, shape if whole else shape._replace(inner=32, root=32))


def build(name="resnet50", levels="P2-P6", frozen=2, **keys):
    torch.manual_seed(0)
    return backbones.build(config.Model(name=name, zero_init_residual=False, **keys), levels, frozen)


def images():
    return torch.randn(2, 3, 33, 64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", NAMES)
def test_stages_have_their_strides_and_end_in_the_networks_maps(name):
    torch.manual_seed(0)
    network = networks.build(config.Model(name=name), 3).eval()
    with torch.no_grad():
        stages = list(network.stages(images()))
        maps = network.maps(images())
    assert [tuple(stage.shape) for stage in stages] == [
        (2, 256, 9, 16), (2, 512, 5, 8), (2, 1024, 3, 4), (2, 2048, 2, 2)
    ]  # fmt: skip
    assert torch.equal(stages[-1], maps)
    assert torch.equal(network.features(images()), maps.mean((2, 3)))


@pytest.mark.parametrize("name", NAMES)
def test_levels_have_their_names_and_strides(name):
    for levels, wanted in (
        ("P2-P6", {"0": (9, 16), "1": (5, 8), "2": (3, 4), "3": (2, 2), "pool": (1, 1)}),
        ("P3-P7", {"0": (5, 8), "1": (3, 4), "2": (2, 2), "p6": (1, 1), "p7": (1, 1)}),
    ):
        backbone = build(name, levels)
        with torch.no_grad():
            found = backbone(images())
        assert {level: tuple(maps.shape[2:]) for level, maps in found.items()} == wanted
        assert list(found) == list(wanted)
        assert {maps.shape[1] for maps in found.values()} == {backbone.out_channels} == {256}


def test_the_pyramid_is_over_the_networks_own_stages():
    backbone = build().eval()
    network = networks.build(config.Model(), 1).eval()
    network.load_state_dict(backbone.body.state_dict(), strict=False)
    with torch.no_grad():
        stages = {str(place): maps for place, maps in enumerate(network.stages(images()))}
        wanted, found = backbone.fpn(stages), backbone(images())
    for level, maps in found.items():
        torch.testing.assert_close(maps, wanted[level])


@pytest.mark.parametrize("name", ["resnet50", "bit_r50x1"])
@pytest.mark.parametrize("frozen", range(6))
def test_frozen_parts_have_no_gradient_and_stay(name, frozen):
    backbone = build(name, frozen=frozen).train()
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    trained = [each for each in backbone.parameters() if each.requires_grad]
    sum(level.square().mean() for level in backbone(images()).values()).backward()
    torch.optim.SGD(trained, lr=0.1).step()
    changed = {key for key, value in backbone.state_dict().items() if not torch.equal(value, before[key])}
    parts = {key.split(".")[1] for key in changed if key.startswith("body.")}
    order = ["conv1", "layer1", "layer2", "layer3", "layer4"]
    assert parts - {"gn"} == set(order[frozen:])
    assert ("gn" in parts) == (name == "bit_r50x1" and frozen < 5)
    assert any(key.startswith("fpn.") for key in changed)
    assert not [key for key in changed if "running" in key or ".bn" in key]
    for key, parameter in backbone.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, key


def test_batch_normalisation_is_the_affine_map_of_its_averages():
    body = build().body
    frozen = torchvision.ops.FrozenBatchNorm2d(32)
    for name in ("weight", "bias", "running_mean", "running_var"):
        getattr(body.bn1, name).data.uniform_(0.5, 2)
        setattr(frozen, name, getattr(body.bn1, name).detach().clone())
    maps = torch.randn(2, 32, 5, 5)
    torch.testing.assert_close(body.bn1(maps), frozen(maps))


def test_a_detector_over_a_backbone_trains():
    backbone = build("bit_r50x1", "P3-P7")
    mean, std = backbones.scaling("signed")
    anchors = torchvision.models.detection.anchor_utils.AnchorGenerator(
        tuple((side,) for side in (32, 64, 128, 256, 512)), ((0.5, 1.0, 2.0),) * 5
    )
    model = torchvision.models.detection.RetinaNet(
        backbone, 3, min_size=64, max_size=64, image_mean=mean, image_std=std, anchor_generator=anchors
    )
    target = {"boxes": torch.tensor([[4.0, 4, 30, 40]]), "labels": torch.ones(1, dtype=torch.int64)}
    sum(model.train()([torch.rand(3, 64, 64)], [target]).values()).backward()
    assert backbone.body.layer4[0].conv1.weight.grad.abs().sum() > 0


def test_weights_of_other_preprocessing_are_refused():
    """A body takes a network's weights by name, but for the classifier; and only with its mean and stride."""
    backbone, settings = build(), config.Model(init=Path("x.pth"))
    torch.manual_seed(5)
    tensors = networks.build(config.Model(), 7).state_dict()
    seen = {"channels": "RGB", "mean": MEANS["imagenet"], "std": DEVIATIONS["imagenet"], "stride": "3x3"}
    given = Weights(Path("x.pth"), "f" * 64, tensors, {"preprocessing": seen})
    report = surgery.put(backbone.body, settings, given, backbones.stated(settings, "imagenet"))
    assert report["left"] == ["fc.bias", "fc.weight"]
    assert report["missing"] == report["notes"] == []
    for name, value in backbone.body.state_dict().items():
        assert torch.equal(value, tensors[name]), name
    with pytest.raises(ConfigError, match="was trained with mean"):
        surgery.put(backbone.body, settings, given, backbones.stated(settings, "signed"))
    other = config.Model(init=Path("x.pth"), stride="1x1")
    with pytest.raises(ConfigError, match="was trained with stride 3x3"):
        surgery.put(backbone.body, other, given, backbones.stated(other, "imagenet"))


def test_pictures_are_scaled_as_the_network_reads_them():
    pixels = torch.tensor([0.0, 100, 255])
    for values in ("signed", "imagenet"):
        mean, std = backbones.scaling(values)
        wanted = (pixels - torch.tensor(MEANS[values])) / torch.tensor(DEVIATIONS[values])
        torch.testing.assert_close((pixels / 255 - torch.tensor(mean)) / torch.tensor(std), wanted)


def test_what_a_pyramid_cannot_have_is_told():
    for keys, message in (
        ({"output_stride": 16}, "model.output_stride: found 16"),
        ({"head": "zero"}, "model.head: found 'zero'"),
        ({"frozen": 6}, r"frozen: found 6; allowed are 0 \(nothing\) to 5"),
    ):
        with pytest.raises(ConfigError, match=message):
            build(**keys)
