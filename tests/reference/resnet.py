"""ResNet and ResNeXt straight from tensors by torchvision's names, float64, one step after the other."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F


def shapes(
    blocks: tuple[int, ...], width: int, groups: int, classes: int
) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes in a file of torchvision, or of WSL-Images. width: channels of a group in the first
    stage."""
    yield "conv1.weight", (64, 3, 7, 7)
    yield from _normalised("bn1", 64)
    inputs = 64
    for stage, count in enumerate(blocks):
        inner, outputs = width * groups * 2**stage, 256 * 2**stage
        for block in range(count):
            place = f"layer{stage + 1}.{block}"
            yield f"{place}.conv1.weight", (inner, inputs, 1, 1)
            yield from _normalised(f"{place}.bn1", inner)
            yield f"{place}.conv2.weight", (inner, inner // groups, 3, 3)
            yield from _normalised(f"{place}.bn2", inner)
            yield f"{place}.conv3.weight", (outputs, inner, 1, 1)
            yield from _normalised(f"{place}.bn3", outputs)
            if block == 0:
                yield f"{place}.downsample.0.weight", (outputs, inputs, 1, 1)
                yield from _normalised(f"{place}.downsample.1", outputs)
            inputs = outputs
    yield "fc.weight", (classes, inputs)
    yield "fc.bias", (classes,)


def _normalised(name: str, channels: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    for each in ("weight", "bias", "running_mean", "running_var"):
        yield f"{name}.{each}", (channels,)
    yield f"{name}.num_batches_tracked", ()


def drawn(blocks: tuple[int, ...], width: int, groups: int, classes: int) -> dict[str, Tensor]:
    """Made-up tensors under which maps neither vanish nor explode."""
    draw = torch.Generator().manual_seed(0)
    found = {}
    for name, shape in shapes(blocks, width, groups, classes):
        if name.endswith("num_batches_tracked"):
            found[name] = torch.tensor(7)
        elif name.endswith("running_var"):  # down to where its epsilon counts
            found[name] = 10 ** (torch.rand(shape, generator=draw) * 4 - 4)
        elif len(shape) > 1:
            scale = (0.1 / torch.Size(shape[1:]).numel()) ** 0.5
            found[name] = scale * torch.randn(shape, generator=draw)
        else:
            mean = 0.2 if name.endswith("weight") else 0.0
            found[name] = mean + 0.1 * torch.randn(shape, generator=draw)
    return found


def logits(tensors: Mapping[str, Tensor], groups: int, images: Tensor) -> Tensor:
    """images (n, 3, h, w) -> (n, classes). The stride lies on the 3x3."""
    given = {name: tensor.double() for name, tensor in tensors.items()}

    def convolved(x: Tensor, name: str, stride: int, padding: int, groups: int = 1) -> Tensor:
        return F.conv2d(x, given[f"{name}.weight"], None, stride, padding, 1, groups)

    def scaled(x: Tensor, name: str) -> Tensor:
        mean, variance, weight, bias = (
            given[f"{name}.{each}"].reshape(-1, 1, 1)
            for each in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (variance + 1e-5).sqrt() * weight + bias

    x = scaled(convolved(images.double(), "conv1", 2, 3), "bn1").clamp(min=0)
    x = F.max_pool2d(F.pad(x, (1, 1, 1, 1), value=-torch.inf), 3, 2)
    for place in dict.fromkeys(name.rpartition(".conv1")[0] for name in given if ".conv1" in name):
        stride = 2 if place.endswith(".0") and not place.startswith("layer1") else 1
        y = scaled(convolved(x, f"{place}.conv1", 1, 0), f"{place}.bn1").clamp(min=0)
        y = scaled(convolved(y, f"{place}.conv2", stride, 1, groups), f"{place}.bn2").clamp(min=0)
        y = scaled(convolved(y, f"{place}.conv3", 1, 0), f"{place}.bn3")
        if f"{place}.downsample.0.weight" in given:
            x = scaled(convolved(x, f"{place}.downsample.0", stride, 0), f"{place}.downsample.1")
        x = (x + y).clamp(min=0)
    return x.mean((2, 3)) @ given["fc.weight"].T + given["fc.bias"]
