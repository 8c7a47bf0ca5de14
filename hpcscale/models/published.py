"""Weights as others published them: their names and layouts in, the state of a network of ours out.

The .npz files of BiT hold an array for each variable of TensorFlow: `resnet/block1/unit01/a/group_norm/gamma`
and so on. In some files `standardized_conv2d` has a number behind it, which means nothing.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hpcscale.files import Told

# Of a unit: three times normalisation and convolution; the projection lies in the first.
PARTS = {
    "a/group_norm": "gn1", "a/standardized_conv2d": "conv1", "a/proj/standardized_conv2d": "downsample",
    "b/group_norm": "gn2", "b/standardized_conv2d": "conv2",
    "c/group_norm": "gn3", "c/standardized_conv2d": "conv3",
}  # fmt: skip
OUTSIDE = {"root_block/standardized_conv2d": "conv1", "group_norm": "gn", "head/conv2d": "fc"}
KINDS = {"kernel": "weight", "gamma": "weight", "bias": "bias", "beta": "bias"}
NAME = re.compile(r"resnet/(?:block([1-4])/unit(\d\d)/)?(.+)/(kernel|gamma|bias|beta)")


class PublishedError(Told):
    """Published weights that cannot be read; the message names the array."""


def bit(arrays: Mapping[str, NDArray[Any]]) -> dict[str, Tensor]:
    """The arrays of a published BiT model by our names, float32; other shapes are left for the caller to
    compare. Kernels are (height, width, inputs, outputs) there. Raises PublishedError for a name that BiT has
    not, a kernel that has not four axes, and a head larger than 1x1."""
    return dict(_bit(name, array) for name, array in arrays.items())


def _bit(name: str, array: NDArray[Any]) -> tuple[str, Tensor]:
    found = NAME.fullmatch(re.sub(r"standardized_conv2d_\d+/", "standardized_conv2d/", name))
    block, unit, part, kind = found.groups("") if found else ("", "", "", "")
    ours = (PARTS if block else OUTSIDE).get(part)
    if ours is None:
        raise PublishedError(
            f"{name}: no array of a BiT model, whose names are as resnet/block1/unit01/a/..."
        )
    if block:
        ours = f"layer{block}.{int(unit) - 1}.{ours}"
    if kind != "kernel":
        array = array.reshape(-1)
    elif array.ndim != 4:
        raise PublishedError(f"{name}: its shape is {array.shape}; a kernel has four axes")
    elif ours != "fc":
        array = array.transpose(3, 2, 0, 1)
    elif array.shape[:2] != (1, 1):
        raise PublishedError(f"{name}: its shape is {array.shape}; the head of BiT is a 1x1 convolution")
    else:
        array = array[0, 0].T
    return f"{ours}.{KINDS[kind]}", torch.from_numpy(np.array(array, np.float32, order="C"))
