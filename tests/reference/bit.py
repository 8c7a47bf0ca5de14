"""BiT straight from its published arrays, float64, one plain step after the other; slow."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

Arrays = Mapping[str, NDArray[Any]]


def shapes(blocks: tuple[int, ...], factor: int, classes: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of the arrays of a published file."""
    yield "resnet/root_block/standardized_conv2d/kernel", (7, 7, 3, 64 * factor)
    inputs = 64 * factor
    for block, units in enumerate(blocks, 1):
        inner = 64 * factor * 2 ** (block - 1)
        for unit in range(1, units + 1):
            place = f"resnet/block{block}/unit{unit:02d}"
            parts = {"a": (1, inputs, inner), "b": (3, inner, inner), "c": (1, inner, 4 * inner)}
            for part, (kernel, ins, outs) in parts.items():
                yield f"{place}/{part}/group_norm/gamma", (ins,)
                yield f"{place}/{part}/group_norm/beta", (ins,)
                yield f"{place}/{part}/standardized_conv2d/kernel", (kernel, kernel, ins, outs)
            if unit == 1:
                yield f"{place}/a/proj/standardized_conv2d/kernel", (1, 1, inputs, 4 * inner)
            inputs = 4 * inner
    yield "resnet/group_norm/gamma", (inputs,)
    yield "resnet/group_norm/beta", (inputs,)
    yield "resnet/head/conv2d/kernel", (1, 1, inputs, classes)
    yield "resnet/head/conv2d/bias", (classes,)


def timm_names(blocks: tuple[int, ...]) -> dict[str, str]:
    """The names of timm's resnetv2_*_bit by the published ones."""
    found = {
        "resnet/root_block/standardized_conv2d/kernel": "stem.conv.weight",
        "resnet/group_norm/gamma": "norm.weight",
        "resnet/group_norm/beta": "norm.bias",
        "resnet/head/conv2d/kernel": "head.fc.weight",
        "resnet/head/conv2d/bias": "head.fc.bias",
    }
    for block, units in enumerate(blocks, 1):
        for unit in range(1, units + 1):
            here, there = f"resnet/block{block}/unit{unit:02d}", f"stages.{block - 1}.blocks.{unit - 1}"
            for number, part in enumerate("abc", 1):
                found[f"{here}/{part}/group_norm/gamma"] = f"{there}.norm{number}.weight"
                found[f"{here}/{part}/group_norm/beta"] = f"{there}.norm{number}.bias"
                found[f"{here}/{part}/standardized_conv2d/kernel"] = f"{there}.conv{number}.weight"
            if unit == 1:
                found[f"{here}/a/proj/standardized_conv2d/kernel"] = f"{there}.downsample.conv.weight"
    return found


def logits(arrays: Arrays, images: NDArray[Any]) -> NDArray[Any]:
    """images (n, h, w, 3) -> (n, classes)."""
    x = _convolve(images.astype(np.float64), arrays["resnet/root_block/standardized_conv2d/kernel"], 2)
    x = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    side = (x.shape[1] - 3) // 2 + 1
    taken = slice(0, 2 * side - 1, 2)
    x = np.max([x[:, i:, j:][:, taken, taken] for i in range(3) for j in range(3)], axis=0)
    units = sorted({name[: name.index("/a/")] for name in arrays if "/a/" in name})
    for place in units:
        stride = 2 if place.endswith("unit01") and "block1" not in place else 1
        y = _active(x, arrays, f"{place}/a/group_norm")
        if (projection := arrays.get(f"{place}/a/proj/standardized_conv2d/kernel")) is not None:
            x = _convolve(y, projection, stride)
        y = _convolve(y, arrays[f"{place}/a/standardized_conv2d/kernel"], 1)
        y = _active(y, arrays, f"{place}/b/group_norm")
        y = _convolve(y, arrays[f"{place}/b/standardized_conv2d/kernel"], stride)
        y = _active(y, arrays, f"{place}/c/group_norm")
        x = x + _convolve(y, arrays[f"{place}/c/standardized_conv2d/kernel"], 1)
    x = _active(x, arrays, "resnet/group_norm").mean((1, 2))
    return x @ arrays["resnet/head/conv2d/kernel"][0, 0] + arrays["resnet/head/conv2d/bias"]


def _convolve(x: NDArray[Any], kernel: NDArray[Any], stride: int) -> NDArray[Any]:
    """x (n, h, w, inputs), a kernel (height, width, inputs, outputs) that is standardised first."""
    kernel = kernel.astype(np.float64)
    kernel = kernel - kernel.mean((0, 1, 2))
    kernel = kernel / np.sqrt((kernel**2).mean((0, 1, 2)) + 1e-10)
    weight = _torch(kernel.transpose(3, 2, 0, 1))
    out = F.conv2d(_torch(x.transpose(0, 3, 1, 2)), weight, stride=stride, padding=kernel.shape[0] // 2)
    return out.numpy().transpose(0, 2, 3, 1)


def _active(x: NDArray[Any], arrays: Arrays, name: str) -> NDArray[Any]:
    """Group normalisation, then ReLU."""
    n, height, width, channels = x.shape
    groups = x.reshape(n, height, width, 32, channels // 32)
    groups = groups - groups.mean((1, 2, 4), keepdims=True)
    groups = groups / np.sqrt((groups**2).mean((1, 2, 4), keepdims=True) + 1e-5)
    return np.maximum(groups.reshape(x.shape) * arrays[f"{name}/gamma"] + arrays[f"{name}/beta"], 0)


def _torch(array: NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))
