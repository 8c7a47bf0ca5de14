"""Faster R-CNN as Sun et al. 2017 train it: anchors, matches, samples, conv5 on RoIs, what is frozen."""

import math

import pytest
import thin
import torch
from small_detectors import build, image, of_recipe, recipe, recorded, seen, target

from hpcscale.dense.ops import torchvision

BOXES = [[10.0, 20, 70, 90], [60, 30, 120, 110]]
RECIPES = ["sun2017_coco", "sun2017_voc", "sun2017_coco_frozen"]


@pytest.fixture(scope="module", autouse=True)
def _thin():
    with thin.network():
        yield


def anchors_of(model, side):
    images = torchvision.models.detection.image_list.ImageList(torch.zeros(1, 3, side, side), [(side, side)])
    (found,) = model.rpn.anchor_generator(images, list(model.backbone(images.tensors).values()))
    return found


def test_row_46_anchors_are_the_published_ones():
    """Sides 32 and 64, height / width 1/4, 1, 4: those of detectron2's test at the first place."""
    model = build(neck="conv4", anchors=[32, 64], ratios=[0.25, 1, 4])
    assert anchors_of(model, 16).tolist() == [
        [-32, -8, 32, 8], [-64, -16, 64, 16], [-16, -16, 16, 16], [-32, -32, 32, 32], [-8, -32, 8, 32],
        [-16, -64, 16, 64],
    ]  # fmt: skip


def test_row_46_every_place_of_conv4_has_all_anchors_of_the_recipe():
    model = of_recipe("sun2017_coco").model
    found = anchors_of(model, 64).reshape(4, 4, 12, 4)
    assert (found[1, 0] - found[0, 0]).tolist() == [[0, 16, 0, 16]] * 12
    width, height = found[0, 0, :, 2] - found[0, 0, :, 0], found[0, 0, :, 3] - found[0, 0, :, 1]
    for row, (ratio, side) in enumerate((r, s) for r in (0.5, 1, 2) for s in (64, 128, 256, 512)):
        assert height[row].item() == pytest.approx(side * ratio**0.5, abs=1)
        assert width[row].item() == pytest.approx(side / ratio**0.5, abs=1)


def test_row_46_boxes_are_coded_by_10_10_5_5_and_come_back():
    coder = build().roi_heads.box_coder
    roi, box = torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([[1.0, 0, 11, 20]])
    assert coder.encode([box], [roi])[0].tolist() == [pytest.approx([1, 5, 0, 5 * math.log(2)])]
    corners = torch.rand(50, 2, 2, generator=torch.Generator().manual_seed(0)) * 100
    boxes = torch.cat([corners[:, 0], corners[:, 0] + corners[:, 1] + 1], dim=1)
    rois = boxes.flip(0) + 3
    # Sides differ by no more than the coder's limit, 1000 / 16.
    codes = coder.encode([boxes], [rois])[0]
    torch.testing.assert_close(coder.decode(codes, [rois])[:, 0], boxes, rtol=1e-4, atol=1e-3)


def test_row_46_anchors_match_from_point_7_below_point_3_and_the_best_of_each_object():
    """The matrix of detectron2's test: matches [1, 1, 2, 0], labels [-1, 1, 0, 1]."""
    overlaps = torch.tensor([[0.15, 0.45, 0.2, 0.6], [0.3, 0.65, 0.05, 0.1], [0.05, 0.4, 0.25, 0.4]])
    model = build()
    assert overlaps.argmax(0).tolist() == [1, 1, 2, 0]
    assert model.rpn.proposal_matcher(overlaps).tolist() == [-2, 1, -1, 0]  # -2: neither, -1: background
    edges = torch.tensor([[0.9, 0.7, 0.69, 0.3, 0.29]])
    assert model.rpn.proposal_matcher(edges).tolist() == [0, 0, -2, -2, -1]
    edges = torch.tensor([[0.9, 0.5, 0.49, 0.0]])
    assert model.roi_heads.proposal_matcher(edges).tolist() == [0, 0, -1, -1]


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize(("positive", "negative"), [(1000, 5000), (10, 5000), (1000, 100)])
def test_row_46_quotas_of_samples(name, positive, negative):
    model = of_recipe(name).model
    labels = torch.cat([torch.ones(positive), torch.zeros(negative), torch.full((7,), -1)])
    for sampler, size, share in (
        (model.rpn.fg_bg_sampler, 64, 0.5),
        (model.roi_heads.fg_bg_sampler, 256, 0.25),
    ):
        (objects,), (background,) = sampler([labels])
        most = min(positive, int(size * share))
        assert objects.sum() == most
        assert background.sum() == min(negative, size - most)
        assert not (objects.bool() & (labels != 1)).any()


