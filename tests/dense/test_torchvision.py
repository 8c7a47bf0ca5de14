"""torchvision beside a CPU torch: its operators are ours, their gradients right, its detectors train."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from reference import roi_align as oracle

from hpcscale.dense import ops
from hpcscale.dense.ops import torchvision

OURS = pytest.mark.skipif(torch.version.cuda is not None, reason="torchvision's own operators are loaded")
DETECTORS = ["fasterrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn", "keypointrcnn_resnet50_fpn",
             "retinanet_resnet50_fpn"]  # fmt: skip


def boxes(count=6, dtype=torch.float64):
    rois = torch.rand(count, 5, dtype=dtype, generator=torch.Generator().manual_seed(1)) * 30 - 2
    rois[:, 0] = torch.arange(count) % 2
    return rois


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("sampling", [2, -1])
def test_gradients_are_those_of_differences(sampling, aligned):
    maps = torch.randn(2, 3, 6, 5, dtype=torch.float64, requires_grad=True)
    align = torchvision.ops.RoIAlign((3, 2), 0.25, sampling, aligned)
    assert torch.autograd.gradcheck(lambda maps: align(maps, boxes()), [maps])


def test_roi_align_is_the_oracle_in_every_layout():
    maps = torch.randn(2, 40, 8, 9, dtype=torch.float64)
    expected = oracle.roi_align(
        maps.permute(0, 2, 3, 1).numpy(), boxes().numpy(), (0.25, 2, True), 7, 5
    ).transpose(0, 3, 1, 2)
    last = maps.to(memory_format=torch.channels_last)
    for given in (maps, last, maps.transpose(2, 3).contiguous().transpose(2, 3)):
        out = torchvision.ops.roi_align(given, boxes(), (7, 5), 0.25, 2, aligned=True)
        np.testing.assert_allclose(out.numpy(), expected, atol=1e-12)
    assert torchvision.ops.roi_align(maps, boxes(), 7).is_contiguous()
    assert torchvision.ops.roi_align(last, boxes(), 7).is_contiguous(memory_format=torch.channels_last)


def test_no_boxes_have_regions_and_gradients_of_zero():
    maps = torch.randn(1, 3, 6, 5, requires_grad=True)
    out = torchvision.ops.roi_align(maps, [torch.zeros(0, 4)], 7)
    assert out.shape == (0, 3, 7, 7)
    out.sum().backward()
    assert maps.grad is not None
    assert not maps.grad.any()


@OURS
def test_half_precision_is_computed_in_float32():
    maps = torch.randn(2, 3, 6, 5, requires_grad=True)
    half = maps.detach().bfloat16().requires_grad_()
    out = torchvision.ops.roi_align(half, boxes(dtype=torch.float32), 7)  # as under autocast
    whole = torchvision.ops.roi_align(half.float(), boxes(dtype=torch.float32), 7)
    assert out.dtype == torch.bfloat16
    assert torch.equal(out, whole.bfloat16())
    out.sum().backward()
    assert half.grad.dtype == torch.bfloat16
    kept = torchvision.ops.nms(torch.tensor([[0, 0, 9, 9], [0, 0, 9, 8]]).bfloat16(), torch.ones(2), 0.5)
    assert kept.tolist() == [0]


@OURS
def test_there_is_no_second_derivative():
    maps = torch.randn(2, 3, 6, 5, requires_grad=True)
    out = torchvision.ops.roi_align(maps, boxes(dtype=torch.float32), 7)
    (grad,) = torch.autograd.grad(out.square().sum(), maps, create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        grad.sum().backward()


def test_suppression_by_classes_and_its_refusals():
    corners = torch.tensor([[0, 0, 9, 9], [0, 0, 9, 8], [0, 0, 8, 9], [20, 20, 29, 29]], dtype=torch.float32)
    scores, classes = torch.tensor([0.5, 0.9, 0.7, 0.1]), torch.tensor([0, 0, 1, 1])
    assert torchvision.ops.batched_nms(corners, scores, classes, 0.5).tolist() == [1, 2, 3]
    assert torchvision.ops.nms(corners, scores, 0.5).tolist() == [1, 3]
    assert torchvision.ops.nms(corners[:0], scores[:0], 0.5).tolist() == []
    if torch.version.cuda is None:
        with pytest.raises(ValueError, match=r"\(4, 4\) and \(3,\)"):
            torchvision.ops.nms(corners, scores[:3], 0.5)


@pytest.mark.parametrize("name", DETECTORS)
def test_a_detector_learns_and_detects(name):
    torch.manual_seed(0)
    build = getattr(torchvision.models.detection, name)
    model = build(weights=None, weights_backbone=None, num_classes=3, min_size=64, max_size=64)
    images = [torch.rand(3, 64, 64), torch.rand(3, 48, 64)]
    corners = torch.tensor([[4.0, 4, 30, 40]])
    target = {"boxes": corners, "labels": torch.ones(1, dtype=torch.int64)}
    target["masks"] = torch.ones(1, 64, 64, dtype=torch.uint8)
    target["keypoints"] = torch.full((1, 17, 3), 20.0)
    none = {"boxes": corners[:0], "labels": target["labels"][:0], "masks": torch.zeros(0, 48, 64).byte(),
            "keypoints": torch.zeros(0, 17, 3)}  # fmt: skip
    losses = model(images, [target, none])
    total = sum(losses.values())
    assert torch.isfinite(total)
    total.backward()
    parts = {part: part.grad is not None for part in model.backbone.parameters() if part.requires_grad}
    assert all(parts.values())
    with torch.no_grad():
        found = model.eval()(images)
    assert {"boxes", "scores", "labels"} <= found[0].keys()
    assert torch.isfinite(found[0]["boxes"]).all()


@OURS
def test_in_a_fresh_process_torchvision_may_be_imported_afterwards():
    code = "import hpcscale.dense.ops, torchvision; from torchvision.ops import nms; import torch\n" \
           "print(nms(torch.tensor([[0., 0, 1, 1]]), torch.ones(1), .5).tolist())"  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[0]"]


def test_a_missing_torchvision_is_told(monkeypatch):
    monkeypatch.setattr(ops.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ops.NoTorchvision, match=r"pip install 'hpcscale\[dense\]'"):
        ops.load()
