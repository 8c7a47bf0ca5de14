"""torchvision, whose operators work with every torch: `from hpcscale.dense.ops import torchvision`.

Its wheel is compiled against CUDA torch. There its own operators are taken, those of GPUs among them. Beside
a CPU torch they cannot be loaded, and ours take their place: nms and roi_align, on the CPU, with the same
results (cpp/include/hpcscale/nms.hpp, roi_align.hpp). What else is compiled stays missing: roi_pool,
ps_roi_align, ps_roi_pool, deform_conv2d and the decoders of pictures raise torch's NotImplementedError or
AttributeError.
"""

import importlib.util
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from hpcscale import ops
from hpcscale.files import Told

# As torchvision declares them; importing it asks for the name of qnms, which is for quantised boxes.
NMS = "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
ROI_ALIGN = (
    "roi_align(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt pooled_width, "
    "int sampling_ratio, bool aligned) -> Tensor"
)
BACKWARD = (
    "_roi_align_backward(Tensor grad, Tensor rois, float spatial_scale, SymInt pooled_height, "
    "SymInt pooled_width, SymInt batch_size, SymInt channels, SymInt height, SymInt width, "
    "int sampling_ratio, bool aligned) -> Tensor"
)
# What it registers ends with it.
LIBRARY: Any = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]


class NoTorchvision(Told, ImportError):
    """torchvision is not installed."""


def load() -> ModuleType:
    """torchvision, imported; its operators are its own or ours. Raises NoTorchvision."""
    found = importlib.util.find_spec("torchvision")
    if found is None or found.origin is None:
        raise NoTorchvision("detectors need torchvision: pip install 'hpcscale[dense]'")
    if not _loads(Path(found.origin).parent):
        _register()
    module = import_module("torchvision")
    if not module.extension._has_ops():
        # The one name of torchvision's own that this needs: what asks whether operators are there.
        for part in ("torchvision.extension", "torchvision.ops.roi_align"):
            sys.modules[part]._has_ops = lambda: True  # type: ignore[attr-defined]
    return module


def _loads(folder: Path) -> bool:
    """Whether torchvision's own operators can be loaded; they are then."""
    for library in folder.glob("_C*.so"):
        try:
            torch.ops.load_library(library)  # type: ignore[no-untyped-call]
        except OSError:  # another torch than it was compiled against
            continue
        return True
    return False


def _register() -> None:
    for schema in (NMS, NMS.replace("nms", "qnms", 1), ROI_ALIGN, BACKWARD):
        LIBRARY.define(schema)
    LIBRARY.impl("nms", nms, "CPU")
    LIBRARY.impl("roi_align", roi_align, "CPU")
    LIBRARY.impl("_roi_align_backward", roi_align_backward, "CPU")
    torch.library.register_autograd(
        "torchvision::roi_align", _gradients, setup_context=_remember, lib=LIBRARY
    )
    torch.library.register_autograd("torchvision::_roi_align_backward", _no_second, lib=LIBRARY)


def nms(dets: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """dets (n, 4), scores (n,) -> places of those that stay, int64. Half precision is compared as float32."""
    if dets.ndim != 2 or dets.shape[1] != 4 or scores.shape != dets.shape[:1]:
        raise ValueError(
            f"nms: needs boxes (n, 4) and scores (n,), found {tuple(dets.shape)} and {tuple(scores.shape)}"
        )
    dtype = _precision(dets)
    boxes, by = (each.detach().to(dtype).contiguous().numpy() for each in (dets, scores))
    return torch.from_numpy(ops.nms(boxes, by, iou_threshold))


# arguments: those of torchvision's operator
def roi_align(
    input: Tensor,
    rois: Tensor,
    spatial_scale: float,
    pooled_height: int,
    pooled_width: int,
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    """input (n, channels, h, w), rois (k, 5) -> (k, channels, pooled_height, pooled_width), as `input` is.

    The result is channels_last, which is how it is computed, unless `input` was not: then it is copied, as
    `input` is. Half precision is computed in float32.
    """
    dtype = _precision(input)
    maps = _channels_last(input, dtype)
    out = torch.empty(len(rois), pooled_height, pooled_width, input.shape[1], dtype=dtype)
    boxes = rois.detach().to(dtype).contiguous()
    how = (spatial_scale, sampling_ratio, aligned)
    ops.roi_align(maps.numpy(), boxes.numpy(), how, torch.get_num_threads(), out.numpy())
    given = out.permute(0, 3, 1, 2).to(input.dtype)
    return given.contiguous() if input.is_contiguous() else given


# arguments: those of torchvision's operator
def roi_align_backward(
    grad: Tensor,
    rois: Tensor,
    spatial_scale: float,
    pooled_height: int,
    pooled_width: int,
    batch_size: int,
    channels: int,
    height: int,
    width: int,
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    """grad (k, channels, pooled_height, pooled_width) -> by the maps, (batch_size, channels, height, width)

    channels_last. The same bits with every number of threads.
    """
    dtype = _precision(grad)
    maps = torch.zeros(batch_size, height, width, channels, dtype=dtype)
    boxes = rois.detach().to(dtype).contiguous()
    how = (spatial_scale, sampling_ratio, aligned)
    threads = torch.get_num_threads()
    ops.roi_align_gradient(_channels_last(grad, dtype).numpy(), boxes.numpy(), how, threads, maps.numpy())
    return maps.permute(0, 3, 1, 2).to(grad.dtype)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    maps, rois, *ctx.how = inputs
    ctx.save_for_backward(rois)
    ctx.shape = maps.shape


def _gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    """By the maps; there is none by boxes, as in torchvision."""
    scale, height, width, sampling, aligned = ctx.how
    backward = torch.ops.torchvision._roi_align_backward
    maps = backward(grad, *ctx.saved_tensors, scale, height, width, *ctx.shape, sampling, aligned)
    return maps, *[None] * 6


def _no_second(ctx: Any, grad: Tensor) -> None:
    raise RuntimeError("roi_align has no second derivative")


def _precision(values: Tensor) -> torch.dtype:
    return torch.float64 if values.dtype == torch.float64 else torch.float32


def _channels_last(maps: Tensor, dtype: torch.dtype) -> Tensor:
    """(n, channels, h, w) -> (n, h, w, channels) without gaps"""
    return maps.detach().to(dtype).permute(0, 2, 3, 1).contiguous()


torchvision = load()
