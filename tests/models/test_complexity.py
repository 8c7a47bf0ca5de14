"""Sizes of the networks by their shapes: those of the papers, and of the layers that are built."""

import json

import pytest
import torch
from places import GOLDEN

from hpcscale import config
from hpcscale.models import complexity, networks

# With 1,000 classes; those of torchvision and timm, activations of timm's table where it has them.
SIZES = json.loads((GOLDEN / "complexity.json").read_text())
# Mahajan et al. 2018, section 2.3: millions of parameters, billions of multiply-adds, as printed.
PRINTED = {4: (43, 8), 8: (88, 16), 16: (193, 36), 32: (466, 87), 48: (829, 153)}


def model(name: str, **keys: object) -> config.Model:
    return config.Model.model_validate({"name": name, **keys})


def same_as_known(name: str) -> bool:
    found = {
        "parameters": complexity.parameters(model(name), 1000),
        "body": complexity.parameters(model(name), 0),
        "billion_multiply_adds_224": round(complexity.multiply_adds(model(name), 1000, 224) / 1e9, 3),
        "million_activations_224": round(complexity.activations(model(name), 224) / 1e6, 2),
    }
    return {key: found[key] for key in SIZES[name]} == SIZES[name]


def test_golden_covers_every_model() -> None:
    assert set(SIZES) == set(networks.MODELS)


@pytest.mark.parametrize("name", ["resnet50", "resnet101", "resnet152"])
def test_row_12_sizes_by_shape_are_those_known(name: str) -> None:
    assert same_as_known(name)


@pytest.mark.parametrize("width", PRINTED)
def test_row_13_sizes_by_shape_are_those_known_and_printed(width: int) -> None:
    """The paper's millions mix conventions: within 3 %."""
    name, (millions, billions) = f"resnext101_32x{width}d", PRINTED[width]
    assert same_as_known(name)
    assert complexity.parameters(model(name), 1000) == pytest.approx(1e6 * millions, rel=0.03)
    assert round(complexity.multiply_adds(model(name), 1000, 224) / 1e9) == billions


@pytest.mark.parametrize("name", [name for name in SIZES if name.startswith("bit")])
def test_row_14_sizes_by_shape_are_those_known(name: str) -> None:
    assert same_as_known(name)


def test_row_13_a_block_costs_what_the_paper_says() -> None:
    """Xie et al. 2017, equation 4: C (256 d + 3 3 d d + d 256), of a block of the first stage."""
    for d in PRINTED:
        block = list(complexity.convolutions(model(f"resnext101_32x{d}d"), 224))[5:8]  # the second
        assert sum(c.weights for c in block) == 32 * (256 * d + 9 * d * d + d * 256)


@pytest.mark.parametrize("name", networks.MODELS)
def test_network_has_the_size_computed(name: str) -> None:
    with torch.device("meta"):
        network = networks.build(model(name), 1000)
    assert sum(p.numel() for p in network.parameters()) == SIZES[name]["parameters"]


@pytest.mark.parametrize(
    ("name", "keys", "side"),
    [
        ("resnet50", {}, 32),
        ("resnet50", {"stride": "1x1"}, 65),
        ("resnet50", {"output_stride": 8}, 65),
        ("resnet50", {"stride": "1x1", "output_stride": 16}, 299),
        ("resnext101_32x4d", {}, 299),
        ("bit_r50x3", {}, 65),
        ("bit_r50x1", {"output_stride": 8}, 299),
    ],
)
def test_row_12_multiply_adds_and_activations_are_those_of_the_layers(
    name: str, keys: dict[str, object], side: int
) -> None:
    """Of rows 13 and 14 too. Odd sizes, where every stride rounds up."""
    counted, written = [], []

    def count(module: torch.nn.Module, inputs: object, output: torch.Tensor) -> None:
        if isinstance(module, torch.nn.Conv2d):
            counted.append(output[0].numel() * module.weight[0].numel())
            written.append(output.numel())
        elif isinstance(module, torch.nn.Linear):
            counted.append(module.weight.numel())

    with torch.device("meta"):
        network = networks.build(model(name, **keys), 1000).eval()
        for module in network.modules():
            module.register_forward_hook(count)
        network(torch.empty(1, 3, side, side))
    assert sum(counted) == complexity.multiply_adds(model(name, **keys), 1000, side)
    assert sum(written) == complexity.activations(model(name, **keys), side)
