"""Non-maximum suppression and RoIAlign, as detectors of 800 x 1088 pixels need them.

Ours through torch, against what people fall back on without compiled operators: suppression in NumPy,
RoIAlign by grid_sample. torchvision's own C++ is measured where it can be loaded, which is beside CUDA
torch. For one shape its times on a machine of this kind are known: `STATED`.
"""

import numpy as np
import torch
from torch.nn import functional as F

from benchmarks.harness import interleave, table
from hpcscale.dense import ops
from hpcscale.dense.ops import torchvision

CHANNELS, HEIGHT, WIDTH, SCALE = 256, 200, 272, 0.25  # the finest level of a pyramid
THRESHOLD = 0.7
# Milliseconds of torchvision 0.28's C++ on two cores, given to us, not measured here; the size of the maps is
# not said.
STATED = {"nms 2000": (10, 13), "forward 1024": (130, 200), "backward 1024": (540, 800)}


def run() -> str:
    parts = [suppression(2000), suppression(12000)]
    for boxes, side in ((512, 7), (512, 14), (1024, 7)):
        parts += [forward(boxes, side), backward(boxes, side)]
    return "\n".join(parts)


def suppression(count) -> str:
    boxes, scores = proposals(count), torch.rand(count, generator=seeded())
    kept = ops.nms(boxes, scores, THRESHOLD)
    assert kept.tolist() == numpy_nms(boxes.numpy(), scores.numpy()).tolist()
    functions = {
        "hpcscale": lambda: ops.nms(boxes, scores, THRESHOLD),
        "NumPy": lambda: numpy_nms(boxes.numpy(), scores.numpy()),
    }
    if own():
        functions["torchvision's C++"] = lambda: torchvision.ops.nms(boxes, scores, THRESHOLD)
    rates = interleave(functions, count)
    notes = [f"{len(kept):,} boxes stay", *stated(f"nms {count}", rates[0], count)]
    return table(f"Suppression of {count:,} boxes", "boxes", rates, notes)


def forward(count, side) -> str:
    maps, rois = inputs(count)
    last = maps.to(memory_format=torch.channels_last)
    how = (SCALE, side, side, 2, False)
    functions = {
        "hpcscale, channels_last, as our networks are": lambda: ops.roi_align(last, rois, *how),
        "hpcscale, contiguous": lambda: ops.roi_align(maps, rois, *how),
        "grid_sample": lambda: sampled(maps, rois, side),
    }
    torch.testing.assert_close(ops.roi_align(last, rois, *how), sampled(maps, rois, side), rtol=0, atol=1e-3)
    if own():
        functions["torchvision's C++"] = lambda: torch.ops.torchvision.roi_align(maps, rois, *how)
    rates = interleave(functions, count, repeats=3)
    notes = stated(f"forward {count}", rates[0], count) + stated(f"forward {count}", rates[1], count)
    return table(f"RoIAlign of {count:,} boxes, {CHANNELS} x {side} x {side}", "boxes", rates, notes)


def backward(count, side) -> str:
    maps, rois = inputs(count)
    grad = torch.randn(count, CHANNELS, side, side, generator=seeded())
    last = grad.to(memory_format=torch.channels_last)
    how = (SCALE, side, side, 1, CHANNELS, HEIGHT, WIDTH, 2, False)
    leaf = maps.requires_grad_()
    out = sampled(leaf, rois, side)
    functions = {
        "hpcscale, channels_last, as our networks are": lambda: ops.roi_align_backward(last, rois, *how),
        "hpcscale, contiguous": lambda: ops.roi_align_backward(grad, rois, *how),
        "grid_sample": lambda: torch.autograd.grad(out, leaf, grad, retain_graph=True),
    }
    ours, theirs = ops.roi_align_backward(grad, rois, *how), torch.autograd.grad(out, leaf, grad, True)[0]
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-3)
    if own():
        function = torch.ops.torchvision._roi_align_backward
        functions["torchvision's C++"] = lambda: function(grad, rois, *how)
    rates = interleave(functions, count, repeats=3)
    notes = stated(f"backward {count}", rates[0], count) + stated(f"backward {count}", rates[1], count)
    return table(f"RoIAlign's gradient, {count:,} boxes, {CHANNELS} x {side} x {side}", "boxes", rates, notes)