def test_row_46_64_anchors_and_256_proposals_are_trained_on(monkeypatch):
    task, counts = of_recipe("sun2017_coco"), []
    sampler = task.model.rpn.fg_bg_sampler

    def counting(labels):
        found = sampler(labels)
        counts.append([int(sum(part.sum() for part in parts)) for parts in zip(*found, strict=True)])
        return found

    monkeypatch.setattr(task.model.rpn, "fg_bg_sampler", counting)
    picture, two = image(256), target([[20.0, 20, 200, 180]], [1], 256)
    with recorded(task.model.roi_heads.box_predictor, lambda _, output: output[0].shape) as shapes:
        task.model([picture, picture], [two, two])
    assert counts == [[64, 64]]
    assert shapes == [(2 * 256, 3)]


def test_row_46_300_proposals_are_judged():
    model = of_recipe("sun2017_coco").model.eval()
    with torch.no_grad(), recorded(model.roi_heads.box_head, lambda given, _: len(given[0])) as counts:
        (found,) = model([image(256)])
    assert counts == [300]
    assert len(found["boxes"]) == 300  # two categories, all scores
    assert model.roi_heads.nms_thresh == 0.6


def test_row_46_conv5_has_stride_1_and_reads_rois_of_14_pooled_to_7():
    model = of_recipe("sun2017_coco").model
    body, sizes = model.backbone.body, lambda given, output: (given[0].shape[2:], output.shape[2:])
    with recorded(body.layer4, sizes) as found, recorded(model.roi_heads.box_roi_pool, sizes_of_rois) as rois:
        losses = model([image()], [target(BOXES, [1, 2])])
    assert rois == [(14, 14)]
    assert found == [((7, 7), (7, 7))]
    assert model.backbone(torch.zeros(1, 3, 64, 96))["0"].shape[2:] == (4, 6)  # conv1 to conv4: stride 16
    sum(losses.values()).backward()
    assert body.layer4[0].conv1.weight.grad.abs().sum() > 0


def sizes_of_rois(_, output):
    return tuple(output.shape[2:])


def test_row_46_weights_stand_once_in_a_checkpoint():
    state = of_recipe("sun2017_coco").model.state_dict()
    places = {(value.data_ptr(), value.shape) for value in state.values() if value.numel() > 1}
    assert len(places) == len([value for value in state.values() if value.numel() > 1])
    last = [name for name in state if "layer4" in name]
    assert last
    assert all(name.startswith("backbone.body.layer4.") for name in last)


def test_row_46_losses_of_boxes_count_twice():
    picture = seen(BOXES, [0, 1])
    found = []
    for weight in (1.0, 2.0):
        task = of_recipe("sun2017_coco", f"detector.localisation={weight}")
        torch.manual_seed(3)
        found.append(task.losses([picture], torch.device("cpu")))
    assert recipe("sun2017_coco").detector.localisation == 2
    for name in ("loss_rpn_box_reg", "loss_box_reg", "loss_objectness", "loss_classifier"):
        factor = 2 if "box_reg" in name else 1
        torch.testing.assert_close(found[1][name], found[0][name] * factor)
        assert found[0][name] > 0


@pytest.mark.parametrize("name", RECIPES)
def test_row_47_what_is_frozen_has_no_gradient_and_stays(name):
    """Section 5.2: all before conv5. Batch normalisation keeps its averages with and without."""
    model = of_recipe(name).model.train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    trained = [each for each in model.parameters() if each.requires_grad]
    sum(model([image()], [target(BOXES, [1, 2])]).values()).backward()
    torch.optim.SGD(trained, lr=0.1).step()
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    parts = {key.split(".")[2] for key in changed if key.startswith("backbone.body.")}
    every = {"conv1", "layer1", "layer2", "layer3", "layer4"}
    assert parts == ({"layer4"} if name == "sun2017_coco_frozen" else every)
    assert any(key.startswith("rpn.") for key in changed)
    assert not [key for key in changed if "running" in key or ".bn" in key or "num_batches" in key]
    for key, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, key
