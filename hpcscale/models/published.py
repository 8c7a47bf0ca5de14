"""Weights of BiT as others published them: their names and layouts in, tensors by our names out.

The .npz files of its authors hold an array for each variable of TensorFlow:
`resnet/block1/unit01/a/group_norm/gamma` and so on; in some, `standardized_conv2d` has a number behind it,
which means nothing. timm's files (`resnetv2_50x1_bit` to `resnetv2_152x4_bit`) name the same tensors
`stages.0.blocks.0.norm1.weight`. ResNets and ResNeXts of others have torchvision's names, as ours have.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from hpcscale.files import Told
from hpcscale.models.preprocessing import DEVIATIONS, MEANS

# Of a unit: three times normalisation and convolution; the projection lies in the first.
PARTS = {
    "a/group_norm": "gn1", "a/standardized_conv2d": "conv1", "a/proj/standardized_conv2d": "downsample",
    "b/group_norm": "gn2", "b/standardized_conv2d": "conv2",
    "c/group_norm": "gn3", "c/standardized_conv2d": "conv3",
}  # fmt: skip
OUTSIDE = {"root_block/standardized_conv2d": "conv1", "group_norm": "gn", "head/conv2d": "fc"}
KINDS = {"kernel": "weight", "gamma": "weight", "bias": "bias", "beta": "bias"}
NAME = re.compile(r"resnet/(?:block([1-4])/unit(\d\d)/)?(.+)/(kernel|gamma|bias|beta)")
TIMM = re.compile(r"(?:stages\.([0-3])\.blocks\.(\d+)\.)?(.+)\.(weight|bias)")
TIMM_PARTS = {f"{there}{i}": f"{here}{i}" for there, here in (("norm", "gn"), ("conv", "conv"))
              for i in (1, 2, 3)} | {"downsample.conv": "downsample"}  # fmt: skip
TIMM_OUTSIDE = {"stem.conv": "conv1", "norm": "gn", "head.fc": "fc"}
# What the files do not say, and their authors' code does: big_transfer's input pipeline and bit_pytorch, and
# timm's configurations of these names.
PREPROCESSING = {"channels": "RGB", "mean": MEANS["signed"], "std": DEVIATIONS["signed"], "stride": "3x3"}


class PublishedError(Told):
    """Published weights that cannot be read; the message names the tensor."""


def ours(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a file by our names, and what is known of the file beside it. Those of other networks,
    and names that BiT has not, stay as they are. Raises PublishedError."""
    if any(name.startswith("resnet/") for name in tensors):
        return dict(_published(name, tensor) for name, tensor in tensors.items()), _known()
    if "stem.conv.weight" not in tensors or "stages.0.blocks.0.norm3.weight" not in tensors:
        return dict(tensors), {}
    if averages := [name for name in tensors if name.endswith("running_mean")]:
        raise PublishedError(
            f"{averages[0]}: timm's ResNet of version 2 with batch normalisation, which is not BiT"
        )
    return dict(_timm(name, tensor) for name, tensor in tensors.items()), _known()


def _known() -> dict[str, Any]:
    return {"preprocessing": PREPROCESSING}


def _published(name: str, tensor: Tensor) -> tuple[str, Tensor]:
    """Kernels are (height, width, inputs, outputs) there."""
    found = NAME.fullmatch(re.sub(r"standardized_conv2d_\d+/", "standardized_conv2d/", name))
    block, unit, part, kind = found.groups("") if found else ("", "", "", "")
    place = (PARTS if block else OUTSIDE).get(part)
    if place is None:
        return name, tensor
    if block:
        place = f"layer{block}.{int(unit) - 1}.{place}"
    if kind != "kernel":
        tensor = tensor.reshape(-1)
    elif tensor.ndim != 4:
        raise PublishedError(f"{name}: its shape is {tuple(tensor.shape)}; a kernel has four axes")
    else:
        tensor = tensor.permute(3, 2, 0, 1)
    return f"{place}.{KINDS[kind]}", _plain(name, place, tensor)


def _timm(name: str, tensor: Tensor) -> tuple[str, Tensor]:
    found = TIMM.fullmatch(name)
    stage, block, part, kind = found.groups("") if found else ("", "", "", "")
    place = (TIMM_PARTS if stage else TIMM_OUTSIDE).get(part)
    if place is None:
        return name, tensor
    if stage:
        place = f"layer{int(stage) + 1}.{block}.{place}"
    return f"{place}.{kind}", _plain(name, place, tensor)


def _plain(name: str, place: str, tensor: Tensor) -> Tensor:
    """float32; a head, which is a 1x1 convolution there, as the matrix that it is."""
    if place == "fc" and tensor.ndim == 4:
        if tensor.shape[2:] != (1, 1):
            raise PublishedError(
                f"{name}: its window is {tuple(tensor.shape[2:])}; the head of BiT is a 1x1 convolution"
            )
        tensor = tensor[:, :, 0, 0]
    return tensor.to(torch.float32).contiguous()