def stated(key, rate, items) -> list[str]:
    """How the wall time compares with torchvision's, where that is known."""
    if key not in STATED:
        return []
    low, high = STATED[key]
    wall, core = 1e3 * items / rate.per_second, 1e3 * items / rate.per_core
    return [
        f"{rate.name}: {wall:.3g} ms, {core:.3g} ms of CPU; torchvision's C++, stated, not measured: "
        f"{low} to {high} ms, {low / wall:.2g} to {high / wall:.2g} times ours ({low / core:.2g} to "
        f"{high / core:.2g} times our CPU time)"
    ]


def own() -> bool:
    """Whether torchvision's compiled operators are loaded."""
    return hasattr(torch.ops.torchvision, "_cuda_version")


def seeded():
    return torch.Generator().manual_seed(0)


def proposals(count):
    """Boxes (count, 4) of 16 to 500 pixels, each near one of 200 places."""
    random = np.random.default_rng(0)
    place = random.integers(0, 200, count)
    middles = random.uniform(0, (WIDTH / SCALE, HEIGHT / SCALE), (200, 2))[place]
    sides = np.exp(random.uniform(np.log(16), np.log(500), (200, 2)))[place]
    middles += random.normal(size=(count, 2)) * sides * 0.1
    sides *= np.exp(random.normal(size=(count, 2)) * 0.15)
    corners = np.hstack([middles - sides / 2, middles + sides / 2])
    return torch.from_numpy(np.clip(corners, 0, (WIDTH / SCALE, HEIGHT / SCALE) * 2).astype(np.float32))


def inputs(count):
    """Maps (1, channels, height, width), and boxes of 16 to 112 pixels, which are read at this level."""
    random = np.random.default_rng(1)
    middles = random.uniform(0, (WIDTH / SCALE, HEIGHT / SCALE), (count, 2))
    sides = np.exp(random.uniform(np.log(16), np.log(112), (count, 2)))
    corners = np.hstack([np.zeros((count, 1)), middles - sides / 2, middles + sides / 2])
    rois = np.clip(corners, 0, (0, *(WIDTH / SCALE, HEIGHT / SCALE) * 2)).astype(np.float32)
    return torch.randn(1, CHANNELS, HEIGHT, WIDTH, generator=seeded()), torch.from_numpy(rois)


def numpy_nms(boxes, scores):
    order = np.argsort(-scores, kind="stable")
    left, top, right, bottom = boxes[order].T
    area = (right - left) * (bottom - top)
    alive, kept = np.ones(len(order), bool), []
    for i in range(len(order)):
        if not alive[i]:
            continue
        kept.append(order[i])
        width = np.minimum(right[i], right[i + 1 :]) - np.maximum(left[i], left[i + 1 :])
        height = np.minimum(bottom[i], bottom[i + 1 :]) - np.maximum(top[i], top[i + 1 :])
        inter = np.maximum(width, 0) * np.maximum(height, 0)
        alive[i + 1 :] &= ~(inter / (area[i] + area[i + 1 :] - inter) > THRESHOLD)
    return np.array(kept)


def sampled(maps, rois, side):
    """RoIAlign, not aligned, two points a side of a bin, by one grid_sample and an average."""
    low, size = rois[:, 1:3] * SCALE, ((rois[:, 3:] - rois[:, 1:3]) * SCALE).clamp(min=1)
    steps = (torch.arange(2 * side) + 0.5) / (2 * side)
    limits = torch.tensor([WIDTH, HEIGHT]) - 1
    at = (low[:, None] + steps[:, None] * size[:, None]).clamp(min=0).minimum(limits) * 2 / limits - 1
    x, y = (at[..., axis].reshape(1, len(rois), -1) for axis in (0, 1))
    grid = torch.stack(
        [x[..., None, :].expand(-1, -1, 2 * side, -1), y[..., None].expand(-1, -1, -1, 2 * side)], -1
    ).reshape(1, -1, 2 * side, 2)
    points = F.grid_sample(maps, grid, align_corners=True)
    points = points.view(CHANNELS, len(rois), 2 * side, 2 * side).transpose(0, 1)
    return F.avg_pool2d(points, 2)


if __name__ == "__main__":
    print(run())
